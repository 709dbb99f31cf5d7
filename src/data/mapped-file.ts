/**
 * A whole file as bytes without copying it: mmap on POSIX through libc, so token files of any size cost no heap and are
 * shared between processes; read into memory where there is no mmap (Windows).
 * The subtle thing: after `close` the mapping is gone and touching `bytes` again would crash the process, so the one
 * caller (token-file.ts) never lets the view out.
 */
import { closeSync, fstatSync, openSync } from 'node:fs'
import koffi from 'koffi'
import { explainRead, readFully } from './files.ts'

export interface MappedFile {
  readonly bytes: Uint8Array
  close(): void
}

// POSIX values, the same on Linux, macOS and the BSDs.
const PROT_READ = 1
const MAP_SHARED = 1
const MAP_FAILED = 0xffff_ffff_ffff_ffffn

interface MemoryCalls {
  readonly mmap: (
    hint: null,
    bytes: number,
    protection: number,
    flags: number,
    fd: number,
    offset: number,
  ) => bigint
  readonly munmap: (address: bigint, bytes: number) => number
}

let calls: MemoryCalls | undefined

function memoryCalls(): MemoryCalls {
  if (calls) return calls
  const libc = koffi.load(null)
  calls = {
    mmap: libc.func('mmap', 'void *', ['void *', 'size_t', 'int', 'int', 'int', 'int64_t']),
    munmap: libc.func('munmap', 'int', ['void *', 'size_t']),
  }
  return calls
}

/**
 * Opens `path` for reading as one array of bytes.
 *
 * @throws UserError when the file is missing or cannot be read.
 */
export function mapFile(path: string): MappedFile {
  try {
    const fd = openSync(path, 'r')
    try {
      const size = fstatSync(fd).size
      const mapped = process.platform === 'win32' || size === 0 ? undefined : mapDescriptor(fd, size)
      if (mapped) return mapped
      const bytes = new Uint8Array(size)
      return { bytes: bytes.subarray(0, readFully(fd, bytes, 0)), close: () => {} }
    } finally {
      // A mapping outlives the descriptor it was made from.
      closeSync(fd)
    }
  } catch (error) {
    throw explainRead(error, path)
  }
}

/** undefined when the file system refuses to map (some network and FUSE mounts): the caller then reads instead. */
function mapDescriptor(fd: number, size: number): MappedFile | undefined {
  const { mmap, munmap } = memoryCalls()
  const address = mmap(null, size, PROT_READ, MAP_SHARED, fd, 0)
  if (address === MAP_FAILED) return undefined
  return {
    bytes: new Uint8Array(koffi.view(address, size)),
    close: () => {
      munmap(address, size)
    },
  }
}
