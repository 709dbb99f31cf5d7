/**
 * Finds the C compiler: `$CC` when set, else the first of cc, gcc and clang that answers `--version`.
 * A `$CC` that does not work is an error and never replaced by another compiler: whoever set it meant it.
 */
import { execFile } from 'node:child_process'
import { existsSync } from 'node:fs'
import { promisify } from 'node:util'
import { failure } from '../../errors.ts'
import type { UserError } from '../../errors.ts'

const run = promisify(execFile)

export interface Compiler {
  /** The program to start: a path, or a name found through PATH. */
  readonly path: string
  /** Arguments that come before all others, from a `$CC` such as `ccache gcc` or `zig cc`. */
  readonly args: readonly string[]
  /** First line of `--version`. */
  readonly version: string
  readonly kind: 'gcc' | 'clang'
}

const found = new Map<string, Promise<Compiler>>()

/** What was asked for, in the form that keys of compiled code use. */
export const wantedCompiler = (): string => process.env['CC']?.trim() ?? ''

/**
 * The compiler of this machine; asked once per process and environment.
 *
 * @throws UserError saying what to install when there is none, or what is wrong with `$CC`.
 */
export function findCompiler(): Promise<Compiler> {
  const wanted = wantedCompiler()
  const key = `${wanted}\0${process.env['PATH'] ?? ''}`
  const probe = found.get(key) ?? (wanted ? probeWanted(wanted) : probeUsual())
  found.set(key, probe)
  return probe
}

async function probeWanted(wanted: string): Promise<Compiler> {
  const [path = wanted, ...args] = existsSync(wanted) ? [wanted] : wanted.split(/\s+/)
  const answer = await askVersion(path, args)
  if (typeof answer === 'object') return answer
  throw failure({
    where: `CC=${wanted}`,
    got: answer,
    expected: 'a working gcc or clang',
    fix: 'correct CC, or unset it to use cc, gcc or clang from PATH',
  })
}

async function probeUsual(): Promise<Compiler> {
  const problems: string[] = []
  for (const path of ['cc', 'gcc', 'clang']) {
    const answer = await askVersion(path, [])
    if (typeof answer === 'object') return answer
    problems.push(`${path}: ${answer}`)
  }
  throw noCompiler(problems)
}

/** The compiler behind a command, or in words why it is none. */
async function askVersion(path: string, args: readonly string[]): Promise<Compiler | string> {
  try {
    const { stdout } = await run(path, [...args, '--version'], { timeout: 20_000 })
    const version = stdout.split('\n')[0]?.trim() ?? ''
    if (/clang/i.test(stdout)) return { path, args, version, kind: 'clang' }
    // A gcc installed as `cc` prints "cc (Debian ...)": only the copyright line says what it is.
    if (/gcc|Free Software Foundation/i.test(stdout)) return { path, args, version, kind: 'gcc' }
    return `an unknown compiler (${version || 'no version'})`
  } catch (error) {
    return refusal(error as NodeJS.ErrnoException & { readonly stderr?: string })
  }
}

function refusal(error: NodeJS.ErrnoException & { readonly stderr?: string }): string {
  if (error.code === 'ENOENT') return 'not found'
  if (error.code === 'EACCES') return 'not executable'
  const said = error.stderr?.trim().split('\n')[0]
  return `--version failed with exit code ${error.code ?? 'unknown'}${said ? ` (${said})` : ''}`
}

function noCompiler(problems: readonly string[]): UserError {
  const install: Partial<Record<NodeJS.Platform, string>> = {
    darwin: 'xcode-select --install',
    win32: 'use WSL (wsl --install), then inside it: apt-get install gcc libc6-dev',
  }
  const linux = 'apt-get install gcc libc6-dev (or dnf install gcc, apk add gcc musl-dev)'
  return failure({
    where: 'C compiler',
    got: problems.join(', '),
    expected: 'gcc or clang, to build the training program',
    fix: `install one: ${install[process.platform] ?? linux}; or name one with CC=`,
  })
}
