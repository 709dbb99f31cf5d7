/**
 * The system's C compiler: found, asked what it is, and used to turn an emitted program into a shared library that is
 * cached by the hash of everything that decides its content. This is also the only place of the compiler that loads
 * native code.
 */
import { execFile } from 'node:child_process'
import { createHash } from 'node:crypto'
import { existsSync, renameSync, rmSync, writeFileSync } from 'node:fs'
import { cpus, platform } from 'node:os'
import { join } from 'node:path'
import { promisify } from 'node:util'
import koffi from 'koffi'
import { failure } from '../../errors.ts'
import { cacheDir } from './cache.ts'

const run = promisify(execFile)

export interface Compiler {
  readonly path: string
  /** First line of `--version`. */
  readonly version: string
  readonly kind: 'gcc' | 'clang'
}

// -ffast-math is never used: it re-associates the roundings that exp and friends rely on and has broken them silently.
export const baseFlags = [
  '-O3',
  '-march=native',
  '-fno-math-errno',
  '-fno-trapping-math',
  '-ffp-contract=fast',
  '-fopenmp-simd',
  '-std=gnu11',
  '-fPIC',
  '-shared',
  '-pthread',
] as const

let found: Promise<Compiler> | undefined
let foundFor: string | undefined

/** $CC, else cc, gcc or clang. Throws a UserError that says what to install. */
export function findCompiler(): Promise<Compiler> {
  const wanted = process.env['CC']
  if (found === undefined || foundFor !== wanted) {
    foundFor = wanted
    found = probe(wanted)
  }
  return found
}

async function probe(wanted: string | undefined): Promise<Compiler> {
  for (const path of wanted ? [wanted] : ['cc', 'gcc', 'clang']) {
    try {
      const { stdout } = await run(path, ['--version'])
      const version = stdout.split('\n')[0] ?? ''
      return { path, version, kind: /clang/i.test(stdout) ? 'clang' : 'gcc' }
    } catch {
      // Not here, or not a compiler: try the next name.
    }
  }
  const install =
    platform() === 'darwin'
      ? 'xcode-select --install'
      : 'apt-get install gcc (or dnf install gcc, apk add gcc musl-dev)'
  throw failure({
    where: 'C compiler',
    got: wanted ? `CC=${wanted}, which does not answer --version` : 'none of cc, gcc, clang',
    expected: 'a C compiler to build the training program',
    fix: `install one: ${install}`,
  })
}

export interface CompileRequest {
  /** Short name for the files in the cache. */
  readonly name: string
  readonly source: string
  readonly flags?: readonly string[]
}

export interface Compiled {
  readonly path: string
  readonly cached: boolean
  readonly seconds: number
}

/** Compiles C text to a shared library, or returns the one made earlier from the same text, flags and machine. */
export async function compileShared({ name, source, flags = [] }: CompileRequest): Promise<Compiled> {
  const started = performance.now()
  const all = [...baseFlags, ...flags]
  // The wish is hashed, not the compiler's answer, so that a cached program loads without starting the compiler at all.
  const identity = [
    source,
    all.join(' '),
    process.env['CC'] ?? '',
    cpus()[0]?.model ?? '',
    process.arch,
  ].join('\0')
  const stem = join(cacheDir(), `${name}-${createHash('sha256').update(identity).digest('hex').slice(0, 20)}`)
  const path = `${stem}.so`
  const seconds = (): number => (performance.now() - started) / 1000
  if (existsSync(path)) return { path, cached: true, seconds: seconds() }
  const compiler = await findCompiler()
  const [text, temporary] = [`${stem}.c`, `${stem}.${process.pid}.tmp`]
  writeFileSync(text, source)
  try {
    await run(compiler.path, [...all, '-o', temporary, text, '-lm'], { maxBuffer: 1 << 26 })
    renameSync(temporary, path)
  } catch (error) {
    rmSync(temporary, { force: true })
    const output = (error as { stderr?: string }).stderr ?? String(error)
    const first =
      output.split('\n').find((line) => /error|fatal|cannot|not found/i.test(line)) ??
      output.split('\n')[0] ??
      ''
    throw failure({
      where: `C compiler ${compiler.path} (${compiler.version})`,
      got: `a failure: ${first.trim().slice(0, 200)}`,
      expected: `${text} to compile`,
      fix: 'run `anneal doctor`; if the compiler itself works, please report this file',
    })
  }
  return { path, cached: false, seconds: seconds() }
}

export type SharedLibrary = ReturnType<typeof koffi.load>

export const loadShared = (path: string): SharedLibrary => koffi.load(path)

/** Native memory as an ArrayBuffer, without a copy. Valid until the native side frees it. */
export const viewMemory = (pointer: unknown, bytes: number): ArrayBuffer => koffi.view(pointer, bytes)
