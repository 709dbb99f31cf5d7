/**
 * The command line: finds the command, loads only its module, runs it, and turns whatever happens into an exit code.
 *
 * Subtle: commander would print its own messages and exit. It is made to throw instead, so that a mistyped option
 * and a damaged checkpoint read alike: one line with where, got, expected and what to try.
 */
import { Command as Parser, CommanderError, Option } from 'commander'
import { readFileSync } from 'node:fs'
import { badUsage, UserError } from '../errors.ts'
import type { ExitCode, Io } from './command.ts'
import { commands } from './commands.ts'
import type { Entry } from './commands.ts'

/** The version of every JSON document printed. Raised when a field changes meaning or goes away. */
const jsonVersion = 1

/** Runs `anneal` with the arguments that follow its name, then ends the process. */
export async function main(argv: readonly string[]): Promise<void> {
  tolerateClosedPipes()
  const io = terminal(argv.includes('--json'))
  const code = await execute(argv, io).catch((error: unknown) => report(error, io))
  // Ends native threads and timers that may still be alive, after what was printed has left.
  process.stdout.write('', () => process.stderr.write('', () => process.exit(code)))
}

async function execute(argv: readonly string[], io: Io): Promise<ExitCode> {
  const words = argv.length === 0 ? ['--help'] : argv
  const called = words[0] === 'help' ? words[1] : words.find((word) => !word.startsWith('-'))
  const entry = commands.find(({ name }) => name === called)
  const command = await entry?.load()
  let code: ExitCode = 0
  const program = quiet(new Parser('anneal'))
    .description('Train foundation models in TypeScript, compiled to native code.')
    .version(packageVersion(), '-v, --version')
    .addOption(new Option('--json').hideHelp())
    .configureHelp({
      subcommandTerm: (sub) => [sub.name(), ...(argumentsOf(sub.name()) ?? ['[command]'])].join(' '),
    })
    .addHelpText('after', '\nStart with `anneal up`. Every command takes --help and --json.')
  for (const { name, summary, arguments: syntaxes } of commands) {
    const parser = quiet(program.command(name)).description(summary)
    for (const [i, syntax] of syntaxes.entries()) parser.argument(syntax, command?.arguments[i] ?? '')
    if (name !== entry?.name || command === undefined) continue
    for (const [syntax, help, fallback] of command.options) parser.option(syntax, help, fallback)
    parser.option('--json', 'print one JSON document')
    const examples = command.examples.map((example) => `  $ ${example}`).join('\n')
    const asksHelp = words[0] === 'help' || words.some((word) => word === '--help' || word === '-h')
    const details = asksHelp ? await command.details?.() : undefined
    parser.addHelpText('after', `\nExamples:\n${examples}${details === undefined ? '' : `\n\n${details}`}`)
    parser.action(async () => {
      code = await command.run(io, parser.args, parser.opts())
    })
  }
  try {
    await program.parseAsync(words, { from: 'user' })
  } catch (error) {
    if (!(error instanceof CommanderError)) throw error
    if (error.exitCode === 0) return 0
    throw usageError(error, entry)
  }
  return code
}

/** Makes a parser throw instead of printing and exiting. */
function quiet(parser: Parser): Parser {
  return parser.exitOverride().configureOutput({ writeErr: () => undefined })
}

const argumentsOf = (name: string): readonly string[] | undefined =>
  commands.find((command) => command.name === name)?.arguments

/** Says what commander found in our own form. */
function usageError(error: CommanderError, entry: Entry | undefined): UserError {
  const where = entry === undefined ? 'anneal' : `anneal ${entry.name}`
  const [message = '', hint] = error.message.replace(/^error: /, '').split(/\n+/)
  const near = hint?.match(/Did you mean (?:one of )?(.*)\?\)/)?.[1]
  const flag = /unknown option '--([^=']*)/.exec(message)?.[1]
  const takesSettings = entry?.arguments.includes('[settings...]') ?? false
  const expected = {
    'commander.unknownCommand': `one of ${commands.map(({ name }) => name).join(', ')}`,
    'commander.unknownOption': `an option of ${where}`,
  }[error.code]
  return badUsage({
    where,
    got: message,
    expected: expected ?? [where, ...(entry?.arguments ?? [])].join(' '),
    fix:
      near !== undefined
        ? `did you mean ${near}?`
        : flag !== undefined && takesSettings
          ? `settings are written without dashes: ${flag}=VALUE`
          : `see ${where} --help`,
  })
}

/** Prints an error the way its kind deserves and returns the exit code. */
function report(error: unknown, io: Io): ExitCode {
  if (error instanceof UserError) {
    const message = error.message.replaceAll(/\s*\n\s*/g, ' ')
    io.note(`error: ${message}`)
    if (io.json) printJson({ error: { ...error.complaint, message, exitCode: error.exitCode } })
    return error.exitCode
  }
  const message = error instanceof Error ? error.message : String(error)
  io.note(error instanceof Error ? (error.stack ?? message) : message)
  io.note(
    'error: this is a defect of Anneal; please report it with the lines above and the output of `anneal doctor`',
  )
  if (io.json) printJson({ error: { message, exitCode: 1 } })
  return 1
}

function terminal(json: boolean): Io {
  return {
    json,
    out: print,
    note: (line) => void process.stderr.write(`${line}\n`),
    result: (text, data) => (json ? printJson(data) : print(`${text}\n`)),
  }
}

/** NaN and infinities, which JSON lacks, become strings: a diverged loss must not look like a missing one. */
function printJson(data: object): void {
  const text = JSON.stringify({ version: jsonVersion, ...data }, (_, value: unknown) =>
    typeof value === 'number' && !Number.isFinite(value) ? String(value) : value,
  )
  print(`${text}\n`)
}

function print(text: string): void {
  process.stdout.write(text)
}

/** `anneal runs | head -1` closes our output early, and a closed terminal takes none: neither is an error. */
function tolerateClosedPipes(): void {
  for (const stream of [process.stdout, process.stderr]) {
    stream.on('error', (error: NodeJS.ErrnoException) => {
      if (error.code !== 'EPIPE' && error.code !== 'EIO') throw error
    })
  }
}

function packageVersion(): string {
  const text = readFileSync(new URL('../../package.json', import.meta.url), 'utf8')
  return (JSON.parse(text) as { version: string }).version
}
