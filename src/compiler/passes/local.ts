/** One op of the local program: the attributes of an op that name extents, for the piece that a rank holds. */
import { InternalError } from '../../errors.ts'
import { currentGraph, type Attrs, type Node } from '../graph/node.ts'
import { groupOf, groupSize, localShape, piecesOf, type Layout, type Mesh } from '../graph/mesh.ts'
import { valueType } from '../graph/types.ts'
import { add } from '../ops/add.ts'
import { broadcast } from '../ops/broadcast.ts'
import { cast } from '../ops/cast.ts'
import { concat } from '../ops/concat.ts'
import { constant } from '../ops/constant.ts'
import { iota } from '../ops/iota.ts'
import { leavesOf } from '../ops/leaves.ts'
import { meshIndex } from '../ops/mesh-index.ts'
import { mul } from '../ops/mul.ts'
import { neg } from '../ops/neg.ts'

/** `node` on local inputs that lie as `from` says, its single result as `layout` says. */
export function localOp(
  mesh: Mesh,
  node: Node,
  inputs: readonly Node[],
  from: readonly Layout[],
  layout: Layout,
): Node {
  const attrs = { ...localAttrs(mesh, node, layout), ...ownLeaves(mesh, node, from[0]) }
  return currentGraph().intern(node.op, inputs, attrs)
}

/** Of the leaves of a sum over the batch a rank has those of its examples: neighbours, which the tree adds first. */
export function ownLeaves(mesh: Mesh, node: Node, from: Layout | undefined): Attrs {
  const leaves = leavesOf(node)
  if (leaves === undefined || !from) return {}
  const { aContract, axes } = node.attrs as unknown as { aContract?: number[]; axes?: number[] }
  const cuts = from.dims[aContract?.[0] ?? axes?.[0] ?? 0]!
  return { leaves: Math.max(1, Math.floor(leaves / piecesOf(mesh, cuts))) }
}

function localAttrs(mesh: Mesh, node: Node, layout: Layout): Attrs {
  const { attrs } = node
  const shape = localShape(mesh, layout, node.shape)
  switch (node.op.name) {
    case 'reshape':
    case 'broadcast':
      return { ...attrs, shape }
    // Dimensions that are cut are taken whole, so only their extent changes.
    case 'slice':
      return { ...attrs, size: shape }
    case 'scatterAdd':
      return { ...attrs, rows: shape[0]! }
    case 'iota':
    case 'random':
      throw new InternalError(`${node.op.name} has a local form of its own`)
    default:
      return attrs
  }
}

/** 0, 1, 2, … along an axis that may be cut: the positions that this rank holds. */
export function localIota(mesh: Mesh, node: Node, layout: Layout): Node {
  const axis = node.attrs['axis'] as number
  const shape = localShape(mesh, layout, node.shape)
  const cuts = layout.dims[axis]!
  const made = (extents: readonly number[]): Node => iota(valueType('i32', extents, node.axes), axis)
  if (cuts.length === 0) return cast(made(shape), node.dtype)
  const group = groupOf(mesh, cuts)
  const member = meshIndex(group)
  const moved = (extents: readonly number[], piece: Node): Node =>
    add(made(extents), broadcast(mul(piece, constant(extents[axis]!, 'i32')), extents, [], node.axes))
  if (group.order === 'plain') return cast(moved(shape, member), node.dtype)
  const half = shape.map((extent, i) => (i === axis ? extent / 2 : extent))
  const mirrored = add(neg(member), constant(2 * groupSize(group) - 1, 'i32'))
  return cast(concat([moved(half, member), moved(half, mirrored)], axis), node.dtype)
}

/**
 * The layout of a reshape's result from that of its input: dimensions are matched in groups of equal size, and a cut of
 * the first dimension of a group stays a cut of the first, where it divides that. Null: this input must first be made
 * whole along `dim`.
 */
export function throughReshape(
  mesh: Mesh,
  from: readonly number[],
  to: readonly number[],
  layout: Layout,
): { readonly result: Layout; readonly input: Layout } {
  const dims: string[][] = to.map(() => [])
  const kept: string[][] = from.map(() => [])
  let [i, j] = [0, 0]
  while (i < from.length && j < to.length) {
    const [i0, j0] = [i, j]
    let [a, b] = [from[i++]!, to[j++]!]
    while (a !== b) {
      if (a < b) a *= from[i++]!
      else b *= to[j++]!
    }
    // Leading extents of 1 say nothing.
    const first = firstLarge(from, i0, i)
    const target = firstLarge(to, j0, j)
    if (first < 0 || target < 0) continue
    const axes = [...layout.dims[first]!]
    while (axes.length > 0 && !fits(mesh, axes, from[first]!, to[target]!)) axes.pop()
    kept[first] = axes
    dims[target] = axes
  }
  return {
    result: { dims, partial: layout.partial },
    input: { dims: kept, partial: layout.partial },
  }
}

function fits(mesh: Mesh, axes: readonly string[], from: number, to: number): boolean {
  const zigzag = axes.some((name) => mesh.find((axis) => axis.name === name)?.order === 'zigzag')
  return zigzag ? from === to : to % piecesOf(mesh, axes) === 0
}

function firstLarge(shape: readonly number[], start: number, end: number): number {
  for (let i = start; i < end; i++) if (shape[i]! > 1) return i
  return -1
}
