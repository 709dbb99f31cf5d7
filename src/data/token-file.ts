/**
 * Token ids on disk: a 64-byte header, then the ids as little-endian 16-bit numbers (32-bit when the vocabulary needs
 * them). Opened by mapping, so a stream of any length costs no heap.
 * The subtle thing: ids index embedding rows in native code, where a damaged id would read foreign memory; the header
 * carries a checksum of itself, checked on opening, and one of the ids, checked by `verify`.
 *
 * Header: 0 magic "annltoks", 8 u32 version, 12 u32 bytes an id, 16 u64 count, 24 SHA-256 of the tokenizer,
 * 56 u32 CRC-32 of the ids, 60 u32 CRC-32 of bytes 0 to 59.
 */
import { createHash } from 'node:crypto'
import { crc32 } from 'node:zlib'
import { InternalError, failure } from '../errors.ts'
import type { UserError } from '../errors.ts'
import { chunks, writeAtomically } from './files.ts'
import { mapFile } from './mapped-file.ts'
import type { Tokenizer } from './tokenizers/tokenizer.ts'

export interface TokenFile {
  /** Number of ids. */
  readonly length: number
  readonly dtype: 'u16' | 'u32'
  /** Hexadecimal SHA-256 of the tokenizer's JSON, see `tokenizerHash`. */
  readonly tokenizerHash: string
  at(index: number): number
  /** Copies ids start to start + count - 1 to `target` from `targetOffset`. */
  copyInto(target: Int32Array, targetOffset: number, start: number, count: number): void
  /** Reads every id once. Throws a UserError when they are not the ones written. */
  verify(): void
  /** Afterwards every other call is an InternalError. */
  close(): void
}

const MAGIC = 'annltoks'
const VERSION = 1
const HEADER_BYTES = 64
const HEADER_CHECKED_BYTES = 60

/** Identifies a tokenizer: two with one hash give equal ids for equal text. */
export function tokenizerHash(tokenizer: Tokenizer): string {
  return createHash('sha256').update(JSON.stringify(tokenizer.toJSON())).digest('hex')
}

/**
 * Writes a token file as a whole or not at all.
 *
 * @param chunks ids in order, as many arrays as is convenient; each at least 0 and below `vocabSize`.
 * @throws UserError when the file cannot be written.
 */
export function writeTokens(
  path: string,
  chunks: Iterable<ArrayLike<number>>,
  { vocabSize, tokenizerHash }: { readonly vocabSize: number; readonly tokenizerHash: string },
): void {
  const Ids = vocabSize <= 2 ** 16 ? Uint16Array : Uint32Array
  const header = Buffer.alloc(HEADER_BYTES)
  header.write(MAGIC, 0, 'latin1')
  header.writeUInt32LE(VERSION, 8)
  header.writeUInt32LE(Ids.BYTES_PER_ELEMENT, 12)
  header.write(tokenizerHash, 24, 32, 'hex')
  writeAtomically(path, (file) => {
    file.append(header)
    let count = 0
    let checksum = 0
    for (const chunk of chunks) {
      const ids = Ids.from(chunk)
      checksum = crcOf(ids, checksum)
      file.append(ids)
      count += ids.length
    }
    header.writeBigUInt64LE(BigInt(count), 16)
    header.writeUInt32LE(checksum, 56)
    header.writeUInt32LE(crc32(header.subarray(0, HEADER_CHECKED_BYTES)), HEADER_CHECKED_BYTES)
    file.overwrite(0, header)
  })
}

/**
 * Opens a token file, checking its header and length but not yet its ids.
 *
 * @throws UserError when it is missing, not a token file, cut short or damaged.
 */
export function openTokens(path: string): TokenFile {
  const file = mapFile(path)
  try {
    const { idBytes, tokenizerHash, checksum } = readHeader(file.bytes, path)
    const { buffer, byteOffset, byteLength } = file.bytes.subarray(HEADER_BYTES)
    let ids: Uint16Array | Uint32Array | undefined =
      idBytes === 2
        ? new Uint16Array(buffer, byteOffset, byteLength / 2)
        : new Uint32Array(buffer, byteOffset, byteLength / 4)
    const { length } = ids
    const opened = (): Uint16Array | Uint32Array => {
      if (ids) return ids
      throw new InternalError(`${path} is closed`)
    }
    return {
      length,
      dtype: idBytes === 2 ? 'u16' : 'u32',
      tokenizerHash,
      at(index) {
        const id = opened()[index]
        if (id === undefined) throw new InternalError(`${path}: token ${index} of ${length}`)
        return id
      },
      copyInto(target, targetOffset, start, count) {
        if (!(start >= 0 && count >= 0 && start + count <= length)) {
          throw new InternalError(`${path}: tokens ${start} to ${start + count} of ${length}`)
        }
        target.set(opened().subarray(start, start + count), targetOffset)
      },
      verify() {
        const actual = crcOf(opened())
        if (actual === checksum) return
        throw damaged(path, `ids with checksum ${actual.toString(16)}`, checksum.toString(16))
      },
      close() {
        if (!ids) return
        ids = undefined
        file.close()
      },
    }
  } catch (error) {
    file.close()
    throw error
  }
}

interface Header {
  readonly idBytes: 2 | 4
  readonly tokenizerHash: string
  readonly checksum: number
}

function readHeader(bytes: Uint8Array, path: string): Header {
  if (bytes.length < HEADER_BYTES) throw damaged(path, `${bytes.length} bytes`, `a header of ${HEADER_BYTES}`)
  const header = Buffer.from(bytes.subarray(0, HEADER_BYTES))
  const magic = header.toString('latin1', 0, 8)
  if (magic !== MAGIC) throw damaged(path, 'a file of another kind', `a token file (beginning with ${MAGIC})`)
  const expected = crc32(header.subarray(0, HEADER_CHECKED_BYTES))
  if (header.readUInt32LE(HEADER_CHECKED_BYTES) !== expected) {
    throw damaged(path, 'a header that does not match its checksum', 'an undamaged header')
  }
  const version = header.readUInt32LE(8)
  if (version !== VERSION) throw damaged(path, `format version ${version}`, `version ${VERSION}`)
  const idBytes = header.readUInt32LE(12)
  if (idBytes !== 2 && idBytes !== 4) throw damaged(path, `${idBytes} bytes an id`, '2 or 4')
  const count = Number(header.readBigUInt64LE(16))
  if (bytes.length !== HEADER_BYTES + count * idBytes) {
    throw damaged(path, `${bytes.length} bytes`, `${HEADER_BYTES + count * idBytes} for ${count} tokens`)
  }
  return { idBytes, tokenizerHash: header.toString('hex', 24, 56), checksum: header.readUInt32LE(56) }
}

/** CRC-32 of the bytes of an array, continued from that of what came before. */
function crcOf(view: NodeJS.ArrayBufferView, before = 0): number {
  let checksum = before
  for (const part of chunks(view)) checksum = crc32(part, checksum)
  return checksum
}

function damaged(path: string, got: string, expected: string): UserError {
  return failure({ where: path, got, expected, fix: 'delete it: token files are made again from the text' })
}
