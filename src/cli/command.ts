/**
 * What a command is. Each file of this folder named after a command exports one `Command`; `commands.ts` lists them.
 * The contract every command keeps: results on stdout, progress on stderr, `--json` prints one versioned document,
 * and the exit code says what happened. Heavy modules are imported inside `run`, so that help stays instant.
 */

/** 0 done, 1 failed, 2 cannot be meant as written, 130 interrupted. */
export type ExitCode = 0 | 1 | 2 | 130

export interface Command {
  /** Help for each positional argument that `commands.ts` gives the command. */
  readonly arguments: readonly string[]
  /** Options besides `--json` and `--help`, which every command has. */
  readonly options: readonly (readonly [syntax: string, help: string, fallback?: string])[]
  readonly examples: readonly string[]
  /** Long help shown below the options; may take its time. */
  details?(): Promise<string>
  run(io: Io, args: readonly string[], options: Options): Promise<ExitCode>
}

/** Values as typed: text for options that take one, true for switches. */
export type Options = Readonly<Record<string, string | true | undefined>>

/** A command's way to the terminal. */
export interface Io {
  /** The person asked for `--json`. */
  readonly json: boolean
  /** Writes a result to stdout as it is. */
  out(text: string): void
  /** Writes a line to stderr. */
  note(line: string): void
  /** Prints the result: `data` as a versioned JSON document with `--json`, else the text. */
  result(text: string, data: object): void
}

/** How this program is called, for the next commands it names: a checkout started by `npm start` has no `anneal`. */
export const self = ['start', 'anneal'].includes(process.env['npm_lifecycle_event'] ?? '')
  ? 'npm run anneal --'
  : 'anneal'

/** Where runs are kept unless `--runs` says otherwise. */
export const runsOption = ['--runs <dir>', 'folder of runs', process.env['ANNEAL_RUNS'] ?? 'runs'] as const

/** Help for an argument that names a run; `findRun` understands all of these. */
export const runHelp = 'id of a run, the beginning of one, its last four letters, or latest'
