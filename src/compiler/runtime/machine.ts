/**
 * What the emitted code may use on this machine. The compiler's own `-march=native` macros are the only list that is
 * right for the pair of both (an old compiler cannot emit what a new processor has); kept in the cache.
 */
import { execFile } from 'node:child_process'
import { createHash } from 'node:crypto'
import { readFileSync } from 'node:fs'
import { availableParallelism, cpus } from 'node:os'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { badUsage, failure } from '../../errors.ts'
import { cacheDir, writeCached } from './cache.ts'
import { findCompiler, wantedCompiler } from './compiler.ts'

const run = promisify(execFile)

export interface Machine {
  readonly cpuModel: string
  /** Hardware threads this process may use: affinity and container limits are counted. */
  readonly cores: number
  /** Bytes of a vector register. */
  readonly vectorBytes: 64 | 32 | 16
  readonly registers: 32 | 16
  /** Instruction sets worth naming, e.g. avx512f, avx512_bf16, avx2, neon. */
  readonly features: readonly string[]
}

const featureMacros: Readonly<Record<string, string>> = {
  __AVX512F__: 'avx512f',
  __AVX512BF16__: 'avx512_bf16',
  __AVX512VNNI__: 'avx512_vnni',
  __AMX_TILE__: 'amx',
  __AVX2__: 'avx2',
  __FMA__: 'fma',
  __ARM_NEON: 'neon',
  __ARM_FEATURE_BF16: 'bf16',
}

/** Instruction sets that `ANNEAL_ISA` may restrict programs to; for measuring and for debugging. */
const levels: Readonly<Record<string, readonly string[]>> =
  process.arch === 'x64'
    ? { avx2: ['-march=x86-64-v3', '-mtune=native'], sse2: ['-march=x86-64', '-mtune=native'] }
    : {}

/**
 * The flags that choose instructions: all of this processor's (Arm spells that differently), unless `ANNEAL_ISA` names
 * fewer. Asked each time, so that one process can compile for several.
 *
 * @throws UserError when `ANNEAL_ISA` names none that we know.
 */
export function instructionFlags(): readonly string[] {
  const wanted = process.env['ANNEAL_ISA'] || 'native'
  if (wanted === 'native') return [process.arch === 'arm64' ? '-mcpu=native' : '-march=native']
  const flags = Object.hasOwn(levels, wanted) ? levels[wanted] : undefined
  if (flags) return flags
  throw badUsage({
    where: 'ANNEAL_ISA',
    got: wanted,
    expected: ['native', ...Object.keys(levels)].join(' or '),
    fix: 'unset it to use everything this processor has',
  })
}

/**
 * Facts about this machine; the first call on a processor asks the compiler, later ones read the cache.
 *
 * @throws UserError when the compiler has to be asked and there is none.
 */
export async function machine(): Promise<Machine> {
  const key = hashOf([cpuFingerprint(), wantedCompiler(), ...instructionFlags()])
  const path = join(cacheDir(), `machine-${key}.json`)
  let features = storedFeatures(path)
  if (!features) {
    features = featuresFromMacros(await nativeMacros())
    writeCached(path, JSON.stringify(features))
  }
  const wide = features.includes('avx512f')
  const vectorBytes = wide ? 64 : features.includes('avx2') ? 32 : 16
  const registers = wide || features.includes('neon') ? 32 : 16
  return { cpuModel: cpuModel(), cores: availableParallelism(), vectorBytes, registers, features }
}

/**
 * Identifies the instruction set, for keys of compiled code. The model name alone is not enough: virtual machines
 * often report a generic one and differ in which features the hypervisor lets through.
 */
export function cpuFingerprint(): string {
  fingerprint ??= hashOf([process.arch, cpuModel(), linuxCpuFeatures()])
  return fingerprint
}

let fingerprint: string | undefined

/** A short hash of several texts whose boundaries count; for names of cache files. */
export const hashOf = (parts: readonly string[]): string =>
  createHash('sha256').update(JSON.stringify(parts)).digest('hex').slice(0, 20)

const cpuModel = (): string => cpus()[0]?.model.trim() || `unknown ${process.arch} processor`

function linuxCpuFeatures(): string {
  try {
    return /^(?:flags|Features)\s*:.*$/m.exec(readFileSync('/proc/cpuinfo', 'utf8'))?.[0] ?? ''
  } catch {
    return ''
  }
}

/** A file that is missing, damaged or of another shape is simply made again. */
function storedFeatures(path: string): readonly string[] | undefined {
  try {
    const stored: unknown = JSON.parse(readFileSync(path, 'utf8'))
    return Array.isArray(stored) && stored.every((name) => typeof name === 'string') ? stored : undefined
  } catch {
    return undefined
  }
}

async function nativeMacros(): Promise<string> {
  const { path, args } = await findCompiler()
  const flags = instructionFlags()
  try {
    return (await run(path, [...args, ...flags, '-dM', '-E', '-x', 'c', '/dev/null'])).stdout
  } catch (error) {
    throw failure({
      where: `${path} ${flags.join(' ')} -dM -E`,
      got: (error as { stderr?: string }).stderr?.trim().split('\n')[0] || String(error),
      expected: 'a list of predefined macros',
      fix: 'install a current gcc or clang, or name another one with CC=',
    })
  }
}

/** Names the instruction sets in a compiler's `-dM -E` output. */
export function featuresFromMacros(macros: string): readonly string[] {
  return Object.entries(featureMacros).flatMap(([macro, name]) =>
    macros.includes(`#define ${macro} `) ? [name] : [],
  )
}
