/**
 * Writing a checkpoint of several ranks: each process writes the files of its ranks, and the process of rank 0 the
 * manifest, after all files are there. Processes meet through the file system only: beside each file lies a small part
 * file with the hashes, which the process of rank 0 waits for. Who owns what needs no agreement (pieces.ts).
 * The subtle thing: file names begin with the attempt, a word that no other start of the run shares. So nothing a
 * finished checkpoint of the same step refers to is overwritten, and what a killed start left is never taken for ours.
 */
import { createHash } from 'node:crypto'
import { existsSync, readFileSync, readdirSync, rmSync, rmdirSync, statSync } from 'node:fs'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { failure, InternalError } from '../../errors.ts'
import { chunks, explainRead, makeFolder, syncFolder, writeTextAtomically } from '../files.ts'
import { writeSafetensors } from '../safetensors.ts'
import { damaged } from '../safetensors/format.ts'
import { listCheckpoints, nameOf, prune, sweep } from './folder.ts'
import type { CheckpointEntry } from './folder.ts'
import { MANIFEST, printManifest } from './manifest.ts'
import type { StoredPiece, StoredTensor } from './manifest.ts'
import { fingerprintOf } from './pieces.ts'
import type { Piece } from './pieces.ts'

/** What all processes of a run know about a checkpoint to be written. */
export interface SaveRequest {
  /** The run's folder of checkpoints. */
  readonly folder: string
  readonly step: number
  /** Letters and digits that all ranks of this start share and no other start of the run does: its segment's number. */
  readonly attempt: string
  readonly metadata: Readonly<Record<string, string>>
  /** The pieces of all ranks. */
  readonly pieces: readonly Piece[]
  /** Complete checkpoints to be left; older ones go once this one is in place. */
  readonly keep: number
  /** How long rank 0 waits for the files of other processes. */
  readonly patienceSeconds: number
}

/** The pieces one rank owns, with their bytes. */
export interface RankData {
  readonly rank: number
  /** In the order of its pieces in the request. */
  readonly data: readonly NodeJS.ArrayBufferView[]
}

/** What rank 0 needs to know of a rank's file. */
interface RankPart {
  readonly bytes: number
  /** Of each piece, in the order of the request. */
  readonly hashes: readonly string[]
  /** Of the plan the rank had in mind. */
  readonly plan: string
}

const folderOf = ({ folder, step }: SaveRequest): string => join(folder, nameOf(step))

const fileOf = ({ attempt }: SaveRequest, rank: number): string =>
  `${attempt}-rank-${String(rank).padStart(5, '0')}.safetensors`

const partOf = (request: SaveRequest, rank: number): string => `${fileOf(request, rank)}.json`

const ownersOf = ({ pieces }: SaveRequest): number[] => [...new Set(pieces.map(({ rank }) => rank))]

/**
 * Writes the files of this process's ranks and, where rank 0 is among them, the manifest. Comes back when this process
 * has nothing left to do for the checkpoint; for the process of rank 0 the checkpoint is then complete and durable.
 *
 * @throws UserError when the disk is full or cannot be written, or another process's file does not come; nothing this
 * process wrote is left, and earlier checkpoints are as they were.
 */
export async function writeCheckpoint(
  request: SaveRequest,
  local: readonly RankData[],
): Promise<CheckpointEntry | undefined> {
  if (!/^\w+$/.test(request.attempt)) throw new InternalError(`'${request.attempt}' cannot begin a file name`)
  try {
    makeFolder(folderOf(request))
    if (local.some(({ rank }) => rank === 0)) sweep(request.folder, request.step)
    const plan = fingerprintOf(request.pieces)
    const parts = new Map(local.map((one) => [one.rank, { ...writeRank(request, one), plan }]))
    if (!parts.has(0)) {
      for (const [rank, part] of parts)
        writeTextAtomically(join(folderOf(request), partOf(request, rank)), JSON.stringify(part))
      return undefined
    }
    await collectParts(request, parts, plan)
    writeManifest(request, parts)
  } catch (error) {
    discard(request, local)
    throw error
  }
  return tidy(request)
}

