/**
 * From one layout to another with the fewest bytes sent: pieces are cut before anything travels, partial results are
 * combined straight into the cut that is wanted (reduce-scatter), a cut that moves is an all-to-all, and what is left is
 * gathered.
 */
import { InternalError } from '../../errors.ts'
import type { Node } from '../graph/node.ts'
import {
  groupOf,
  layoutKey,
  meshAxis,
  piecesOf,
  sameLayout,
  type Combine,
  type Layout,
  type Mesh,
} from '../graph/mesh.ts'
import { bytesOf } from '../graph/types.ts'
import { allGather } from '../ops/all-gather.ts'
import { allReduce } from '../ops/all-reduce.ts'
import { allToAll } from '../ops/all-to-all.ts'
import { reduceScatter } from '../ops/reduce-scatter.ts'
import { shard } from '../ops/shard.ts'

/** One value as the ranks hold it. */
export interface Held {
  readonly node: Node
  readonly layout: Layout
}

interface Move {
  readonly kind: 'shard' | 'allReduce' | 'reduceScatter' | 'allToAll' | 'allGather'
  readonly axes: readonly string[]
  readonly dim: number
  readonly split?: number
  readonly combine?: Combine
  readonly after: Layout
}

/** The collectives that lead from `from` to `to`, in order. */
export function movesBetween(from: Layout, to: Layout): Move[] {
  const missing = Object.keys(to.partial).find((axis) => from.partial[axis] !== to.partial[axis])
  if (missing) {
    throw new InternalError(
      `no way from layout ${layoutKey(from)} to ${layoutKey(to)}: a whole value cannot become partial`,
    )
  }
  const moves: Move[] = []
  let dims: string[][] = from.dims.map((axes) => [...axes])
  let partial = { ...from.partial }
  const used = (axis: string): boolean => dims.some((axes) => axes.includes(axis)) || axis in partial
  const record = (move: Omit<Move, 'after'>): void => {
    moves.push({ ...move, after: { dims: dims.map((axes) => [...axes]), partial: { ...partial } } })
  }
  const open = (dim: number): boolean => agrees(dims[dim]!, to.dims[dim]!)
  // The next axis that a dimension still lacks, where all of its cuts so far are outer ones.
  const next = (dim: number): string | undefined => (open(dim) ? to.dims[dim]![dims[dim]!.length] : undefined)
  for (let changed = true; changed;) {
    changed = false
    for (let dim = 0; dim < dims.length; dim++) {
      const axis = next(dim)
      if (axis === undefined) continue
      if (!used(axis)) {
        dims[dim]!.push(axis)
        record({ kind: 'shard', axes: [axis], dim })
        changed = true
      } else if (partial[axis] === 'sum' && !(axis in to.partial)) {
        delete partial[axis]
        dims[dim]!.push(axis)
        record({ kind: 'reduceScatter', axes: [axis], dim })
        changed = true
      } else if (axis in partial) {
        // There is no scatter of a maximum.
        const combine = partial[axis]!
        delete partial[axis]
        record({ kind: 'allReduce', axes: [axis], dim: -1, combine })
        changed = true
      } else {
        // A cut that moves here from another dimension, where it is the innermost.
        const other = dims.findIndex(
          (axes, i) => i !== dim && axes.at(-1) === axis && !agrees(axes, to.dims[i]!),
        )
        if (other < 0) continue
        dims[other]!.pop()
        dims[dim]!.push(axis)
        record({ kind: 'allToAll', axes: [axis], dim: other, split: dim })
        changed = true
      }
    }
    if (changed) continue
    const dim = dims.findIndex((axes, i) => !agrees(axes, to.dims[i]!))
    if (dim >= 0) {
      const axis = dims[dim]!.pop()!
      record({ kind: 'allGather', axes: [axis], dim })
      changed = true
    }
  }
  const left = Object.keys(partial).filter((axis) => !(axis in to.partial))
  for (const combine of ['sum', 'max'] as const) {
    const axes = left.filter((axis) => partial[axis] === combine)
    if (axes.length === 0) continue
    partial = Object.fromEntries(Object.entries(partial).filter(([axis]) => !axes.includes(axis)))
    record({ kind: 'allReduce', axes, dim: -1, combine })
  }
  if (!sameLayout({ dims, partial }, to)) {
    throw new InternalError(
      `layout ${layoutKey(from)} became ${layoutKey({ dims, partial })}, not ${layoutKey(to)}`,
    )
  }
  return moves
}

/** The cuts so far are the outermost of those wanted. */
const agrees = (axes: readonly string[], wanted: readonly string[]): boolean =>
  axes.every((axis, i) => wanted[i] === axis)

/** Bytes that one rank sends for these moves, of a value of whole type `bytes`. */
export function bytesSent(mesh: Mesh, bytes: number, from: Layout, moves: readonly Move[]): number {
  let held = bytes / piecesOf(mesh, from.dims.flat())
  let total = 0
  for (const { kind, axes } of moves) {
    const size = piecesOf(mesh, axes)
    const share = (size - 1) / size
    if (kind === 'shard') held /= size
    else if (kind === 'allReduce') total += 2 * share * held
    else if (kind === 'allToAll') total += share * held
    else if (kind === 'reduceScatter') {
      total += share * held
      held /= size
    } else {
      total += (size - 1) * held
      held *= size
    }
  }
  return total
}

/** The value in another layout; `see` is shown every layout it takes on the way. */
export function reshard(mesh: Mesh, held: Held, to: Layout, see: (held: Held) => void = () => {}): Node {
  let { node } = held
  for (const move of movesBetween(held.layout, to)) {
    node = apply(mesh, node, move)
    see({ node, layout: move.after })
  }
  return node
}

function apply(mesh: Mesh, node: Node, { kind, axes, dim, split, combine }: Move): Node {
  // What is combined everywhere has no order.
  if (kind === 'allReduce') {
    return allReduce(
      node,
      groupOf(
        mesh.map(({ name, size }) => ({ name, size })),
        axes,
      ),
      combine,
    )
  }
  const group = groupOf(mesh, axes)
  if (kind === 'shard') return shard(node, group, dim)
  if (kind === 'reduceScatter') return reduceScatter(node, group, dim)
  if (kind === 'allToAll') return allToAll(node, group, split!, dim)
  return allGather(node, group, dim)
}

/** Of several ways in which a value is held, the one from which `to` costs the fewest bytes. */
export function nearest(mesh: Mesh, held: readonly Held[], to: Layout): Held {
  let best: Held | undefined
  let least = Infinity
  for (const one of held) {
    if (Object.keys(to.partial).some((axis) => one.layout.partial[axis] !== to.partial[axis])) continue
    const whole = bytesOf(one.node.type) * piecesOf(mesh, one.layout.dims.flat())
    const cost = bytesSent(mesh, whole, one.layout, movesBetween(one.layout, to))
    if (cost < least) [best, least] = [one, cost]
  }
  if (!best) throw new InternalError(`no value held can become ${layoutKey(to)}`)
  return best
}

/** A dimension of this extent can be cut over these axes. */
export function divides(mesh: Mesh, axes: readonly string[], extent: number): boolean {
  const zigzag = axes.some((axis) => meshAxis(mesh, axis).order === 'zigzag')
  return extent % (piecesOf(mesh, axes) * (zigzag ? 2 : 1)) === 0
}
