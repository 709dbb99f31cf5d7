/**
 * Reading one safetensors file: the header when it is opened, a tensor's bytes when they are asked for.
 * The subtle thing: a file written here carries checksums. The header's is checked on opening and the data's once, before
 * the first tensor is handed out, so a flipped bit is an error and never a slightly wrong model.
 */
import { createHash } from 'node:crypto'
import { closeSync, fstatSync, openSync } from 'node:fs'
import { InternalError, didYouMean, failure } from '../../errors.ts'
import { explainRead, readFully } from '../files.ts'
import { toF32 } from './convert.ts'
import { BUFFER_DIGEST, MAX_HEADER_BYTES, PREFIX_BYTES, damaged, parseHeader, quote } from './format.ts'
import type { Header, TensorInfo } from './format.ts'

export interface Safetensors {
  readonly metadata: Readonly<Record<string, string>>
  readonly tensors: ReadonlyMap<string, TensorInfo>
  /** The tensor's bytes, row-major and little-endian, in a fresh array. */
  read(name: string): Uint8Array<ArrayBuffer>
  /** Fills `target` from byte `from` of the tensor on, unchecked: `verify` first. */
  readInto(name: string, target: Uint8Array, from: number): void
  /** The tensor as float32, converted from F32, F64, F16 or BF16; a UserError for any other dtype. */
  readF32(name: string): Float32Array<ArrayBuffer>
  /**
   * Compares all data with the checksum in the file, once; `read` does it too. false when the file carries none.
   *
   * @throws UserError when they differ.
   */
  verify(): boolean
  /** Afterwards reading is an InternalError. */
  close(): void
}

const HASH_CHUNK_BYTES = 8 * 2 ** 20

/**
 * Opens a safetensors file and checks its header completely.
 *
 * @throws UserError naming file, tensor, what was got and expected.
 */
export function openSafetensors(path: string): Safetensors {
  let fd: number | undefined
  try {
    fd = openSync(path, 'r')
    const size = fstatSync(fd).size
    const { header, start } = readHeader(fd, size, path)
    return createReader(fd, path, header, start, size)
  } catch (error) {
    if (fd !== undefined) closeSync(fd)
    throw explainRead(error, path)
  }
}

function readHeader(
  fd: number,
  size: number,
  path: string,
): { readonly header: Header; readonly start: number } {
  const prefix = Buffer.alloc(PREFIX_BYTES)
  if (readFully(fd, prefix, 0) < PREFIX_BYTES)
    throw damaged(path, `${size} bytes`, `at least ${PREFIX_BYTES}`)
  const length = Number(prefix.readBigUInt64LE())
  if (length > MAX_HEADER_BYTES) {
    throw damaged(
      path,
      `a header of ${length} bytes (is it a safetensors file?)`,
      `at most ${MAX_HEADER_BYTES}`,
    )
  }
  const start = PREFIX_BYTES + length
  if (start > size) throw damaged(path, `${size} bytes`, `at least the ${start} of its header`)
  const raw = new Uint8Array(start)
  if (readFully(fd, raw, 0) < start)
    throw damaged(path, 'fewer bytes than a moment ago', `${start} of header`)
  return { header: parseHeader(raw, size - start, path), start }
}

function createReader(fd: number, path: string, header: Header, start: number, size: number): Safetensors {
  const { metadata, tensors } = header
  const expected = metadata[BUFFER_DIGEST]
  let verified = false
  let open = true

  function fill(target: Uint8Array, position: number): void {
    if (!open) throw new InternalError(`${path} is closed`)
    try {
      if (readFully(fd, target, position) === target.length) return
    } catch (error) {
      throw explainRead(error, path)
    }
    throw damaged(path, 'fewer bytes than when it was opened', `${size} bytes`)
  }

  function verify(): boolean {
    if (expected === undefined) return false
    if (verified) return true
    const hash = createHash('sha256')
    const chunk = new Uint8Array(Math.min(HASH_CHUNK_BYTES, size - start))
    for (let at = start; at < size; at += chunk.length) {
      const part = chunk.subarray(0, Math.min(chunk.length, size - at))
      fill(part, at)
      hash.update(part)
    }
    const actual = hash.digest('hex')
    if (actual !== expected) {
      throw damaged(
        path,
        `data with SHA-256 ${actual.slice(0, 12)}...`,
        `${expected.slice(0, 12)}... as written`,
      )
    }
    verified = true
    return true
  }

  function find(name: string): NonNullable<ReturnType<typeof tensors.get>> {
    const tensor = tensors.get(name)
    if (tensor) return tensor
    throw unknownTensor(name, [...tensors.keys()], path)
  }

  function read(name: string): Uint8Array<ArrayBuffer> {
    const { begin, bytes } = find(name)
    verify()
    const data = new Uint8Array(bytes)
    fill(data, start + begin)
    return data
  }

  function readInto(name: string, target: Uint8Array, from: number): void {
    const { begin, bytes } = find(name)
    if (from + target.length > bytes) throw new InternalError(`${path}: ${name} ends at byte ${bytes}`)
    fill(target, start + begin + from)
  }

  return {
    metadata,
    tensors,
    read,
    readInto,
    readF32: (name) => {
      const { dtype } = find(name)
      return toF32(dtype, () => read(name), `${path}: tensor ${quote(name)}`)
    },
    verify,
    close() {
      if (open) closeSync(fd)
      open = false
    },
  }
}

/** @internal The error for a name that is not there, with the nearest that is. */
export function unknownTensor(name: string, names: readonly string[], path: string): Error {
  const near = didYouMean(name, names)
  return failure({
    where: `${path}: tensor ${quote(name)}`,
    got: 'no such tensor',
    expected:
      names.length <= 6 ? `one of ${names.join(', ') || '(none)'}` : `one of the ${names.length} it holds`,
    fix: near ? `did you mean ${near}?` : 'check that the file is of this model',
  })
}
