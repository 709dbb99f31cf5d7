/**
 * Who writes what: from the boxes that all ranks hold, the pieces of a checkpoint, every element in exactly one of them.
 * A pure function of the boxes, so each rank works out the same answer by itself and nothing needs to be sent. Of
 * replicated parts the holder with the least to write so far is the owner, so that copies share the work.
 */
import { createHash } from 'node:crypto'
import { InternalError } from '../../errors.ts'
import { DTYPE_BYTES } from '../safetensors.ts'
import type { Dtype } from '../safetensors.ts'
import { contains, fits, partitionProblem, printBox, subtract, volume, wholeBox } from './boxes.ts'
import type { Box } from './boxes.ts'

/** A part of a tensor that a rank holds. A rank may hold several parts of one tensor. */
export interface HeldBox {
  /** The tensor's name, e.g. `params.layers.attn.q`. */
  readonly path: string
  readonly dtype: Dtype
  readonly globalShape: readonly number[]
  readonly box: Box
}

/** The same with its numbers. */
export interface Holding extends HeldBox {
  /** The box, row-major; a window into live state is fine. */
  readonly data: NodeJS.ArrayBufferView
}

/** A part of a tensor and the one rank that writes it. */
export interface Piece {
  readonly path: string
  readonly dtype: Dtype
  readonly shape: readonly number[]
  readonly box: Box
  readonly rank: number
  /** The piece's name in its file: the tensor's own, or with the ranges, e.g. `params.head[0:64,0:128]`. */
  readonly key: string
}

export const pieceBytes = ({ dtype, box }: Pick<Piece, 'dtype' | 'box'>): number =>
  volume(box) * DTYPE_BYTES[dtype]

interface Region extends Omit<Piece, 'rank' | 'key'> {
  /** The ranks that hold all of it, ascending. */
  readonly holders: readonly number[]
}

/**
 * The pieces of a checkpoint of the ranks together, ordered by tensor, then by place.
 *
 * @param held what each rank holds, in the order of ranks.
 * @throws InternalError when the ranks disagree about a tensor, or some element is held by none.
 */
export function planPieces(held: readonly (readonly HeldBox[])[]): Piece[] {
  const regions = [...byTensor(held)].flatMap(([path, boxes]) => regionsOf(path, boxes))
  const load = held.map(() => 0)
  const owned: Piece[] = []
  for (const { path, dtype, shape, box, holders } of regions.toSorted(
    (a, b) => pieceBytes(b) - pieceBytes(a),
  )) {
    const rank = holders.reduce((best, holder) => (load[holder]! < load[best]! ? holder : best))
    load[rank]! += pieceBytes({ dtype, box })
    const key = volume(box) === volume(wholeBox(shape)) ? path : path + printBox(box)
    owned.push({ path, dtype, shape, box, rank, key })
  }
  return owned.toSorted((a, b) => compareText(a.path, b.path) || compareStarts(a.box, b.box))
}

/** Equal for ranks that planned the same. */
export const fingerprintOf = (pieces: readonly Piece[]): string =>
  createHash('sha256').update(JSON.stringify(pieces)).digest('hex')

/** The boxes of each tensor with their ranks. */
function byTensor(held: readonly (readonly HeldBox[])[]): Map<string, [HeldBox, number][]> {
  const tensors = new Map<string, [HeldBox, number][]>()
  for (const [rank, boxes] of held.entries()) {
    for (const one of boxes) {
      const known = tensors.get(one.path)
      const first = known?.[0]?.[0] ?? one
      if (first.dtype !== one.dtype || first.globalShape.join() !== one.globalShape.join()) {
        throw new InternalError(`rank ${rank} holds '${one.path}' as another tensor than a rank before it`)
      }
      if (!fits(one.box, one.globalShape)) {
        throw new InternalError(
          `rank ${rank} holds ${printBox(one.box)} of '${one.path}', which is [${one.globalShape.join()}]`,
        )
      }
      if (known) known.push([one, rank])
      else tensors.set(one.path, [[one, rank]])
    }
  }
  return tensors
}

/** The boxes of one tensor, cut where they overlap without being equal. */
function regionsOf(path: string, boxes: readonly (readonly [HeldBox, number])[]): Region[] {
  const { dtype, globalShape: shape } = boxes[0]![0]
  const distinct = new Map<string, { readonly box: Box; readonly holders: Set<number> }>()
  for (const [{ box }, rank] of boxes) {
    const name = printBox(box)
    const same = distinct.get(name)
    if (same) same.holders.add(rank)
    else if (volume(box) > 0) distinct.set(name, { box, holders: new Set([rank]) })
  }
  // An array without elements is stored, too: a reader asks for it by name.
  if (distinct.size === 0) distinct.set('', { box: wholeBox(shape), holders: new Set([boxes[0]![1]]) })
  const groups = [...distinct.values()]
  const boxesHeld = groups.map(({ box }) => box)
  const region = (box: Box, holders: ReadonlySet<number>): Region => ({
    path,
    dtype,
    shape,
    box,
    holders: [...holders].toSorted((a, b) => a - b),
  })
  // The usual case, in which nothing needs cutting, since boxes are equal or apart.
  if (partitionProblem(boxesHeld, shape) === undefined)
    return groups.map(({ box, holders }) => region(box, holders))
  const parts = cut(boxesHeld)
  const problem = partitionProblem(parts, shape)
  if (problem !== undefined) throw new InternalError(`the ranks together hold of '${path}' ${problem}`)
  return parts.map((part) => {
    const around = new Set<number>()
    for (const { box, holders } of groups)
      if (contains(box, part)) holders.forEach((rank) => around.add(rank))
    return region(part, around)
  })
}

/** Of each box what is in none before it. */
const cut = (boxes: readonly Box[]): Box[] =>
  boxes.flatMap((box, i) =>
    boxes.slice(0, i).reduce((rest, earlier) => rest.flatMap((part) => subtract(part, earlier)), [box]),
  )

const compareText = (a: string, b: string): number => (a === b ? 0 : a < b ? -1 : 1)

function compareStarts(a: Box, b: Box): number {
  const axis = a.start.findIndex((at, i) => at !== b.start[i])
  return axis < 0 ? 0 : a.start[axis]! - b.start[axis]!
}
