/**
 * The browser's Worker on Node's worker threads, as far as jax-js needs it: it starts workers from a blob's URL. Without it
 * jax-js runs on one thread in Node; with it, it is used as in a browser, which is only fair.
 */
/* oxlint-disable unicorn/require-post-message-target-origin -- the messages of worker threads have no origin */
import { resolveObjectURL } from 'node:buffer'
import { Worker as NodeWorker } from 'node:worker_threads'

const prelude = `
const { parentPort } = require('node:worker_threads')
globalThis.self = globalThis
globalThis.postMessage = (message) => parentPort.postMessage(message)
parentPort.on('message', (data) => self.onmessage({ data }))
`

class WebWorker {
  onmessage = null
  onerror = null
  #worker = null
  #waiting = []

  constructor(url) {
    resolveObjectURL(url)
      .text()
      .then((source) => {
        this.#worker = new NodeWorker(prelude + source, { eval: true })
        this.#worker.on('message', (data) => this.onmessage?.({ data }))
        this.#worker.on('error', (error) => this.onerror?.(error))
        for (const message of this.#waiting) this.#worker.postMessage(message)
      })
  }

  postMessage(message) {
    if (this.#worker) this.#worker.postMessage(message)
    else this.#waiting.push(message)
  }
}

/** Gives this process a global Worker and says how many of them to use. */
export function installWorkers(threads) {
  globalThis.Worker = WebWorker
  Object.defineProperty(globalThis.navigator, 'hardwareConcurrency', { value: threads })
}
