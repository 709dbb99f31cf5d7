/** Options that every side-by-side benchmark takes: how long, on how many threads, which of its cases. */
import { availableParallelism } from 'node:os'
import { parseArgs } from 'node:util'
import type { ParseArgsConfig } from 'node:util'
import { badUsage } from '../src/errors.ts'

export interface BenchOptions {
  readonly rounds: number
  /** Length of one slice of one contestant. */
  readonly seconds: number
  readonly threads: number
  /** Names of the cases wanted; all when empty. */
  readonly only: readonly string[]
  /** Flags of this benchmark alone, by name. */
  readonly flags: Readonly<Record<string, boolean>>
}

export interface Defaults {
  readonly rounds: number
  readonly seconds: number
  /** Further flags and what they are when not given; `--no-name` turns one off. */
  readonly flags?: Readonly<Record<string, boolean>>
}

/**
 * Reads `--rounds`, `--seconds`, `--threads`, `--only a,b` and the benchmark's own flags.
 *
 * @throws UserError (exit code 2) for a number that cannot be meant; a TypeError of parseArgs for an unknown option.
 */
export function readOptions(args: readonly string[], defaults: Defaults): BenchOptions {
  const flags = defaults.flags ?? {}
  const numbers = { rounds: defaults.rounds, seconds: defaults.seconds, threads: availableParallelism() }
  const options: NonNullable<ParseArgsConfig['options']> = { only: { type: 'string', default: '' } }
  for (const [name, value] of Object.entries(numbers)) options[name] = { type: 'string', default: `${value}` }
  for (const [name, value] of Object.entries(flags)) options[name] = { type: 'boolean', default: value }
  const { values } = parseArgs({ args: [...args], allowNegative: true, options })
  return {
    rounds: positive('--rounds', String(values['rounds'])),
    seconds: positive('--seconds', String(values['seconds'])),
    threads: positive('--threads', String(values['threads'])),
    only: String(values['only']).split(',').filter(Boolean),
    flags: Object.fromEntries(Object.keys(flags).map((name) => [name, values[name] === true])),
  }
}

/** The cases of these names that were asked for. Throws a UserError for a name that is not one of them. */
export function chosen(names: readonly string[], only: readonly string[]): readonly string[] {
  const unknown = only.find((name) => !names.includes(name))
  if (unknown === undefined) return names.filter((name) => only.length === 0 || only.includes(name))
  throw badUsage({
    where: '--only',
    got: unknown,
    expected: names.join(', '),
    fix: 'leave it out for all of them',
  })
}

function positive(where: string, given: string): number {
  const value = Number(given)
  if (Number.isFinite(value) && value > 0) return value
  throw badUsage({ where, got: given, expected: 'a number above 0', fix: 'leave it out for the default' })
}
