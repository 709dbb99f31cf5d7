/**
 * State in a file: it lies at the beginning of the arena like any other input, but a file is mapped there instead of
 * memory. Kernels read and write it in place, so every bit is the same; the system reads pages ahead of them and writes
 * them back behind them. What keeps memory small is the release: once the last kernel of a step that uses a buffer is
 * through, its pages leave the process (their content stays in the file), and the next buffer is announced.
 */
import type { Block } from './lower.ts'
import type { Chain } from './schedule.ts'
import type { Storage } from './storage.ts'

/** Buffers begin where a page of any usual size does. */
export const fileAlignment = 65_536

export interface Offloaded {
  readonly slot: { readonly offset: number }
  readonly storage: Storage
}

/** C statements after the chain that uses a buffer last; every thread runs them. */
export type Releases = ReadonlyMap<Chain, readonly string[]>

export function releasesOf({ phases }: Block, offloaded: readonly Offloaded[]): Releases {
  const order = new Map(phases.flat().map((chain, i) => [chain, i]))
  const used = offloaded
    .flatMap(({ slot, storage }) => {
      const chains = storage.root.moments.map(({ place }) => place.chain)
      const last = chains.toSorted((a, b) => order.get(a)! - order.get(b)!).at(-1)
      return last ? [{ offset: slot.offset, bytes: storage.bytes, last }] : []
    })
    .toSorted((a, b) => order.get(a.last)! - order.get(b.last)! || a.offset - b.offset)
  const found = new Map<Chain, string[]>()
  used.forEach(({ offset, bytes, last }, i) => {
    const ahead = used[i + 1] ?? used[0]!
    const call = `release(tid, arena, ${offset}LL, ${bytes}LL, ${ahead.offset}LL, ${ahead.bytes}LL);`
    found.set(last, [...(found.get(last) ?? []), call])
  })
  return found
}

/** In programs that have such state; `anneal_offload` names the file, before `anneal_open`. Without, it is memory. */
export const offloadText = `
#include <fcntl.h>
static char offload_path[4096];
static int64_t moved_bytes;
void anneal_offload(const char *path) { strncpy(offload_path, path, sizeof offload_path - 1); }
/* Bytes that came from the file and went back to it, all steps together. */
int64_t anneal_moved(void) { return moved_bytes; }
/* Maps a file, which vanishes with the process, over the beginning of the arena. */
static int map_file(char *const arena) {
  if (!offload_path[0]) return 1;
  const int file = open(offload_path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
  if (file < 0) return 0;
  unlink(offload_path);
  const int mapped = ftruncate(file, OFFLOADED_BYTES) == 0 &&
    mmap(arena, OFFLOADED_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, file, 0) != MAP_FAILED;
  close(file);
  return mapped;
}
/* A thread is through with a buffer. Pages that another one still needs come back by themselves, and go with its release. */
static void release(const int tid, char *const arena, const int64_t offset, const int64_t bytes, const int64_t ahead,
                    const int64_t bytes_ahead) {
  if (tid == 0) moved_bytes += 2 * bytes;
  if (!offload_path[0]) return;
  madvise(arena + offset, bytes, MADV_DONTNEED);
  if (tid == 0) madvise(arena + ahead, bytes_ahead, MADV_WILLNEED);
}
`
