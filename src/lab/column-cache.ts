/**
 * What a run's log says, beside the log in a form that is read at once: `columns.cache` in the run's folder. A log of a
 * million points takes seconds to parse, its columns take a tenth of one. Each part of the file stands for a stretch of a
 * segment and carries the checksum of that stretch as well as its own, so nothing is believed that the log does not bear
 * out. Only the log counts: whatever does not fit is left out, read from the log and written again. May be deleted.
 *
 *     magic | length of header | length of columns | CRC-32 of both | header as JSON | columns as `encode.ts` makes them
 */
import { closeSync, fstatSync, ftruncateSync, openSync, readFileSync, readSync, writeSync } from 'node:fs'
import { join } from 'node:path'
import { crc32 } from 'node:zlib'
import type { Columns } from '../runs/columns.ts'
import type { RunLine } from '../runs/index.ts'
import { segmentFile } from '../runs/writer.ts'
import { decodeColumns, encodeColumns } from './encode.ts'

export const cacheFile = 'columns.cache'

/** A stretch of whole lines of one segment file. */
export interface Stretch {
  readonly segment: number
  readonly from: number
  readonly to: number
  /** CRC-32 of its bytes. */
  readonly crc: number
  /** Number of its lines, damaged ones included. */
  readonly rows: number
  readonly points: number
  /** Its lines but for the points. */
  readonly lines: readonly RunLine[]
  readonly notes: readonly string[]
  readonly columns: Columns
}

export interface Loaded {
  readonly stretches: readonly Stretch[]
  /** Where the part of the file ends that was believed. */
  readonly goodBytes: number
  /** Of the file, to see whether somebody else wrote to it since. */
  readonly size: number
}

const magic = 0x31_43_43_41
const frameBytes = 16

/** Reads the parts that are whole and fit the log, in order, up to the first that is or does not. */
export function loadCache(dir: string): Loaded {
  let bytes: Buffer<ArrayBuffer>
  try {
    bytes = readFileSync(join(dir, cacheFile))
  } catch {
    return { stretches: [], goodBytes: 0, size: 0 }
  }
  const stretches: Stretch[] = []
  let at = 0
  for (;;) {
    const part = readPart(bytes, at)
    if (part === undefined) break
    const { stretch, ends } = part
    const before = stretches.at(-1)
    const follows =
      stretch.segment === before?.segment
        ? stretch.from === before.to
        : stretch.from === 0 && stretch.segment > (before?.segment ?? 0)
    if (!follows || crcOf(dir, stretch) !== stretch.crc) break
    stretches.push(stretch)
    at = ends
  }
  return { stretches, goodBytes: at, size: bytes.length }
}

function readPart(
  bytes: Buffer<ArrayBuffer>,
  at: number,
): { readonly stretch: Stretch; readonly ends: number } | undefined {
  if (at + frameBytes > bytes.length || bytes.readUInt32LE(at) !== magic) return undefined
  const begins = at + frameBytes
  const middle = begins + bytes.readUInt32LE(at + 4)
  const ends = middle + bytes.readUInt32LE(at + 8)
  if (ends > bytes.length || crc32(bytes.subarray(begins, ends)) !== bytes.readUInt32LE(at + 12))
    return undefined
  try {
    const header = JSON.parse(bytes.toString('utf8', begins, middle)) as Omit<Stretch, 'columns'>
    // A copy, since columns must begin at a multiple of eight bytes.
    const { columns } = decodeColumns(Uint8Array.from(bytes.subarray(middle, ends)).buffer)
    return { stretch: { ...header, columns }, ends }
  } catch {
    return undefined
  }
}

/** Adds parts after the good ones. Returns what the file is now; nothing is written when another process wrote to it. */
export function extendCache(
  dir: string,
  { goodBytes, size }: Omit<Loaded, 'stretches'>,
  stretches: readonly Stretch[],
): Omit<Loaded, 'stretches'> {
  let fd: number
  try {
    fd = openSync(join(dir, cacheFile), size === 0 ? 'a+' : 'r+')
  } catch {
    // A folder that cannot be written, or a file that went: the log is enough.
    return { goodBytes: 0, size: 0 }
  }
  try {
    if (fstatSync(fd).size !== size) return { goodBytes, size }
    ftruncateSync(fd, goodBytes)
    let at = goodBytes
    for (const stretch of stretches) for (const part of printPart(stretch)) at += writeWhole(fd, part, at)
    return { goodBytes: at, size: at }
  } catch {
    return { goodBytes: 0, size: 0 }
  } finally {
    closeSync(fd)
  }
}

function writeWhole(fd: number, bytes: Uint8Array, at: number): number {
  for (let done = 0; done < bytes.length;) done += writeSync(fd, bytes, done, bytes.length - done, at + done)
  return bytes.length
}

function printPart({ columns, ...header }: Stretch): Uint8Array[] {
  const text = Buffer.from(JSON.stringify(header))
  const body = encodeColumns(columns, '')
  const frame = Buffer.alloc(frameBytes)
  const numbers = [magic, text.length, body.length, crc32(body, crc32(text))]
  for (const [i, number] of numbers.entries()) frame.writeUInt32LE(number, i * 4)
  return [frame, text, body]
}

/** Read at once. */
const chunkBytes = 8 << 20

/** Of the bytes in the log that a stretch stands for; undefined when they are not all there. */
function crcOf(dir: string, { segment, from, to }: Stretch): number | undefined {
  let fd: number
  try {
    fd = openSync(join(dir, 'segments', segmentFile(segment)), 'r')
  } catch {
    return undefined
  }
  try {
    const bytes = Buffer.allocUnsafe(Math.min(chunkBytes, to - from))
    let crc = 0
    for (let at = from; at < to;) {
      const got = readSync(fd, bytes, 0, Math.min(bytes.length, to - at), at)
      if (got === 0) return undefined
      crc = crc32(bytes.subarray(0, got), crc)
      at += got
    }
    return crc
  } catch {
    return undefined
  } finally {
    closeSync(fd)
  }
}
