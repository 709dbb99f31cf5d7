/**
 * For tests, a process of its own: opens so many connections to a port and says nothing on them. Prints how many were
 * opened and how many were refused, then, for every line of input, how many are still open; ends with its input.
 */
import { connect, type Socket } from 'node:net'
import { createInterface } from 'node:readline'

const [port, count] = process.argv.slice(2).map(Number) as [number, number]
/** Attempts at a time: fewer than servers let wait to be accepted. */
const atOnce = 200
let [open, opened, refused] = [0, 0, 0]
const sockets: Socket[] = []

function connectOne(): Promise<void> {
  return new Promise((resolve) => {
    const socket = connect(port, '127.0.0.1')
    let isOpen = false
    socket.on('connect', () => {
      isOpen = true
      open++
      opened++
      resolve()
    })
    // Reading notices when the server closes it.
    socket.resume()
    socket.on('error', () => undefined)
    socket.on('close', () => {
      if (isOpen) open--
      else refused++
      resolve()
    })
    sockets.push(socket)
  })
}

let begun = 0
async function worker(): Promise<void> {
  while (begun++ < count) await connectOne()
}
await Promise.all(Array.from({ length: atOnce }, worker))
console.log(JSON.stringify({ opened, refused }))
createInterface({ input: process.stdin })
  .on('line', () => console.log(JSON.stringify({ open })))
  .on('close', () => {
    for (const socket of sockets) socket.destroy()
  })
