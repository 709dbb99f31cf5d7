/**
 * Reading a checkpoint into whatever boxes a rank holds now, however it was sharded when it was written: each wanted box
 * meets the stored pieces, and only the bytes of those intersections are read, straight to their places. A state in one
 * file is read the same way, as tensors of one piece each.
 * The subtle thing: nothing is written to a view before all that will be read has been compared with its checksum, so a
 * damaged checkpoint leaves the state as it was.
 */
import { createHash } from 'node:crypto'
import { existsSync, readFileSync, statSync } from 'node:fs'
import { basename, join } from 'node:path'
import { failure, InternalError } from '../../errors.ts'
import { explainRead } from '../files.ts'
import { DTYPE_BYTES, openSafetensors } from '../safetensors.ts'
import type { Dtype, Safetensors } from '../safetensors.ts'
import { damaged, quote } from '../safetensors/format.ts'
import { unknownTensor } from '../safetensors/reader.ts'
import { fits, forEachRun, intersect, printBox, wholeBox } from './boxes.ts'
import type { Box } from './boxes.ts'
import { MANIFEST, parseManifest } from './manifest.ts'
import type { StoredPiece } from './manifest.ts'
import { pieceBytes } from './pieces.ts'
import type { Holding } from './pieces.ts'

export interface CheckpointTensor {
  readonly dtype: Dtype
  readonly shape: readonly number[]
  readonly pieces: readonly (Omit<StoredPiece, 'sha256'> & Partial<StoredPiece>)[]
}

export interface LoadReport {
  /** Bytes read into the wanted boxes: exactly their size. */
  readonly bytesRead: number
  /** Bytes read to compare checksums, whole pieces. */
  readonly bytesVerified: number
}

/** A checkpoint that is open for reading. */
export interface Checkpoint {
  readonly metadata: Readonly<Record<string, string>>
  readonly tensors: ReadonlyMap<string, CheckpointTensor>
  /**
   * Fills the wanted boxes. Checks the pieces they touch first, unless `verify` is false because all of the checkpoint
   * was checked before, for example by the ranks together.
   *
   * @throws UserError when a tensor is not there, has another shape or type, or a piece is damaged.
   */
  load(wanted: readonly Holding[], options?: { readonly verify?: boolean }): LoadReport
  /**
   * Compares pieces with their checksums: all, or share `part` of `parts` alike ones, so that ranks can divide the work.
   * Returns the bytes compared.
   *
   * @throws UserError naming the file and the piece that differ.
   */
  verify(share?: { readonly part: number; readonly parts: number }): number
  close(): void
}

type Piece = CheckpointTensor['pieces'][number]
type Tensors = ReadonlyMap<string, CheckpointTensor>

/** Runs shorter than this are gathered before they are copied: a system call costs about as much as copying it. */
const SHORT_BYTES = 16 * 1024
const SCRATCH_BYTES = 2 ** 20
const HASH_CHUNK_BYTES = 8 * 2 ** 20

/**
 * Opens a checkpoint: `step-N/` with its manifest, or a single safetensors file.
 *
 * @throws UserError when it is missing, unfinished or damaged, or of a version this Anneal does not know.
 */
export function openCheckpoint(path: string): Checkpoint {
  try {
    return statSync(path).isDirectory() ? openFolder(path) : openFile(path)
  } catch (error) {
    throw explainRead(error, path)
  }
}

function openFile(path: string): Checkpoint {
  const file = openSafetensors(path)
  const name = basename(path)
  const tensors = Array.from(file.tensors, ([key, { dtype, shape }]): [string, CheckpointTensor] => [
    key,
    { dtype, shape, pieces: [{ file: name, key, box: wholeBox(shape) }] },
  ])
  const bytes = file.tensors.values().reduce((sum, tensor) => sum + tensor.bytes, 0)
  let verified = false
  return createCheckpoint(path, file.metadata, new Map(tensors), {
    locate: () => file,
    // One checksum for all of it, compared once; a file from elsewhere may have none.
    verify() {
      if (verified || !file.verify()) return 0
      verified = true
      return bytes
    },
    close: () => file.close(),
  })
}

