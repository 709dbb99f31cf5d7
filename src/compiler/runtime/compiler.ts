/**
 * Finds the C compiler: `$CC` when set, else the first of cc, gcc and clang that answers `--version`.
 * A `$CC` that does not work is an error and never replaced by another compiler: whoever set it meant it.
 */
import { spawnSync } from 'node:child_process'
import { existsSync } from 'node:fs'
import { failure } from '../../errors.ts'
import type { UserError } from '../../errors.ts'

export interface Compiler {
  /** The program to start: a path, or a name found through PATH. */
  readonly path: string
  /** Arguments that come before all others, from a `$CC` such as `ccache gcc` or `zig cc`. */
  readonly args: readonly string[]
  /** First line of `--version`, part of the key of everything compiled. */
  readonly version: string
  readonly kind: 'gcc' | 'clang'
}

const candidates = ['cc', 'gcc', 'clang']
const found = new Map<string, Compiler>()

/**
 * The compiler of this machine; asked once per process and environment.
 *
 * @throws UserError saying what to install when there is none, or what is wrong with `$CC`.
 */
export async function findCompiler(): Promise<Compiler> {
  return findCompilerSync()
}

/** `findCompiler` for callers that cannot wait; a probe takes a few milliseconds. */
export function findCompilerSync(): Compiler {
  const chosen = process.env['CC']?.trim() ?? ''
  const key = `${chosen}\0${process.env['PATH'] ?? ''}`
  const known = found.get(key)
  if (known) return known
  const compiler = chosen ? probeChosen(chosen) : probeUsual()
  found.set(key, compiler)
  return compiler
}

function probeChosen(chosen: string): Compiler {
  const [path = chosen, ...args] = existsSync(chosen) ? [chosen] : chosen.split(/\s+/)
  const probe = askVersion(path, args)
  if (typeof probe === 'object') return probe
  throw failure({
    where: `CC=${chosen}`,
    got: probe,
    expected: 'a working gcc or clang',
    fix: 'correct CC, or unset it to use cc, gcc or clang from PATH',
  })
}

function probeUsual(): Compiler {
  const problems: string[] = []
  for (const path of candidates) {
    const probe = askVersion(path, [])
    if (typeof probe === 'object') return probe
    problems.push(`${path}: ${probe}`)
  }
  throw noCompiler(problems)
}

/** The compiler behind a command, or in words why it is none. */
function askVersion(path: string, args: readonly string[]): Compiler | string {
  const answer = spawnSync(path, [...args, '--version'], { encoding: 'utf8', timeout: 20_000 })
  if (answer.error) return systemReason(answer.error)
  const version = answer.stdout.split('\n')[0]?.trim() ?? ''
  if (answer.status !== 0) {
    const said = answer.stderr.trim().split('\n')[0]
    return `--version ended with ${answer.signal ?? `exit code ${answer.status}`}${said ? ` (${said})` : ''}`
  }
  if (/clang/i.test(answer.stdout)) return { path, args, version, kind: 'clang' }
  // A gcc installed as `cc` prints "cc (Debian ...)": only the copyright line says what it is.
  if (/gcc|Free Software Foundation/i.test(answer.stdout)) return { path, args, version, kind: 'gcc' }
  return `an unknown compiler (${version || 'no version'})`
}

function systemReason(error: Error): string {
  const code = 'code' in error ? error.code : undefined
  if (code === 'ENOENT') return 'not found'
  if (code === 'EACCES') return 'not executable'
  return error.message
}

function noCompiler(problems: readonly string[]): UserError {
  const install: Partial<Record<NodeJS.Platform, string>> = {
    darwin: 'xcode-select --install',
    win32: 'use WSL (wsl --install), then inside it: apt-get install gcc libc6-dev',
  }
  return failure({
    where: 'C compiler',
    got: problems.join(', '),
    expected: 'gcc or clang, to compile training programs',
    fix: `install one: ${install[process.platform] ?? 'apt-get install gcc libc6-dev'}; or name one with CC=`,
  })
}