function writeRank(request: SaveRequest, { rank, data }: RankData): Omit<RankPart, 'plan'> {
  const owned = request.pieces.filter((piece) => piece.rank === rank)
  const path = join(folderOf(request), fileOf(request, rank))
  if (owned.length === 0) return { bytes: 0, hashes: [] }
  const tensors = owned.map(({ key, dtype, box }, i) => ({
    name: key,
    dtype,
    shape: box.size,
    data: data[i]!,
  }))
  // The manifest vouches for every piece, and a second checksum over all would cost as much again.
  writeSafetensors(path, tensors, { format: 'anneal rank', step: String(request.step) }, { checksums: false })
  return { bytes: statSync(path).size, hashes: data.map(hashOf) }
}

/** SHA-256: with the processor's instructions for it the fastest hash Node has, and faster than disks. */
function hashOf(data: NodeJS.ArrayBufferView): string {
  const hash = createHash('sha256')
  for (const part of chunks(data)) hash.update(part)
  return hash.digest('hex')
}

/** Waits for the parts of all owners that are not there yet. */
async function collectParts(request: SaveRequest, parts: Map<number, RankPart>, plan: string): Promise<void> {
  const deadline = performance.now() + request.patienceSeconds * 1000
  for (;;) {
    const missing = ownersOf(request).filter((rank) => !parts.has(rank))
    for (const rank of missing) {
      const path = join(folderOf(request), partOf(request, rank))
      if (existsSync(path)) parts.set(rank, readPart(path))
    }
    const late = missing.filter((rank) => !parts.has(rank))
    if (late.length === 0) break
    if (performance.now() > deadline) {
      throw failure({
        where: folderOf(request),
        got: `nothing from rank ${late.join(', ')} in ${request.patienceSeconds} s`,
        expected: `the files of all ${ownersOf(request).length} ranks that own something`,
        fix: 'look at the last line of the rank that is missing; earlier checkpoints are intact',
      })
    }
    await sleep(10)
  }
  for (const [rank, part] of parts) {
    if (part.plan !== plan)
      throw new InternalError(`rank ${rank} planned another layout of the checkpoint than rank 0`)
  }
}

function readPart(path: string): RankPart {
  try {
    return JSON.parse(readFileSync(path, 'utf8')) as RankPart
  } catch (error) {
    if (error instanceof SyntaxError) throw damaged(path, 'no valid JSON', 'the hashes of a rank')
    throw explainRead(error, path)
  }
}

function writeManifest(request: SaveRequest, parts: ReadonlyMap<number, RankPart>): void {
  const { folder, step, metadata, pieces } = request
  const files = new Map(ownersOf(request).map((rank) => [fileOf(request, rank), parts.get(rank)!.bytes]))
  const next = new Map<number, number>()
  const tensors = new Map<string, StoredTensor & { readonly pieces: StoredPiece[] }>()
  for (const { path, dtype, shape, box, key, rank } of pieces) {
    const i = next.get(rank) ?? 0
    next.set(rank, i + 1)
    const stored = { file: fileOf(request, rank), key, box, sha256: parts.get(rank)!.hashes[i]! }
    const known = tensors.get(path)
    if (known) known.pieces.push(stored)
    else tensors.set(path, { dtype, shape, pieces: [stored] })
  }
  writeTextAtomically(join(folderOf(request), MANIFEST), printManifest({ step, metadata, files, tensors }))
  // The folder itself may be new in its own.
  syncFolder(folder)
}

/** Deletes what is of no more use: part files, files of earlier attempts, old checkpoints. */
function tidy(request: SaveRequest): CheckpointEntry {
  const { folder, step, keep } = request
  const used = new Set([MANIFEST, ...ownersOf(request).map((rank) => fileOf(request, rank))])
  for (const name of readdirSync(folderOf(request))) {
    if (!used.has(name)) rmSync(join(folderOf(request), name), { force: true })
  }
  prune(folder, step, keep)
  return listCheckpoints(folder).findLast(({ name }) => name === nameOf(step))!
}

/** Takes back what this process wrote, so that a full disk is no fuller for it. */
function discard(request: SaveRequest, local: readonly RankData[]): void {
  const place = folderOf(request)
  try {
    const manifest = join(place, MANIFEST)
    // It may have reached its place although an error came after; then the files are a checkpoint.
    if (existsSync(manifest) && readFileSync(manifest, 'utf8').includes(`"${request.attempt}-rank-`)) return
    for (const { rank } of local) {
      rmSync(join(place, fileOf(request, rank)), { force: true })
      rmSync(join(place, partOf(request, rank)), { force: true })
    }
    rmdirSync(place)
  } catch {
    // Others have files in it, or there is no such folder; the error that came first is the one to report.
  }
}
