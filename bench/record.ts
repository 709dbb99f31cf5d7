/** The history of results, one line a measurement, kept in the repository: how speed developed, on which machine. */
import { execFileSync } from 'node:child_process'
import { appendFileSync } from 'node:fs'
import { cpus } from 'node:os'

interface Result {
  readonly bench: string
  readonly [fact: string]: unknown
}

/** Appends a result. Only those of a quiet machine belong here (see `disturbances`): others would mislead. */
export function record(result: Result): void {
  const isa = process.env['ANNEAL_ISA']
  const line = {
    date: new Date().toISOString(),
    commit: commit(),
    cpu: cpus()[0]?.model,
    ...(isa ? { isa } : {}),
    ...result,
  }
  appendFileSync(new URL('history.jsonl', import.meta.url), `${JSON.stringify(line)}\n`)
}

function commit(): string | null {
  try {
    return execFileSync('git', ['describe', '--always', '--dirty'], { encoding: 'utf8' }).trim()
  } catch {
    return null
  }
}
