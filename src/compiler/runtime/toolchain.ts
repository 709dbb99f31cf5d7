/**
 * From C text to functions Node can call: an emitted program becomes a shared library, cached by the hash of everything
 * that decides its content. This is also the only place of the compiler that loads native code.
 * The subtle thing: never -ffast-math. It re-associates the roundings that exp and friends rest on, and once made exp
 * 41 % wrong; the flags chosen instead keep every operation's value, except that a*b+c may round once.
 */
import { execFile } from 'node:child_process'
import { existsSync, renameSync, rmSync } from 'node:fs'
import { join } from 'node:path'
import { promisify } from 'node:util'
import koffi from 'koffi'
import { badUsage, failure, InternalError } from '../../errors.ts'
import { cacheDir, temporaryBeside, writeCached } from './cache.ts'
import { findCompiler, wantedCompiler } from './compiler.ts'
import { cpuFingerprint, hashOf, instructionFlags } from './machine.ts'

export { findCompiler } from './compiler.ts'
export type { Compiler } from './compiler.ts'

const run = promisify(execFile)

/** How emitted code is compiled, whatever it becomes. */
const codeFlags: readonly string[] = [
  '-fno-math-errno',
  '-fno-trapping-math',
  '-ffp-contract=fast',
  '-fopenmp-simd',
  '-std=gnu11',
  '-pthread',
]

export const baseFlags: readonly string[] = [
  ...codeFlags,
  '-fPIC',
  '-shared',
  // Stays mapped to the end of the process: a team that was never closed may still wait inside it at exit.
  ...(process.platform === 'linux' ? ['-Wl,-z,nodelete'] : []),
]

/**
 * How hard the C compiler tries: 3, unless `ANNEAL_OPTIMIZE` says less. Programs then come in a third of the time and run
 * slower: for work on a model or on the compiler, where a program runs for a moment only.
 *
 * @throws UserError when `ANNEAL_OPTIMIZE` is not 0, 1, 2 or 3.
 */
function optimization(): string {
  const wanted = process.env['ANNEAL_OPTIMIZE'] || '3'
  if (/^[0-3]$/.test(wanted)) return `-O${wanted}`
  throw badUsage({
    where: 'ANNEAL_OPTIMIZE',
    got: wanted,
    expected: '0, 1, 2 or 3',
    fix: 'leave ANNEAL_OPTIMIZE unset for the fastest programs',
  })
}

// Vectors pass between our own functions only, so the note about their ABI says nothing.
const quiet = ['-Wno-psabi', '-Wno-unused-parameter', '-Wno-unused-function', '-Wno-unknown-pragmas']
const warnings = ['-Wall', '-Wextra', '-Werror', ...quiet]
const sanitizers = ['-g', '-fsanitize=undefined', '-fno-sanitize-recover=undefined']

export interface CompileRequest {
  /** Short name for the files in the cache: letters, digits, `-`, `_` and `.`. */
  readonly name: string
  readonly source: string
  /** Further flags, after ours. */
  readonly flags?: readonly string[]
  /** Every warning is an error; for tests of emitted code. */
  readonly checking?: boolean
  /**
   * Undefined behaviour (overflow, misalignment, bad shifts and indices) ends the process with a message. The address
   * sanitizer is not offered: it must be the first library of a process, so Node would need LD_PRELOAD.
   */
  readonly sanitize?: boolean
}

export interface Compiled {
  /** Absolute path of the library or program; its source is beside it, ending in `.c`. */
  readonly path: string
  readonly cached: boolean
  readonly seconds: number
}

/** Compilations under way, so that two callers in this process who want one library start one compiler. */
const underWay = new Map<string, Promise<void>>()

/**
 * Compiles C text to a shared library, or returns the one made earlier from the same text, flags and machine.
 *
 * @throws UserError when there is no compiler, or when it fails: its first error line and the source's path.
 */
export const compileShared = (request: CompileRequest): Promise<Compiled> =>
  compileFile(request, '.so', baseFlags)

/** The same for a text with a `main`: a program that runs by itself. */
export const compileExecutable = (request: CompileRequest): Promise<Compiled> =>
  compileFile(request, '.exe', codeFlags)

async function compileFile(
  request: CompileRequest,
  ending: string,
  ours: readonly string[],
): Promise<Compiled> {
  const started = performance.now()
  const { name, source, flags = [] } = request
  if (!/^[\w.-]+$/.test(name)) throw new InternalError(`not usable as a file name: ${name}`)
  const all = [
    optimization(),
    ...ours,
    ...instructionFlags(),
    ...(request.checking ? warnings : []),
    ...(request.sanitize ? sanitizers : []),
    ...flags,
  ]
  // The wish is hashed, not the compiler's answer, so that a cached program loads without starting the compiler at all.
  const stem = join(cacheDir(), `${name}-${hashOf([source, ...all, wantedCompiler(), cpuFingerprint()])}`)
  const path = `${stem}${ending}`
  const cached = existsSync(path)
  if (!cached) {
    const compilation =
      underWay.get(path) ?? build(stem, ending, source, all).finally(() => underWay.delete(path))
    underWay.set(path, compilation)
    await compilation
  }
  return { path, cached, seconds: (performance.now() - started) / 1000 }
}

async function build(stem: string, ending: string, source: string, flags: readonly string[]): Promise<void> {
  const compiler = await findCompiler()
  const [text, temporary] = [`${stem}.c`, temporaryBeside(`${stem}${ending}`)]
  writeCached(text, source)
  try {
    // -lm last: the linker takes from a library only what the objects before it still need.
    const args = [...compiler.args, ...flags, '-o', temporary, text, '-lm']
    await run(compiler.path, args, { maxBuffer: 1 << 26 })
    renameSync(temporary, `${stem}${ending}`)
  } catch (error) {
    throw failure({
      where: `C compiler ${compiler.path} (${compiler.version})`,
      got: `a failure: ${firstError(error).slice(0, 200)}`,
      expected: `${text} to compile`,
      fix: 'run `anneal doctor`, or try another compiler with CC=; if the compiler itself works, please report this file',
    })
  } finally {
    rmSync(temporary, { force: true })
  }
}

function firstError(error: unknown): string {
  const { stderr = '', code, message } = error as NodeJS.ErrnoException & { readonly stderr?: string }
  const lines = stderr.split('\n').map((line) => line.trim())
  const telling = lines.find((line) => /error|fatal|undefined reference|cannot|not found/i.test(line))
  const silent =
    typeof code === 'number' ? `exit code ${code} and no message` : (message.split('\n')[0] ?? '')
  return telling ?? lines.find((line) => line !== '') ?? silent
}

export type SharedLibrary = ReturnType<typeof koffi.load>

/**
 * Loads a library made by `compileShared`; `global`: what it defines is there for libraries loaded later. Each function is bound by its C prototype: `lib.func('int run(int steps)')`.
 *
 * @throws UserError when the file is missing or damaged.
 */
export function loadShared(
  path: string,
  { global = false }: { readonly global?: boolean } = {},
): SharedLibrary {
  try {
    return koffi.load(path, { global })
  } catch (error) {
    throw failure({
      where: path,
      got: error instanceof Error ? error.message : String(error),
      expected: 'a library compiled for this machine',
      fix: 'delete that file and run again: it will be compiled afresh',
    })
  }
}

/** Native memory as an ArrayBuffer, without a copy. Valid until the native side frees it. */
export const viewMemory = (pointer: unknown, bytes: number): ArrayBuffer => koffi.view(pointer, bytes)
