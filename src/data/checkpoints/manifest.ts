/**
 * `manifest.json`: the whole of a sharded checkpoint on paper. For every tensor its shape and the pieces it lies in, each
 * with file, place and SHA-256. It is written last, so a folder is a checkpoint from the moment this file is there.
 * The subtle thing: it is the one file everything else is checked against, so it carries a checksum of itself, and a
 * manifest whose boxes do not make up the tensors is refused although its checksum is right.
 */
import { createHash } from 'node:crypto'
import { failure } from '../../errors.ts'
import { jsonProblem } from '../files.ts'
import { DTYPE_BYTES } from '../safetensors.ts'
import type { Dtype } from '../safetensors.ts'
import { countElements, damaged, duplicateKey, quote } from '../safetensors/format.ts'
import { partitionProblem } from './boxes.ts'
import type { Box } from './boxes.ts'

export const MANIFEST = 'manifest.json'
const VERSION = 1

/** A part of a tensor in a file. */
export interface StoredPiece {
  /** Name within the checkpoint's folder. */
  readonly file: string
  /** Name within the file. */
  readonly key: string
  readonly box: Box
  /** Hexadecimal, of the piece's bytes. */
  readonly sha256: string
}

export interface StoredTensor {
  readonly dtype: Dtype
  readonly shape: readonly number[]
  /** Every element is in exactly one. */
  readonly pieces: readonly StoredPiece[]
}

export interface Manifest {
  readonly step: number
  /** Free text a key, as in a checkpoint of one file: `run`, `config`, `tokenizer`, and `plan`, how it was sharded. */
  readonly metadata: Readonly<Record<string, string>>
  /** Bytes of each file. */
  readonly files: ReadonlyMap<string, number>
  readonly tensors: ReadonlyMap<string, StoredTensor>
}

/** The text of the file, a line a tensor. */
export function printManifest({ step, metadata, files, tensors }: Manifest): string {
  const line = (name: string, value: unknown): string => `${JSON.stringify(name)}: ${JSON.stringify(value)}`
  const object = (entries: Iterable<readonly [string, unknown]>): string =>
    `{\n${Array.from(entries, ([name, value]) => `    ${line(name, value)}`).join(',\n')}\n  }`
  const fields = [
    line('format', 'anneal checkpoint'),
    line('version', VERSION),
    line('step', step),
    `"metadata": ${object(Object.entries(metadata))}`,
    `"files": ${object(files)}`,
    `"tensors": ${object(Array.from(tensors, ([name, tensor]) => [name, printTensor(tensor)]))}`,
    line('digest', NO_DIGEST),
  ]
  return seal(`{\n${fields.map((field) => `  ${field}`).join(',\n')}\n}\n`)
}

const printTensor = ({ pieces, ...tensor }: StoredTensor): object => ({
  ...tensor,
  pieces: pieces.map(({ file, key, box, sha256 }) => ({ file, key, ...box, sha256 })),
})

const NO_DIGEST = '0'.repeat(64)
const digestField = /"digest": "[0-9a-f]{64}"(?=\n\}\n$)/

/** @internal Puts the checksum in: SHA-256 of the text in which its own digits read as zeros. */
export function seal(text: string): string {
  const blank = text.replace(digestField, `"digest": "${NO_DIGEST}"`)
  const digest = createHash('sha256').update(blank).digest('hex')
  return blank.replace(digestField, `"digest": "${digest}"`)
}

/**
 * Parses and checks a manifest completely.
 *
 * @param path named in errors.
 * @throws UserError naming the file, the tensor and what is wrong with it.
 */