function openFolder(path: string): Checkpoint {
  const manifestPath = join(path, MANIFEST)
  if (!existsSync(manifestPath)) {
    throw failure({
      where: path,
      got: `a folder without ${MANIFEST}`,
      expected: 'a finished checkpoint',
      fix: 'its writer was stopped before the end: use an earlier checkpoint',
    })
  }
  const { metadata, files, tensors } = parseManifest(readFileSync(manifestPath, 'utf8'), manifestPath)
  const opened = new Map<string, Safetensors>()
  const verified = new Set<Piece>()

  function open(name: string): Safetensors {
    const known = opened.get(name)
    if (known) return known
    const place = join(path, name)
    const size = statSync(place, { throwIfNoEntry: false })?.size
    if (size !== files.get(name)) {
      throw failure({
        where: place,
        got: size === undefined ? 'no such file' : `${size} bytes`,
        expected: `the ${files.get(name)} bytes that ${MANIFEST} names`,
        fix: 'restore the file from a copy, or use an earlier checkpoint',
      })
    }
    const file = openSafetensors(place)
    opened.set(name, file)
    return file
  }

  function locate(tensor: CheckpointTensor, piece: Piece): Safetensors {
    const file = open(piece.file)
    const stored = file.tensors.get(piece.key)
    if (stored?.dtype === tensor.dtype && stored.shape.join() === piece.box.size.join()) return file
    throw damaged(
      `${join(path, piece.file)}: tensor ${quote(piece.key)}`,
      stored ? `${stored.dtype} [${stored.shape.join(', ')}]` : 'no such tensor',
      `${tensor.dtype} [${piece.box.size.join(', ')}], as ${MANIFEST} says`,
    )
  }

  function verify(tensor: CheckpointTensor, piece: Piece): number {
    if (verified.has(piece)) return 0
    const file = locate(tensor, piece)
    const actual = hashOf(file, piece.key)
    if (actual !== piece.sha256) {
      throw damaged(
        `${join(path, piece.file)}: tensor ${quote(piece.key)}`,
        `data with SHA-256 ${actual.slice(0, 12)}...`,
        `${piece.sha256?.slice(0, 12)}... as written`,
      )
    }
    verified.add(piece)
    return pieceBytes({ dtype: tensor.dtype, box: piece.box })
  }

  return createCheckpoint(path, metadata, tensors, {
    locate,
    verify,
    close: () => opened.forEach((file) => file.close()),
  })
}

function hashOf(file: Safetensors, key: string): string {
  const { bytes } = file.tensors.get(key)!
  const hash = createHash('sha256')
  const chunk = new Uint8Array(Math.min(HASH_CHUNK_BYTES, bytes))
  for (let at = 0; at < bytes; at += chunk.length) {
    const part = chunk.subarray(0, Math.min(chunk.length, bytes - at))
    file.readInto(key, part, at)
    hash.update(part)
  }
  return hash.digest('hex')
}

/** What the two forms do in their own way. */
interface Form {
  /** The file with the piece, once it is known to hold it. */
  readonly locate: (tensor: CheckpointTensor, piece: Piece) => Safetensors
  /** Compares a piece with its checksum, once; returns the bytes compared. */
  readonly verify: (tensor: CheckpointTensor, piece: Piece) => number
  readonly close: () => void
}

