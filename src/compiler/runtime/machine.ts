/** What the emitted code may use on this machine, from the compiler's own `-march=native` macros; kept in the cache. */
import { execFile } from 'node:child_process'
import { createHash } from 'node:crypto'
import { existsSync, readFileSync, writeFileSync } from 'node:fs'
import { availableParallelism, cpus } from 'node:os'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { cacheDir } from './cache.ts'
import { findCompiler } from './toolchain.ts'

export interface Machine {
  readonly cpuModel: string
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

/** Facts about this machine; the first call on a CPU model asks the compiler, later ones read the cache. */
export async function machine(): Promise<Machine> {
  const cpuModel = cpus()[0]?.model ?? 'unknown processor'
  const cores = availableParallelism()
  const identity = createHash('sha256')
    .update(`${cpuModel}\0${process.env['CC'] ?? ''}`)
    .digest('hex')
    .slice(0, 16)
  const file = join(cacheDir(), `machine-${identity}.json`)
  let features: string[] | undefined
  try {
    if (existsSync(file)) features = JSON.parse(readFileSync(file, 'utf8')) as string[]
  } catch {
    // A torn cache entry is made again below.
  }
  if (features === undefined) {
    const compiler = await findCompiler()
    const { stdout } = await promisify(execFile)(compiler.path, [
      '-march=native',
      '-dM',
      '-E',
      '-x',
      'c',
      '/dev/null',
    ])
    features = Object.entries(featureMacros).flatMap(([macro, name]) =>
      stdout.includes(`#define ${macro} `) ? [name] : [],
    )
    writeFileSync(file, JSON.stringify(features))
  }
  const wide = features.includes('avx512f')
  const vectorBytes = wide ? 64 : features.includes('avx2') ? 32 : 16
  return { cpuModel, cores, vectorBytes, registers: wide || features.includes('neon') ? 32 : 16, features }
}
