/**
 * A compiled program in this process: its shared library, its arena, and the one native call a step. The arena belongs
 * to the native side; JavaScript holds views of it, which `close` ends.
 */
import { copyFileSync, rmSync } from 'node:fs'
import { join } from 'node:path'
import { getSystemErrorMessage } from 'node:util'
import { InternalError, failure, type UserError } from '../../errors.ts'
import { cacheDir } from './cache.ts'
import { loadShared, viewMemory } from './toolchain.ts'

export interface NativeProgram {
  /** One for each rank. */
  readonly arenas: readonly ArrayBuffer[]
  /** Their addresses, for a program that borrows from this one. */
  readonly pointers: readonly unknown[]
  readonly closed: boolean
  /** One step, off the main thread. */
  run(): Promise<void>
  /** One step on this very thread, which it blocks: no hand-over to another thread, for steps of microseconds. */
  runBlocking(): void
  /** FLOPs counted so far by a checking build. */
  countedFlops(): number
  /** Bytes that have moved to the file of what is offloaded and from it. */
  movedBytes(): number
  /** Memory of the profile of a build with -DANNEAL_PROFILE, of which the caller knows the size. */
  profile(bytes: number): ArrayBuffer
  /** What collectives have sent so far, as collectives.h counts it. */
  traffic(bytes: number): ArrayBuffer
  /** From which step on messages about missing ranks count. */
  countFrom(step: number): void
  /** Where ranks are processes: which one this is, and what all of them have in the place of `mine`, one after the other. */
  rank(): number
  exchange(mine: Uint8Array, ranks: number): Uint8Array<ArrayBuffer>[]
  /** A hash of a part of a rank's arena. */
  hash(rank: number, offset: number, bytes: number): bigint
  close(): void
}

// A library holds one program's state, so a second instance of the same file needs a file of its own.
const open = new Set<string>()
let copies = 0

/**
 * `lender`: the program in whose arenas this one finds the inputs it shares; it must stay open. `offloadedBytes`: as much
 * of each arena is a file, in the cache folder, which vanishes with the process.
 */
export function openNative(
  path: string,
  arenaBytes: number,
  ranks: number,
  {
    lender,
    offloadedBytes = 0,
  }: { readonly lender?: NativeProgram | undefined; readonly offloadedBytes?: number } = {},
): NativeProgram {
  const own = open.has(path) ? `${path.replace(/\.so$/, '')}.${process.pid}-${copies++}.so` : path
  if (own !== path) copyFileSync(path, own)
  const library = loadShared(own)
  if (own !== path) rmSync(own)
  open.add(own)
  const file = join(cacheDir(), `offloaded-${process.pid}-${copies++}`)
  if (offloadedBytes > 0) library.func('void anneal_offload(const char *path)')(file)
  const start = library.func('void *anneal_open(void)')
  const bytes = Number(library.func('int64_t anneal_arena_bytes(void)')() as number | bigint)
  if (bytes !== arenaBytes) throw new InternalError(`${path}: arena of ${bytes} bytes, planned ${arenaBytes}`)
  if (!start()) {
    const reason = offloadedBytes > 0 ? (library.func('int anneal_file_error(void)')() as number) : 0
    const forEach = ranks > 1 ? ` for each of ${ranks} ranks` : ''
    if (reason !== 0) throw noFile(file, reason, `${offloadedBytes} bytes${forEach}`)
    throw failure({
      where: 'program memory',
      got: 'a refusal from the operating system',
      expected: `${arenaBytes - offloadedBytes} bytes${forEach}`,
      fix: 'use a smaller batch, context or model, or recompute=full',
    })
  }
  const arenaOf = library.func('void *anneal_arena(int rank)')
  const borrow = library.func('void anneal_borrow(int rank, void *arena)')
  const pointers = Array.from({ length: ranks }, (_, rank): unknown => arenaOf(rank))
  pointers.forEach((_, rank) => borrow(rank, lender?.pointers[rank] ?? null))
  const step = library.func('void anneal_run(void)')
  const flops = library.func('int64_t anneal_flops(void)')
  const stop = library.func('void anneal_close(void)')
  let closed = false
  return {
    arenas: pointers.map((pointer) => viewMemory(pointer, Math.max(bytes, 64))),
    pointers,
    get closed() {
      return closed
    },
    run() {
      if (lender?.closed) throw new InternalError('the program that this one shares inputs with is closed')
      if (closed) throw new InternalError('this program is closed')
      return new Promise((resolve, reject) => {
        step.async((error: Error | null) => (error ? reject(error) : resolve()))
      })
    },
    runBlocking() {
      if (closed) throw new InternalError('this program is closed')
      step()
    },
    countedFlops: () => Number(flops() as number | bigint),
    movedBytes: () =>
      offloadedBytes > 0 ? Number(library.func('int64_t anneal_moved(void)')() as number | bigint) : 0,
    profile(bytes) {
      if (closed) throw new InternalError('this program is closed')
      return viewMemory(library.func('void *anneal_profile(void)')(), bytes)
    },
    countFrom(step) {
      library.func('void anneal_count_from(int64_t step)')(step)
    },
    traffic(bytes) {
      if (closed) throw new InternalError('this program is closed')
      return viewMemory(library.func('void *anneal_traffic(void)')(), bytes)
    },
    rank: () => library.func('int anneal_rank(void)')() as number,
    exchange(mine, ranks) {
      // Whole words, for MPI counts in 32 bits.
      const padded = new Uint8Array(Math.ceil(mine.length / 8) * 8)
      padded.set(mine)
      const all = new Uint8Array(ranks * padded.length)
      library.func('void anneal_exchange(void *mine, void *all, int64_t words)')(
        padded,
        all,
        padded.length / 8,
      )
      return Array.from({ length: ranks }, (_, rank) =>
        all.slice(rank * padded.length, rank * padded.length + mine.length),
      )
    },
    hash: (rank, offset, bytes) =>
      BigInt(
        library.func('uint64_t anneal_hash(int rank, int64_t offset, int64_t bytes)')(rank, offset, bytes) as
          | number
          | bigint,
      ),
    close() {
      if (closed) return
      closed = true
      stop()
      open.delete(own)
    },
  }
}

const noFile = (file: string, reason: number, bytes: string): UserError =>
  failure({
    where: `file ${file} of what is offloaded`,
    got: getSystemErrorMessage(-reason),
    expected: `room for ${bytes}`,
    fix: 'free some space, set ANNEAL_CACHE to a folder on another disk, or leave offload out',
  })
