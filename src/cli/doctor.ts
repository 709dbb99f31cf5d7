/**
 * `anneal doctor`: what was found on this machine, how fast it is, and for whatever is missing how to get it. Also
 * the thing to paste into a bug report. Only a missing compiler fails: nothing else is needed to train.
 */
import { readdirSync, readFileSync, statSync } from 'node:fs'
import { arch, availableParallelism, cpus, freemem, platform, totalmem } from 'node:os'
import { join } from 'node:path'
import type { measurePeak } from '../compiler/runtime/peak.ts'
import { UserError } from '../errors.ts'
import type { Command } from './command.ts'
import { formatBytes, formatFlopRate, formatTable } from './format.ts'

type Peak = Awaited<ReturnType<typeof measurePeak>>

interface Finding {
  readonly name: string
  readonly found: string
  readonly ok: boolean
  /** What to do when it is not. */
  readonly fix?: string
}

export const doctor: Command = {
  arguments: [],
  options: [],
  examples: ['anneal doctor', 'anneal doctor --json'],
  async run(io) {
    const { cacheDir } = await import('../compiler/runtime/cache.ts')
    const { findCompiler } = await import('../compiler/runtime/toolchain.ts')
    const { findMpi } = await import('../compiler/runtime/mpi.ts')
    const { measurePeak } = await import('../compiler/runtime/peak.ts')
    const cores = availableParallelism()
    const compiler = await attempt(findCompiler)
    if (compiler.error === undefined) io.note('measuring this machine…')
    const peak =
      compiler.error === undefined ? await attempt(() => measurePeak({ threads: cores })) : undefined
    const cache = await attempt(async () => cacheDir())
    const mpi = await attempt(findMpi)
    const findings: Finding[] = [
      {
        name: 'compiler',
        ...describe(compiler, ({ kind, version, path }) => `${kind} ${version} (${path})`),
      },
      { name: 'node', found: `${process.versions.node} (${process.execPath})`, ok: true },
      {
        name: 'system',
        found: `${platform()} ${arch()}, ${cpus()[0]?.model.trim() ?? 'unknown processor'}`,
        ok: true,
      },
      { name: 'cores', found: String(cores), ok: true },
      { name: 'memory', found: `${formatBytes(totalmem())}, ${formatBytes(freemem())} free`, ok: true },
      { name: 'vectors', found: vectorUnits().join(', ') || 'unknown', ok: true },
      // Measured by a program that the compiler builds: without one there is one problem, not two.
      ...(peak === undefined ? [] : [{ name: 'peak', ...describe(peak, describePeak) }]),
      { name: 'cache', ...describe(cache, (dir) => `${dir}, ${formatBytes(folderBytes(dir))}`) },
    ]
    const unused = [
      { name: 'GPU', found: 'not used yet: training runs on the processor', ok: true },
      // Only ranks that are processes need it.
      {
        name: 'MPI',
        found: mpi.error ? `none; ${mpi.error.complaint.fix}` : mpi.value.version,
        ok: true,
      },
    ]
    const problems = findings.filter(({ ok }) => !ok)
    const rows = [...findings, ...unused].map(({ name, found, ok }) => [ok ? ' ' : '!', name, found])
    const advice = problems.map(({ name, fix }) => `! ${name}: ${fix ?? 'see above'}`)
    const verdict = problems.length === 0 ? ['everything needed is here; start with: anneal up'] : advice
    io.result([formatTable(rows), '', ...verdict].join('\n'), {
      findings: [...findings, ...unused],
      peak: peak?.value ?? null,
      cores,
      memoryBytes: totalmem(),
      ok: problems.length === 0,
    })
    return problems.length === 0 ? 0 : 1
  },
}

type Attempt<T> =
  | { readonly value: T; readonly error?: undefined }
  | { readonly value?: undefined; readonly error: UserError }

/** The value, or the problem a person can solve; defects of ours pass through. */
async function attempt<T>(find: () => Promise<T>): Promise<Attempt<T>> {
  try {
    return { value: await find() }
  } catch (error) {
    if (error instanceof UserError) return { error }
    throw error
  }
}

function describe<T>(attempted: Attempt<T>, show: (value: T) => string): Omit<Finding, 'name'> {
  if (attempted.error === undefined) return { found: show(attempted.value), ok: true }
  const { got, fix } = attempted.error.complaint
  return { found: got, ok: false, fix }
}

function describePeak({ flopsF32, flopsBf16, copyBytesPerSecond, threads }: Peak): string {
  const bf16 = flopsBf16 === undefined ? '' : `${formatFlopRate(flopsBf16)} in bf16 dot products, `
  return `${formatFlopRate(flopsF32)} in f32, ${bf16}${formatBytes(copyBytesPerSecond)}/s copied, ${threads} threads`
}

/** Vector instruction sets the processor names, widest first. Linux tells; on Apple silicon NEON is always there. */
function vectorUnits(): string[] {
  const known = ['avx512_bf16', 'amx_tile', 'avx512f', 'avx2', 'fma', 'sve', 'bf16', 'asimd']
  try {
    const flags =
      /^(?:flags|Features)\s*:(.*)$/m.exec(readFileSync('/proc/cpuinfo', 'utf8'))?.[1]?.split(/\s+/) ?? []
    return known.filter((name) => flags.includes(name))
  } catch {
    return arch() === 'arm64' ? ['neon'] : []
  }
}

function folderBytes(dir: string): number {
  const files = readdirSync(dir, { recursive: true, encoding: 'utf8' })
  return files.reduce(
    (sum, file) => sum + (statSync(join(dir, file), { throwIfNoEntry: false })?.size ?? 0),
    0,
  )
}