function createCheckpoint(
  path: string,
  metadata: Checkpoint['metadata'],
  tensors: Tensors,
  form: Form,
): Checkpoint {
  return {
    metadata,
    tensors,
    load(wanted, { verify = true } = {}) {
      const reads = wanted.flatMap((holding) => {
        const tensor = findTensor(tensors, holding, path)
        return tensor.pieces.flatMap((piece) => {
          const common = intersect(piece.box, holding.box)
          return common ? [{ holding, tensor, piece, common }] : []
        })
      })
      let bytesVerified = 0
      if (verify) for (const { tensor, piece } of reads) bytesVerified += form.verify(tensor, piece)
      let bytesRead = 0
      for (const { holding, tensor, piece, common } of reads)
        bytesRead += readBox(form.locate(tensor, piece), piece, holding, common)
      return { bytesRead, bytesVerified }
    },
    verify({ part, parts } = { part: 0, parts: 1 }) {
      const all = [...tensors.values()].flatMap((tensor) => tensor.pieces.map((piece) => ({ tensor, piece })))
      const mine = all.filter((_, i) => i % parts === part)
      return mine.reduce((sum, { tensor, piece }) => sum + form.verify(tensor, piece), 0)
    },
    close: form.close,
  }
}

function findTensor(tensors: Tensors, holding: Holding, path: string): CheckpointTensor {
  const { path: name, dtype, globalShape, box, data } = holding
  if (!fits(box, globalShape) || data.byteLength !== pieceBytes(holding))
    throw new InternalError(
      `'${name}': ${data.byteLength} bytes for ${printBox(box)} of [${globalShape.join()}]`,
    )
  const tensor = tensors.get(name)
  if (!tensor) throw unknownTensor(name, [...tensors.keys()], path)
  if (tensor.dtype === dtype && tensor.shape.join() === globalShape.join()) return tensor
  throw failure({
    where: `${path}: tensor '${name}'`,
    got: `${tensor.dtype} [${tensor.shape.join(', ')}]`,
    expected: `${dtype} [${globalShape.join(', ')}]`,
    fix: 'resume with the settings the run was started with',
  })
}

/** Reads the elements of `common` from a piece to their places in a holding, run by run. Returns the bytes read. */
function readBox(file: Safetensors, piece: Piece, holding: Holding, common: Box): number {
  const width = DTYPE_BYTES[holding.dtype]
  const { buffer, byteOffset, byteLength } = holding.data
  const target = new Uint8Array(buffer, byteOffset, byteLength)
  const gather = new Gather(file, piece.key, target)
  forEachRun(piece.box, holding.box, common, (from, to, count) =>
    gather.add(from * width, to * width, count * width),
  )
  gather.flush()
  return gather.bytesRead
}

/** Reads runs; short ones that follow each other in the file with one system call, over a scratch buffer. */
class Gather {
  bytesRead = 0
  readonly #file: Safetensors
  readonly #key: string
  readonly #target: Uint8Array
  #scratch: Uint8Array | undefined
  #begin = 0
  #end = 0
  #places: { readonly to: number; readonly bytes: number }[] = []

  constructor(file: Safetensors, key: string, target: Uint8Array) {
    this.#file = file
    this.#key = key
    this.#target = target
  }

  add(from: number, to: number, bytes: number): void {
    if (bytes >= SHORT_BYTES) {
      this.flush()
      this.#read(this.#target.subarray(to, to + bytes), from)
      return
    }
    if (from !== this.#end || from + bytes - this.#begin > SCRATCH_BYTES) {
      this.flush()
      this.#begin = from
    }
    this.#end = from + bytes
    this.#places.push({ to, bytes })
  }

  flush(): void {
    if (this.#places.length === 1) {
      const { to, bytes } = this.#places[0]!
      this.#read(this.#target.subarray(to, to + bytes), this.#begin)
    } else if (this.#places.length > 1) {
      this.#scratch ??= new Uint8Array(SCRATCH_BYTES)
      const read = this.#scratch.subarray(0, this.#end - this.#begin)
      this.#read(read, this.#begin)
      let at = 0
      for (const { to, bytes } of this.#places) {
        this.#target.set(read.subarray(at, at + bytes), to)
        at += bytes
      }
    }
    this.#places = []
    this.#begin = this.#end = -1
  }

  #read(target: Uint8Array, from: number): void {
    this.#file.readInto(this.#key, target, from)
    this.bytesRead += target.length
  }
}
