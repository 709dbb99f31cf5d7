/**
 * Starts `anneal` as a person does, for the end-to-end tests: the real launcher in a process of its own, so that it can
 * be killed, and whatever is checked afterwards is what lies on disk. Subtle: the launcher runs itself again on an old
 * Node; tests run on the right one, so the process started here is the one that trains and takes the signals.
 */
import { spawn, spawnSync } from 'node:child_process'
import type { ChildProcess } from 'node:child_process'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'

export const launcher: string = join(fileURLToPath(new URL('..', import.meta.url)), 'bin', 'anneal.js')

export interface Outcome {
  /** null when a signal ended the process. */
  readonly code: number | null
  readonly out: string
  readonly err: string
}

export interface Started {
  readonly process: ChildProcess
  readonly ended: Promise<Outcome>
  /** What it has printed on stderr so far. */
  readonly err: () => string
}

/** The environment without what the test runner adds for its own children. */
export function environment(): NodeJS.ProcessEnv {
  const { NODE_OPTIONS: _, NODE_TEST_CONTEXT: __, ...env } = process.env
  return { ...env, NO_COLOR: '1' }
}

/** Runs a command to its end. */
export function run(command: string, args: readonly string[], cwd?: string): Outcome {
  const options = { encoding: 'utf8', env: environment(), ...(cwd === undefined ? {} : { cwd }) } as const
  const { status, stdout, stderr } = spawnSync(command, args, options)
  return { code: status, out: stdout, err: stderr }
}

/** Runs `anneal` to its end. */
export const anneal = (...args: string[]): Outcome => run(process.execPath, [launcher, ...args])

/** Starts `anneal` and returns at once. */
export function start(...args: string[]): Started {
  const child = spawn(process.execPath, [launcher, ...args], { env: environment() })
  let out = ''
  let err = ''
  child.stdout.on('data', (text: Buffer) => (out += text.toString()))
  child.stderr.on('data', (text: Buffer) => (err += text.toString()))
  const ended = new Promise<Outcome>((resolve) => {
    child.on('close', (code) => resolve({ code, out, err }))
  })
  return { process: child, ended, err: () => err }
}

/** The one line of stderr that says what went wrong. Progress and notes may precede it. */
export function errorLine({ err }: Outcome): string {
  const lines = err.trimEnd().split('\n')
  const errors = lines.filter((line) => line.startsWith('error: '))
  return errors.length === 1 && errors[0] === lines.at(-1) ? errors[0]! : `not one error line, last: ${err}`
}
