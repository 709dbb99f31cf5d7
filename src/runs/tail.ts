/**
 * Follows a run's files: the lines that came after a cursor, and nothing else. A cursor says how far which segment file
 * was read, and how to tell that it is still that file: its inode, and a checksum of the bytes before the place. When
 * the run was replaced meanwhile (copied over, restored, deleted and made again), the reader is told to start over.
 */
import { closeSync, fstatSync, openSync, readdirSync, readSync, statSync } from 'node:fs'
import { join } from 'node:path'
import { crc32 } from 'node:zlib'
import { parseLines } from './lines.ts'
import type { RunLine, RunStatus } from './lines.ts'
import { presentStatus } from './reader.ts'
import { segmentFile, segmentNumbers } from './writer.ts'

export interface Tail {
  /** What the cursor was for is gone: forget everything, these lines are from the beginning. */
  readonly reset: boolean
  /** In the order of writing; a `segment` line opens each segment. */
  readonly lines: readonly RunLine[]
  readonly cursor: string
}

/** How far which segment file was read. */
export interface Place {
  readonly segment: number
  readonly offset: number
  readonly inode: number
  readonly check: number
}

/** Bytes before the cursor whose checksum is compared. */
const checkedBytes = 256
/** Read at once, so that a large file is not held twice as a whole. */
const chunkBytes = 64 << 20

/** Reads what came after `cursor`; everything with null or a cursor that nobody can read. */
export function readTail(dir: string, cursor: string | null): Tail {
  const folder = join(dir, 'segments')
  const place = cursor === null ? undefined : parseCursor(cursor)
  const intact = place !== undefined && isIntact(folder, place)
  const reset = cursor !== null && !intact
  const from = intact ? place : { segment: 0, offset: 0, inode: 0, check: 0 }
  const lines: RunLine[] = []
  let last: Place = from
  for (const number of numbersIn(folder)) {
    if (number < from.segment) continue
    const read = readSegment(join(folder, segmentFile(number)), number === from.segment ? from.offset : 0)
    if (read === undefined) continue
    // What does not begin with a segment line was not written by us: passed over, as the reader does.
    if (read.begins === 0 && read.lines.length > 0 && read.lines[0]!.kind !== 'segment') continue
    for (const line of read.lines) lines.push(line)
    last = { segment: number, offset: read.ends, inode: read.inode, check: read.check }
  }
  return { reset, lines, cursor: printCursor(last) }
}

/** Bytes at the end of a segment in which its last status line stands, if it has ended. */
const endBytes = 64 << 10

/** Where a run stands, from the end of its newest segment alone: what `readRun` says, without reading all of it. */
export function readStatus(dir: string): { readonly status: RunStatus; readonly reason: string | null } {
  const folder = join(dir, 'segments')
  const newest = numbersIn(folder).at(-1)
  const path = newest === undefined ? undefined : join(folder, segmentFile(newest))
  const size = path === undefined ? 0 : (statSync(path, { throwIfNoEntry: false })?.size ?? 0)
  const read = path === undefined ? undefined : readSegment(path, Math.max(0, size - endBytes))
  const last = read?.lines.findLast((line) => line.kind === 'status')
  return { status: presentStatus(dir, last?.status ?? 'running'), reason: last?.reason ?? null }
}

export const printCursor = ({ segment, offset, inode, check }: Place): string =>
  [segment, offset, inode, check].join('-')

function parseCursor(text: string): Place | undefined {
  const [segment, offset, inode, check, ...rest] = text.split('-').map(Number)
  const whole = [segment, offset, inode, check].every((part) => Number.isSafeInteger(part) && part! >= 0)
  return whole && rest.length === 0
    ? { segment: segment!, offset: offset!, inode: inode!, check: check! }
    : undefined
}

/** Numbers of the segments of a folder, ascending; none when there is no folder. */
export const numbersIn = (folder: string): number[] => {
  try {
    return segmentNumbers(readdirSync(folder))
  } catch {
    return []
  }
}

/** Whether a place is still in the file that it was reached in. */
export function isIntact(folder: string, { segment, offset, inode, check }: Place): boolean {
  // Read before there was any segment.
  if (segment === 0) return true
  const path = join(folder, segmentFile(segment))
  const stat = statSync(path, { throwIfNoEntry: false })
  if (stat === undefined || stat.ino !== inode || stat.size < offset) return false
  const fd = openSync(path, 'r')
  try {
    return checkBefore(fd, offset) === check
  } finally {
    closeSync(fd)
  }
}

/** The place at `offset` of a segment file, as reading up to there would have left it. */
export function placeAt(folder: string, segment: number, offset: number): Place | undefined {
  try {
    const fd = openSync(join(folder, segmentFile(segment)), 'r')
    try {
      return { segment, offset, inode: fstatSync(fd).ino, check: checkBefore(fd, offset) }
    } finally {
      closeSync(fd)
    }
  } catch {
    return undefined
  }
}

function checkBefore(fd: number, offset: number): number {
  const bytes = Buffer.alloc(Math.min(checkedBytes, offset))
  readSync(fd, bytes, 0, bytes.length, offset - bytes.length)
  return crc32(bytes)
}

export interface SegmentTail {
  readonly lines: readonly RunLine[]
  /** Damage among them, as `line 12: not JSON`. */
  readonly notes: readonly string[]
  /** CRC-32 of the bytes that were read. */
  readonly crc: number
  readonly begins: number
  readonly ends: number
  readonly inode: number
  readonly check: number
}

/** The whole lines of a file from an offset on, at which line `firstLine` begins. */
export function readSegment(path: string, begins: number, firstLine = 1): SegmentTail | undefined {
  let fd: number
  try {
    fd = openSync(path, 'r')
  } catch {
    return undefined
  }
  try {
    const { size, ino: inode } = fstatSync(fd)
    const lines: RunLine[] = []
    const notes: string[] = []
    let crc = 0
    let ends = begins
    let length = Math.min(chunkBytes, size - ends)
    while (length > 0) {
      const bytes = Buffer.allocUnsafe(length)
      const got = readSync(fd, bytes, 0, length, ends)
      const newline = bytes.subarray(0, got).lastIndexOf(0x0a)
      if (newline >= 0) {
        const text = bytes.toString('utf8', 0, newline + 1)
        const parsed = parseLines(text, firstLine + lines.length + notes.length)
        for (const line of parsed.lines) lines.push(line)
        for (const note of parsed.notes) notes.push(note)
        crc = crc32(bytes.subarray(0, newline + 1), crc)
        ends += newline + 1
        length = Math.min(chunkBytes, size - ends)
      } else if (ends + length < size) {
        // One line longer than a chunk.
        length = Math.min(length * 2, size - ends)
      } else break
    }
    return { lines, notes, crc, begins, ends, inode, check: checkBefore(fd, ends) }
  } catch {
    return undefined
  } finally {
    closeSync(fd)
  }
}
