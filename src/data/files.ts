/**
 * What every file of this project goes through: reads that fail with one clear line, and writes that never cost the
 * earlier copy. A write goes to `path.tmp-<pid>` beside the target, is fsync'ed, renamed over it, and the folder is
 * fsync'ed, so after a crash, a kill or a full disk the path holds the old file or the new one, never half of one.
 */
import {
  closeSync,
  existsSync,
  fsyncSync,
  mkdirSync,
  openSync,
  readdirSync,
  readlinkSync,
  readSync,
  renameSync,
  rmSync,
  writeSync,
} from 'node:fs'
import { basename, dirname } from 'node:path'
import { didYouMean, failure } from '../errors.ts'
import type { UserError } from '../errors.ts'

/** One call handles at most this much: system calls, hashes and checksums stop at 2 GiB, and tensors do not. */
const CHUNK_BYTES = 64 * 2 ** 20

/** A file being written: bytes go to its end, or over earlier ones (a header known only afterwards). */
export interface FileSink {
  readonly append: (bytes: NodeJS.ArrayBufferView) => void
  readonly overwrite: (position: number, bytes: NodeJS.ArrayBufferView) => void
}

/**
 * Writes `path` as a whole or not at all. `produce` must be synchronous; whatever it throws removes the unfinished file.
 *
 * @throws UserError when the disk is full or the place cannot be written; an earlier file at `path` is then intact.
 */
export function writeAtomically(path: string, produce: (file: FileSink) => void): void {
  const temporary = `${path}.tmp-${process.pid}`
  let fd: number | undefined
  try {
    fd = openSync(temporary, 'w')
    const target = fd
    produce({
      append: (bytes) => writeFully(target, bytes, null),
      overwrite: (position, bytes) => writeFully(target, bytes, position),
    })
    fsyncSync(fd)
    closeSync(fd)
    fd = undefined
    renameSync(temporary, path)
    syncFolder(dirname(path))
  } catch (error) {
    if (fd !== undefined) closeSync(fd)
    rmSync(temporary, { force: true })
    throw explainWrite(error, path)
  }
}

/** Makes a folder and those above it; no error when it is there. */
export function makeFolder(path: string): void {
  try {
    mkdirSync(path, { recursive: true })
  } catch (error) {
    throw explainWrite(error, path)
  }
}

/** Writes `text` to `path` as UTF-8, as a whole or not at all. */
export function writeTextAtomically(path: string, text: string): void {
  writeAtomically(path, (file) => file.append(Buffer.from(text)))
}

/**
 * Fills `target` from `position` of an open file. Returns the bytes read, fewer than asked only at the file's end.
 */
export function readFully(fd: number, target: Uint8Array, position: number): number {
  let done = 0
  while (done < target.length) {
    const count = readSync(fd, target, done, Math.min(CHUNK_BYTES, target.length - done), position + done)
    if (count === 0) break
    done += count
  }
  return done
}

/** The bytes of any array, in pieces that one call can handle. */
export function* chunks(view: NodeJS.ArrayBufferView): Generator<Uint8Array> {
  for (let at = 0; at < view.byteLength; at += CHUNK_BYTES) {
    yield new Uint8Array(view.buffer, view.byteOffset + at, Math.min(CHUNK_BYTES, view.byteLength - at))
  }
}

function writeFully(fd: number, bytes: NodeJS.ArrayBufferView, position: number | null): void {
  const raw = new Uint8Array(bytes.buffer, bytes.byteOffset, bytes.byteLength)
  for (let done = 0; done < raw.length;) {
    const place = position === null ? null : position + done
    done += writeSync(fd, raw, done, Math.min(CHUNK_BYTES, raw.length - done), place)
  }
}

/** A rename is durable only once the folder that records it is; Windows cannot open a folder and needs no such step. */
export function syncFolder(folder: string): void {
  if (process.platform === 'win32') return
  const fd = openSync(folder, 'r')
  try {
    fsyncSync(fd)
  } finally {
    closeSync(fd)
  }
}

/** The system's error code (`ENOENT`, ...) of a failed call, or undefined for any other error. */
export function systemCode(error: unknown): string | undefined {
  const code = error instanceof Error && 'syscall' in error && 'code' in error ? error.code : undefined
  return typeof code === 'string' ? code : undefined
}

/** Turns a failed read of `path` into a UserError; errors of another kind come back unchanged. */
export function explainRead(error: unknown, path: string): unknown {
  const code = systemCode(error)
  if (code === undefined) return error
  if (code === 'ENOENT' || code === 'ENOTDIR') return missing(path)
  if (code === 'EACCES' || code === 'EPERM') {
    return failure({
      where: path,
      got: `no permission to read it (${code})`,
      expected: 'a readable file or folder',
      fix: `allow reading, for example: chmod -R u+rX ${path}`,
    })
  }
  if (code === 'EISDIR') {
    return failure({ where: path, got: 'a folder', expected: 'a file', fix: 'name a file in it' })
  }
  return failure({
    where: path,
    got: (error as Error).message,
    expected: 'a readable file or folder',
    fix: 'check the disk and the path, then run again',
  })
}

/** What JSON.parse had to say, on one line: it quotes the text, line breaks and all. */
export function jsonProblem(error: unknown): string {
  const message = error instanceof Error ? error.message : String(error)
  return message.replace(/[\s\p{Cc}]+/gu, ' ').slice(0, 100)
}

/** The error for a path that is not there, naming the nearest sibling that is. */
export function missing(path: string): UserError {
  const target = linkTarget(path)
  if (target !== undefined) {
    return failure({
      where: path,
      got: `a link to ${target}, which is not there`,
      expected: 'a path that exists',
      fix: 'restore what it points to, or name another path',
    })
  }
  const folder = dirname(path)
  const siblings = listFolder(folder)
  const near = siblings && didYouMean(basename(path), siblings)
  return failure({
    where: path,
    got: siblings ? 'no such file or folder' : `no such folder: ${folder}`,
    expected: 'a path that exists',
    fix: near ? `did you mean ${near}?` : 'check the spelling and the folder you are in',
  })
}

function linkTarget(path: string): string | undefined {
  try {
    return readlinkSync(path)
  } catch {
    return undefined
  }
}

function listFolder(folder: string): string[] | undefined {
  try {
    return readdirSync(folder)
  } catch {
    return undefined
  }
}

function explainWrite(error: unknown, path: string): unknown {
  const code = systemCode(error)
  if (code === undefined) return error
  const kept = existsSync(path) ? 'the earlier file is intact' : 'nothing was left behind'
  if (code === 'ENOSPC' || code === 'EDQUOT' || code === 'EFBIG') {
    return failure({
      where: path,
      got: code === 'ENOSPC' ? 'a full disk (ENOSPC)' : `a size limit reached while writing (${code})`,
      expected: 'room for the whole file',
      fix: `free some space and run again; ${kept}`,
    })
  }
  const reasons: Readonly<Record<string, string>> = {
    EACCES: 'no permission to write there',
    EPERM: 'no permission to write there',
    EROFS: 'a read-only disk',
    ENOENT: `no such folder: ${dirname(path)}`,
    ENOTDIR: `not a folder: ${dirname(path)}`,
    EISDIR: 'a folder in the place of the file',
    EEXIST: 'a file in the place of the folder',
  }
  return failure({
    where: path,
    got: reasons[code] ? `${reasons[code]} (${code})` : (error as Error).message,
    expected: 'a place that can be written',
    fix: `choose another place or make this one writable; ${kept}`,
  })
}
