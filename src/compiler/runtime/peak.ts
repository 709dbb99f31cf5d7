/** What this machine can do at best, measured when asked: every figure of speed is shown beside it. */
import { readFileSync } from 'node:fs'
import { machine } from './machine.ts'
import { compileShared, loadShared } from './toolchain.ts'

export interface Peak {
  /** f32 multiply-add, FLOP/s of all threads together. */
  readonly flopsF32: number
  /** Bytes read plus bytes written a second, well beyond the caches. */
  readonly copyBytesPerSecond: number
  readonly threads: number
}

/** Takes about a third of a second, off the main thread. */
export async function measurePeak({ threads }: { readonly threads: number }): Promise<Peak> {
  const { vectorBytes } = await machine()
  const source = `#define VECTOR_BYTES ${vectorBytes}\n${readFileSync(new URL('peak.c', import.meta.url), 'utf8')}`
  const { path } = await compileShared({ name: 'peak', source })
  const library = loadShared(path)
  const call = <T>(signature: string, ...args: readonly unknown[]): Promise<T> =>
    new Promise((resolve, reject) => {
      library.func(signature).async(...args, (error: Error | null, value: T) => (error ? reject(error) : resolve(value)))
    })
  const flopsF32 = await call<number>('double peak_flops(int, int)', threads, 5)
  const copyBytesPerSecond = await call<number>('double copy_bandwidth(int, int64_t, int)', threads, 256 << 20, 2)
  return { flopsF32, copyBytesPerSecond, threads }
}
