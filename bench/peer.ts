/**
 * The PyTorch peer as a child process: it prepares a training step once and then runs as many as it is told, so its
 * slices can alternate with ours. Lines of JSON both ways; see peers/torch_step.py.
 */
import { spawn } from 'node:child_process'
import type { ChildProcess } from 'node:child_process'
import { existsSync } from 'node:fs'
import { createInterface } from 'node:readline'
import { fileURLToPath } from 'node:url'
import { failure } from '../src/errors.ts'
import type { Contestant } from './slices.ts'

export interface Peer extends Contestant {
  readonly version: string
  readonly parameters: number
  readonly threads: number
  close(): void
}

export interface PeerOptions {
  readonly threads: number
  readonly compile: boolean
}

const folder = new URL('peers/', import.meta.url)
const python = fileURLToPath(new URL('.venv/bin/python', folder))

/** Whether peers/install.sh has been run here. */
export const peerInstalled = (): boolean => existsSync(python)

/**
 * Starts PyTorch with one of the two recipes that peers/torch_models.py knows; ready when its first steps are done.
 *
 * @throws UserError with the last line of its error output when it does not start.
 */
export const startTorch = (config: object, { threads, compile }: PeerOptions): Promise<Peer> =>
  startPeer(compile ? 'PyTorch compile' : 'PyTorch eager', python, [
    fileURLToPath(new URL('torch_step.py', folder)),
    JSON.stringify(config),
    '--threads',
    String(threads),
    ...(compile ? ['--compile'] : []),
  ])

/** Starts another script of peers/ on the same protocol, with its configuration as JSON. */
export const startTorchScript = (
  name: string,
  script: string,
  config: object,
  threads: number,
): Promise<Peer> =>
  startPeer(name, python, [
    fileURLToPath(new URL(script, folder)),
    JSON.stringify(config),
    '--threads',
    String(threads),
  ])

/** Starts any program that speaks the peer's protocol. */
export async function startPeer(name: string, command: string, args: readonly string[]): Promise<Peer> {
  const child = spawn(command, args, { stdio: ['pipe', 'pipe', 'pipe'] })
  const replies = createInterface({ input: child.stdout })[Symbol.asyncIterator]()
  const lastWords = listen(child)
  const answer = async (): Promise<Record<string, unknown>> => {
    const { value, done } = await replies.next()
    if (done) throw died(name, command, await lastWords)
    return JSON.parse(value) as Record<string, unknown>
  }
  const { version, parameters, threads } = await answer()
  return {
    name,
    version: String(version),
    parameters: Number(parameters),
    threads: Number(threads),
    async run(k) {
      child.stdin.write(`run ${k}\n`)
      return Number((await answer())['seconds'])
    },
    close: () => child.stdin.end('quit\n'),
  }
}

/** Resolves with the last line of error output once the process is gone. */
function listen(child: ChildProcess): Promise<string> {
  let words = ''
  child.stderr?.setEncoding('utf8').on('data', (text: string) => {
    words = (words + text).slice(-10_000)
  })
  // A write to a process that has just died; its last words say why.
  child.stdin?.on('error', () => {})
  return new Promise((resolve) => {
    child.on('error', (error) => resolve(error.message))
    child.on('close', (code, signal) =>
      resolve(words.trim().split('\n').at(-1) || `ended with ${signal ?? code}`),
    )
  })
}

const died = (name: string, command: string, words: string): Error =>
  failure({
    where: `${name} (${command})`,
    got: words,
    expected: 'a peer that runs training steps',
    fix: 'install it again with bench/peers/install.sh, or remove bench/peers/.venv to measure without it',
  })
