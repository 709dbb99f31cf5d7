/**
 * Writing a safetensors file as a whole or not at all, with checksums of header and data in its metadata. Equal input
 * gives equal bytes: tensors are laid out by element size, largest first, then by name, which also aligns each to its
 * element size as the reference implementation does.
 */
import { createHash } from 'node:crypto'
import { badUsage } from '../../errors.ts'
import { chunks, writeAtomically } from '../files.ts'
import {
  BUFFER_DIGEST,
  DTYPE_BYTES,
  HEADER_DIGEST,
  MAX_HEADER_BYTES,
  METADATA,
  NO_DIGEST,
  PREFIX_BYTES,
  countElements,
  headerDigest,
  quote,
} from './format.ts'
import type { Dtype } from './format.ts'

export interface TensorData {
  readonly name: string
  readonly dtype: Dtype
  readonly shape: readonly number[]
  /** Exactly the tensor's bytes, row-major and little-endian. */
  readonly data: NodeJS.ArrayBufferView
}

/**
 * Writes `tensors` to `path`, beside an earlier file first and then in its place.
 *
 * @param metadata free text a key; keys beginning with `anneal.` are ours.
 * @param options `checksums: false` leaves them out, for a file whose parts somebody else vouches for.
 * @throws UserError when the disk is full or the place cannot be written (an earlier file is intact), or when a tensor's
 * data does not fit its shape.
 */
export function writeSafetensors(
  path: string,
  tensors: readonly TensorData[],
  metadata: Readonly<Record<string, string>> = {},
  { checksums = true }: { readonly checksums?: boolean } = {},
): void {
  checkTensors(tensors, path)
  const ordered = tensors.toSorted(
    (a, b) => DTYPE_BYTES[b.dtype] - DTYPE_BYTES[a.dtype] || (a.name < b.name ? -1 : 1),
  )
  const header = buildHeader(ordered, checksums ? { ...metadata, ...digestsOf(ordered) } : metadata)
  if (header.length - PREFIX_BYTES > MAX_HEADER_BYTES) {
    throw badUsage({
      where: path,
      got: `names and metadata of ${header.length} bytes`,
      expected: `at most ${MAX_HEADER_BYTES}`,
      fix: 'store less in the metadata',
    })
  }
  writeAtomically(path, (file) => {
    file.append(header)
    for (const { data } of ordered) file.append(data)
  })
}

/** The checksum of the data, and the place of the header's, which only the finished header has. */
function digestsOf(ordered: readonly TensorData[]): Readonly<Record<string, string>> {
  const hash = createHash('sha256')
  for (const { data } of ordered) for (const part of chunks(data)) hash.update(part)
  return { [BUFFER_DIGEST]: hash.digest('hex'), [HEADER_DIGEST]: NO_DIGEST }
}

/** Prefix and header, space-padded to a multiple of 8 so that the data after it is aligned. */
function buildHeader(ordered: readonly TensorData[], metadata: Readonly<Record<string, string>>): Buffer {
  let end = 0
  const entries = ordered.map(({ name, dtype, shape, data }) => {
    const begin = end
    end += data.byteLength
    return [name, { dtype, shape, data_offsets: [begin, end] }] as const
  })
  // By hand and not from one object: a tensor named like a number would otherwise move to the front.
  const fields = [[METADATA, metadata] as const, ...entries].map(
    ([name, value]) => `${JSON.stringify(name)}:${JSON.stringify(value)}`,
  )
  const json = `{${fields.join(',')}}`
  const padded = json + ' '.repeat(-Buffer.byteLength(json) & 7)
  const prefix = Buffer.alloc(PREFIX_BYTES)
  prefix.writeBigUInt64LE(BigInt(Buffer.byteLength(padded)))
  const field = `"${HEADER_DIGEST}":"`
  const digest = headerDigest(prefix, padded)
  return Buffer.concat([prefix, Buffer.from(padded.replace(field + NO_DIGEST, field + digest))])
}

function checkTensors(tensors: readonly TensorData[], path: string): void {
  const names = new Set<string>()
  for (const { name, dtype, shape, data } of tensors) {
    const where = `${path}: tensor ${quote(name)}`
    if (names.has(name) || name === METADATA || !name.isWellFormed()) {
      throw badUsage({
        where,
        got: names.has(name) ? 'the name twice' : 'a name that cannot be stored',
        expected: `distinct names other than ${METADATA}`,
        fix: 'rename the tensor',
      })
    }
    names.add(name)
    const bytes = countElements(shape) * DTYPE_BYTES[dtype]
    if (data.byteLength === bytes) continue
    throw badUsage({
      where,
      got: `${data.byteLength} bytes of data`,
      expected: `${bytes} for ${dtype} [${shape.join(', ')}]`,
      fix: 'pass exactly the bytes of the tensor',
    })
  }
}
