/**
 * What the machine can do at best, to hold every speed claim against: f32 multiply-adds and bf16 dot products with
 * nothing but registers, and copying memory, on all threads at once (clock speed depends on how many cores work, so one core's peak times the
 * number of cores is not it). Takes about half a second, away from the main thread.
 */
import { readFileSync } from 'node:fs'
import { badUsage, failure } from '../../errors.ts'
import { machine } from './machine.ts'
import { compileShared, loadShared } from './toolchain.ts'

export interface Peak {
  /** f32 operations a second of all threads; a multiply-add counts as two. */
  readonly flopsF32: number
  /** The same for dot products of bf16 pairs added up in f32; absent where the processor has no such instruction. */
  readonly flopsBf16?: number
  /** Bytes copied a second by all threads, each counted once (memory moves twice as many: read and written). */
  readonly copyBytesPerSecond: number
  readonly threads: number
}

type Rate = (done: (error: Error | null, rate: number) => void) => void

/** From the root of the package, so that it is found both from src and from a build in dist. */
const sourceFile = new URL('../../../src/compiler/runtime/peak.c', import.meta.url)

export interface PeakOptions {
  readonly threads: number
  /**
   * What each thread copies from, in MiB. The default is beyond any private cache; memory itself is slower and needs
   * sizes beyond the shared cache, too.
   */
  readonly copyMegabytes?: number
}

/**
 * Measures this machine.
 *
 * @throws UserError when there is no C compiler or the system refuses the threads.
 */
export async function measurePeak({ threads, copyMegabytes = 16 }: PeakOptions): Promise<Peak> {
  if (!Number.isInteger(threads) || threads < 1 || threads > 4096) {
    throw badUsage({
      where: 'threads',
      got: String(threads),
      expected: 'a whole number from 1 to 4096',
      fix: 'leave it out to use every core',
    })
  }
  const { vectorBytes } = await machine()
  const { path } = await compileShared({
    name: 'peak',
    source: readFileSync(sourceFile, 'utf8'),
    flags: [`-DVECTOR_BYTES=${vectorBytes}`],
  })
  const library = loadShared(path)
  const flops = library.func('double anneal_peak_flops(int threads)')
  const bf16 = library.func('double anneal_peak_bf16(int threads)')
  const copy = library.func('double anneal_peak_copy(int threads, int megabytes)')
  const hasBf16 = library.func('int anneal_has_bf16(void)')() === 1
  return {
    flopsF32: await measure((done) => flops.async(threads, done), threads),
    ...(hasBf16 ? { flopsBf16: await measure((done) => bf16.async(threads, done), threads) } : {}),
    copyBytesPerSecond: await measure((done) => copy.async(threads, copyMegabytes, done), threads),
    threads,
  }
}

async function measure(rate: Rate, threads: number): Promise<number> {
  const measured = await new Promise<number>((resolve, reject) => {
    rate((error, value) => (error ? reject(error) : resolve(value)))
  })
  if (measured > 0) return measured
  throw failure({
    where: 'measuring the peak',
    got: `no ${threads} threads, or no memory for them, from the system`,
    expected: `${threads} threads and the memory they copy`,
    fix: 'use fewer threads',
  })
}
