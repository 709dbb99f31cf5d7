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

export interface ReleasePlan {
  readonly releases: Releases
  /** Bytes that come and go in one step. */
  readonly movedBytes: number
}

export function releasesOf({ phases }: Block, offloaded: readonly Offloaded[]): ReleasePlan {
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
  return { releases: found, movedBytes: used.reduce((sum, { bytes }) => sum + 2 * bytes, 0) }
}

/** The parts of an arena that lie in a file: state at its beginning, and what loops keep (kept.ts) behind all that is memory. */
export interface FileParts {
  readonly stateBytes: number
  readonly keptAt: number
  readonly keptBytes: number
}

/** In programs that have such parts; `anneal_offload` names the file, before `anneal_open`. Without, it is memory. */
export const offloadText = ({ stateBytes, keptAt, keptBytes }: FileParts): string =>
  stateBytes + keptBytes === 0
    ? ''
    : `#define STATE_BYTES ${stateBytes}LL\n#define KEPT_AT ${keptAt}LL\n#define KEPT_BYTES ${keptBytes}LL\n${text}`

const text = `
#include <errno.h>
#include <fcntl.h>
#include <unistd.h>
static char offload_path[4096];
static _Atomic int64_t moved_bytes;
static int file_error;
void anneal_offload(const char *path) {
  strncpy(offload_path, path, sizeof offload_path - 1);
  atomic_store(&moved_bytes, 0); /* the library may have been open before */
}
/* Bytes that came from the file and went back to it, all steps and ranks together. */
int64_t anneal_moved(void) { return atomic_load(&moved_bytes); }
/* Why anneal_open had no file: an errno, or 0 if it had. */
int anneal_file_error(void) { return file_error; }
static int map_part(char *const at, const int64_t bytes, const int file, const int64_t from) {
  return bytes == 0 || mmap(at, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, file, from) != MAP_FAILED;
}
/* Maps a file, which vanishes with the process, over its parts of the arena. Its blocks are taken at once: a disk that
 * is full is an error here, but the end of the process where a page is written back. */
static int map_file(char *const arena) {
  file_error = 0;
  if (!offload_path[0]) return 1;
  const int file = open(offload_path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
  if (file < 0) {
    file_error = errno;
    return 0;
  }
  unlink(offload_path);
  if (ftruncate(file, STATE_BYTES + KEPT_BYTES) != 0) file_error = errno;
#ifdef __linux__
  if (!file_error) file_error = posix_fallocate(file, 0, STATE_BYTES + KEPT_BYTES);
#endif
  if (!file_error && !(map_part(arena, STATE_BYTES, file, 0) &&
                       map_part(arena + KEPT_AT, KEPT_BYTES, file, STATE_BYTES))) file_error = errno;
  close(file);
  return !file_error;
}
/* Whole pages around some bytes. A neighbour's part of a page is not lost with it: it comes back when it is touched. */
static void advise(char *const at, const int64_t bytes, const int advice) {
  const uintptr_t page = sysconf(_SC_PAGESIZE), from = (uintptr_t)at / page * page;
  madvise((void *)from, ((uintptr_t)at + bytes + page - 1) / page * page - from, advice);
}
/* A thread is through with a buffer. Pages that another one still needs come back by themselves, and go with its release. */
__attribute__((unused))
static void release(const int tid, char *const arena, const int64_t offset, const int64_t bytes, const int64_t ahead,
                    const int64_t bytes_ahead) {
  if (tid == 0) atomic_fetch_add(&moved_bytes, 2 * bytes);
  if (!offload_path[0]) return;
  advise(arena + offset, bytes, MADV_DONTNEED);
  if (tid == 0) advise(arena + ahead, bytes_ahead, MADV_WILLNEED);
}
/* All threads are through with a slice, which has gone to the file or come from it. */
__attribute__((unused))
static void let_go(char *const slice, const int64_t bytes, char *const ahead) {
  atomic_fetch_add(&moved_bytes, bytes);
  if (!offload_path[0]) return;
  advise(slice, bytes, MADV_DONTNEED);
  if (ahead) advise(ahead, bytes, MADV_WILLNEED);
}
`
