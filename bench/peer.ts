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
import type { LanguageConfig } from '../src/models/language/config.ts'
import type { Contestant } from './slices.ts'

export interface Peer extends Contestant {
  readonly version: string
  readonly parameters: number
  readonly threads: number
  /** Sends a line that is not answered. */
  order(line: string): void
  close(): void
}

export interface PeerOptions {
  readonly threads: number
  readonly compile: boolean
}

/** One instruction set for all: MKL and PyTorch's own kernels obey these, as ours obey ANNEAL_ISA. */
const narrow = { MKL_ENABLE_INSTRUCTIONS: 'AVX2', ATEN_CPU_CAPABILITY: 'avx2', ONEDNN_MAX_CPU_ISA: 'AVX2' }

const folder = new URL('peers/', import.meta.url)
export const python = fileURLToPath(new URL('.venv/bin/python', folder))

/** Whether peers/install.sh has been run here. */
export const torchInstalled = (): boolean => existsSync(python)

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

const llmcProgram = fileURLToPath(new URL('llmc/step', folder))

/** Whether peers/llmc/install.sh has been run here. */
export const llmcInstalled = (): boolean => existsSync(llmcProgram)

/** llm.c's CPU trainer on a model of GPT-2's kind. */
export const startLlmc = ({ model, batch, threads }: LanguageConfig, vocab: number): Promise<Peer> => {
  const { layers, width, heads, context } = model
  const sizes = [layers, width, heads, context, vocab, batch, context].map(String)
  return startPeer('llm.c', llmcProgram, sizes, { OMP_NUM_THREADS: String(threads) })
}

/** Whether peers/js/install.sh has been run here. */
export const jsInstalled = (): boolean =>
  ['@jax-js/jax', '@tensorflow/tfjs-backend-wasm'].every((name) =>
    existsSync(new URL(`js/node_modules/${name}/package.json`, folder)),
  )

/** One of the trainers in peers/js, in a Node of its own. */
export const startJs = (name: string, file: string, config: object, threads: number): Promise<Peer> =>
  startPeer(name, process.execPath, [
    fileURLToPath(new URL(`js/${file}`, folder)),
    JSON.stringify(config),
    String(threads),
  ])

/** PyTorch for single operations: one process that holds many, see peers/torch_micro.py. */
export interface MicroPeer {
  readonly version: string
  contestant(name: string, spec: object): Contestant
  close(): void
}

export async function startTorchMicro(threads: number): Promise<MicroPeer> {
  const script = fileURLToPath(new URL('torch_micro.py', folder))
  const peer = await startPeer('PyTorch', python, [script, '--threads', String(threads)])
  return {
    version: peer.version,
    contestant: (name, spec) => ({
      name,
      run(k) {
        peer.order(`use ${JSON.stringify(spec)}`)
        return peer.run(k)
      },
    }),
    close: () => peer.close(),
  }
}
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
export async function startPeer(
  name: string,
  command: string,
  args: readonly string[],
  environment: NodeJS.ProcessEnv = {},
): Promise<Peer> {
  const restricted = process.env['ANNEAL_ISA'] === 'avx2' ? narrow : {}
  const env = { ...process.env, ...restricted, ...environment }
  const child = spawn(command, args, { stdio: ['pipe', 'pipe', 'pipe'], env })
  const replies = createInterface({ input: child.stdout })[Symbol.asyncIterator]()
  const lastWords = listen(child)
  const answer = async (): Promise<Record<string, unknown>> => {
    for (;;) {
      const { value, done } = await replies.next()
      if (done) throw died(name, command, await lastWords)
      // Peers may talk of other things, too.
      if (value.startsWith('{')) return JSON.parse(value) as Record<string, unknown>
    }
  }
  const { version, parameters, threads } = await answer()
  return {
    name,
    version: String(version),
    parameters: Number(parameters),
    threads: Number(threads),
    order(line) {
      child.stdin.write(`${line}\n`)
    },
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
    fix: 'install it again (bench/peers/README.md), or remove it to measure without it',
  })