export function parseManifest(text: string, path: string): Manifest {
  let json: unknown
  try {
    json = JSON.parse(text)
  } catch (error) {
    throw damaged(path, `no valid JSON (${jsonProblem(error)})`, 'the manifest of a checkpoint')
  }
  const repeated = duplicateKey(text)
  if (repeated !== undefined) throw damaged(path, `the key ${quote(repeated)} twice`, 'every name once')
  if (!digestField.test(text) || seal(text) !== text)
    throw damaged(path, 'text that its checksum does not fit', 'the text as it was written')
  const { format, version, step, metadata, files, tensors } = fieldsOf(json, path)
  if (format !== 'anneal checkpoint') throw damaged(path, `format ${quote(format)}`, '"anneal checkpoint"')
  if (version !== VERSION) {
    throw failure({
      where: path,
      got: `format version ${quote(version)}`,
      expected: `version ${VERSION}, which this Anneal reads`,
      fix: 'read it with the Anneal that wrote it, or use an earlier checkpoint',
    })
  }
  if (!isCount(step)) throw damaged(`${path}: step`, quote(step), 'a whole number')
  const sizes = Object.entries(fieldsOf(files, `${path}: files`))
  for (const [name, bytes] of sizes) {
    if (!/^[\w-]+\.safetensors$/.test(name) || !isCount(bytes))
      throw damaged(`${path}: files`, `${quote(name)}: ${quote(bytes)}`, 'plain names with sizes in bytes')
  }
  const texts = Object.entries(fieldsOf(metadata, `${path}: metadata`))
  const strange = texts.find(([, value]) => typeof value !== 'string')
  if (strange) throw damaged(`${path}: metadata`, quote(strange[1]), 'text')
  const known = new Map(sizes as [string, number][])
  return {
    step,
    metadata: Object.fromEntries(texts as [string, string][]),
    files: known,
    tensors: new Map(
      Object.entries(fieldsOf(tensors, `${path}: tensors`)).map(([name, tensor]) => [
        name,
        parseTensor(tensor, known, `${path}: tensor ${quote(name)}`),
      ]),
    ),
  }
}

function parseTensor(json: unknown, files: Manifest['files'], where: string): StoredTensor {
  const { dtype, shape, pieces } = fieldsOf(json, where)
  if (typeof dtype !== 'string' || !Object.hasOwn(DTYPE_BYTES, dtype))
    throw damaged(where, `dtype ${quote(dtype)}`, `one of ${Object.keys(DTYPE_BYTES).join(', ')}`)
  if (!isCounts(shape) || Number.isNaN(countElements(shape)))
    throw damaged(where, `shape ${quote(shape)}`, 'a list of sizes that can be stored')
  if (!Array.isArray(pieces)) throw damaged(where, `pieces ${quote(pieces)}`, 'a list')
  const stored = pieces.map((piece: unknown): StoredPiece => {
    const { file, key, start, size, sha256 } = fieldsOf(piece, where)
    if (typeof file !== 'string' || !files.has(file))
      throw damaged(where, `a piece in ${quote(file)}`, 'one of the files it lists')
    if (typeof key !== 'string' || typeof sha256 !== 'string' || !/^[0-9a-f]{64}$/.test(sha256))
      throw damaged(where, `a piece without key or SHA-256 in ${file}`, 'both')
    if (!isCounts(start) || !isCounts(size))
      throw damaged(where, `a piece at ${quote(start)} of size ${quote(size)}`, 'lists of whole numbers')
    return { file, key, box: { start, size }, sha256 }
  })
  const problem = partitionProblem(
    stored.map(({ box }) => box),
    shape,
  )
  if (problem !== undefined)
    throw damaged(where, `pieces ${problem}`, `every element of [${shape.join(', ')}] once`)
  return { dtype: dtype as Dtype, shape, pieces: stored }
}

const isCount = (value: unknown): value is number => Number.isSafeInteger(value) && (value as number) >= 0

const isCounts = (value: unknown): value is number[] => Array.isArray(value) && value.every(isCount)

function fieldsOf(value: unknown, where: string): Readonly<Record<string, unknown>> {
  if (typeof value === 'object' && value !== null && !Array.isArray(value))
    return value as Record<string, unknown>
  throw damaged(where, quote(value), 'an object')
}
