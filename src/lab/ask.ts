/**
 * Questions that the command line answers with `--json`: what a training run would cost, what this machine can do. A
 * process of its own, since compiling and measuring would hold up everybody else, and ended when nobody waits any more.
 */
import { execFile } from 'node:child_process'
import { failure, UserError } from '../errors.ts'
import type { Complaint } from '../errors.ts'
import type { LabOptions } from './options.ts'

const mostBytes = 16 << 20
const patienceMs = 120_000

/**
 * The document that a command prints.
 * @throws UserError what the command said was wrong.
 */
export function ask(
  { command }: LabOptions,
  words: readonly string[],
  signal: AbortSignal,
): Promise<Readonly<Record<string, unknown>>> {
  const [program, ...first] = command
  return new Promise((resolve, reject) => {
    const settings = { maxBuffer: mostBytes, timeout: patienceMs, signal, encoding: 'utf8' } as const
    execFile(program, [...first, ...words, '--json'], settings, (problem, out, err) => {
      const document = parseDocument(out)
      const error = document?.['error'] as (Complaint & { readonly exitCode: 1 | 2 }) | undefined
      if (error?.where !== undefined) reject(new UserError(error, error.exitCode))
      else if (document !== undefined) resolve(document)
      else
        reject(
          failure({
            where: words.slice(0, 2).join(' '),
            got: err.trim().split('\n').at(-1) || (problem?.message ?? 'no answer'),
            expected: 'an answer',
            fix: 'try it in a terminal, which says more',
          }),
        )
    })
  })
}

function parseDocument(text: string): Readonly<Record<string, unknown>> | undefined {
  try {
    const document: unknown = JSON.parse(text)
    return typeof document === 'object' && document !== null
      ? (document as Record<string, unknown>)
      : undefined
  } catch {
    return undefined
  }
}
