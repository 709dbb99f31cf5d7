/**
 * Reads IDX, the format of MNIST: two zero bytes, a type (8: bytes, the only one here), the number of axes, each extent as
 * a big-endian word, then the elements. Files are often compressed with gzip.
 */
import { readFileSync } from 'node:fs'
import { gunzipSync } from 'node:zlib'
import { failure } from '../errors.ts'

export interface Idx {
  readonly extents: readonly number[]
  readonly bytes: Uint8Array
}

const bytesType = 8

/** @throws UserError naming the file when it is not IDX of bytes, or not whole. */
export function readIdx(path: string): Idx {
  return parseIdx(uncompressed(readFileSync(path), path), path)
}

function uncompressed(file: Buffer, where: string): Buffer {
  if (file[0] !== 0x1f || file[1] !== 0x8b) return file
  try {
    return gunzipSync(file)
  } catch (error) {
    throw damaged(where, (error as Error).message, 'a whole gzip file')
  }
}

/** `where` is what messages name. */
export function parseIdx(file: Uint8Array, where: string): Idx {
  const view = new DataView(file.buffer, file.byteOffset, file.byteLength)
  if (file.length < 4) throw damaged(where, `${file.length} bytes`, 'at least the 4 bytes of an IDX header')
  const [zero, type, rank] = [view.getUint16(0), file[2]!, file[3]!]
  if (zero !== 0 || type !== bytesType || rank === 0) {
    const magic = view.getUint32(0).toString(16).padStart(8, '0')
    throw damaged(where, `magic ${magic}`, '000008 and a number of axes, IDX of bytes')
  }
  const start = 4 + 4 * rank
  if (file.length < start) throw damaged(where, `${file.length} bytes`, `${start}, a header of ${rank} axes`)
  const extents = Array.from({ length: rank }, (_, axis) => view.getUint32(4 + 4 * axis))
  const wanted = start + extents.reduce((a, b) => a * b, 1)
  if (file.length !== wanted)
    throw damaged(where, `${file.length} bytes`, `${wanted} for extents ${extents.join(' x ')}`)
  return { extents, bytes: file.subarray(start) }
}

const damaged = (where: string, got: string, expected: string): Error =>
  failure({ where, got, expected, fix: 'restore the file' })
