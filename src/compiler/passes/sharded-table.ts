/**
 * Tables whose rows are cut: the vocabulary-parallel embedding (Shoeybi et al., Megatron-LM). A lookup finds the rows a
 * rank has and zeros for the others, which is a partial sum; adding into the table drops what belongs to other ranks.
 */
import { currentGraph, type Node } from '../graph/node.ts'
import { groupOf, piecesOf, type Layout, type Mesh } from '../graph/mesh.ts'
import { add } from '../ops/add.ts'
import { broadcast } from '../ops/broadcast.ts'
import { constant, fill } from '../ops/constant.ts'
import { gather, gatherOp } from '../ops/gather.ts'
import { less } from '../ops/less.ts'
import { meshIndex } from '../ops/mesh-index.ts'
import { mul } from '../ops/mul.ts'
import { neg } from '../ops/neg.ts'
import { scatterAddOp } from '../ops/scatter-add.ts'
import { slice } from '../ops/slice.ts'
import { where } from '../ops/where.ts'
import { decide, type Operand, type Placement } from './layouts.ts'
import { ownLeaves } from './local.ts'
import { divides } from './reshard.ts'

/** Makes the local form, given how to get an operand in a layout. */
export interface TableForm {
  make(
    mesh: Mesh,
    as: (node: Node, layout: Layout) => Node,
    operands: readonly (Operand | null)[],
  ): { readonly node: Node; readonly layout: Layout }
}

/** A lookup in a table whose rows are cut; null for anything else. */
export function shardedRows(node: Node, operands: readonly (Operand | null)[]): TableForm | null {
  const cuts = operands[0]?.layout.dims[0] ?? []
  // A cut over an axis that cuts the index, too, is one of storage (ZeRO): the table is gathered then.
  const stored = operands[1]?.layout.dims.flat().some((axis) => cuts.includes(axis))
  if (node.op !== gatherOp || cuts.length === 0 || !operands[0]!.weight || stored) return null
  return {
    make(mesh, as) {
      const [table, index] = node.inputs as [Node, Node]
      const others = operands[0]!.layout.dims.slice(1)
      const indexCuts = (operands[1]?.layout.dims ?? index.shape.map(() => [])).map((axes) =>
        axes.filter((axis) => !cuts.includes(axis)),
      )
      const taken = new Set(indexCuts.flat())
      const kept = others.map((axes) => axes.filter((axis) => !taken.has(axis)))
      const rows = as(table, { dims: [cuts, ...kept], partial: {} })
      const own = ownRows(mesh, as(index, { dims: indexCuts, partial: {} }), cuts, rows.shape[0]!)
      const found = gather(rows, own.index)
      const layout: Layout = {
        dims: [...indexCuts, ...kept],
        partial: Object.fromEntries(cuts.map((axis) => [axis, 'sum'] as const)),
      }
      const present = broadcast(
        own.inside,
        found.shape,
        index.shape.map((_, i) => i),
      )
      return { node: where(present, found, fill(0, found.type)), layout }
    },
  }
}

/** Sums into a table whose rows the rules cut. */
export function shardedRowSums(node: Node, placement: Placement): TableForm | null {
  if (node.op !== scatterAddOp) return null
  const wanted = placement.named[node.axes[0] ?? ''] ?? []
  const cuts = wanted.filter((axis) => placement.weightAxes.includes(axis))
  if (cuts.length === 0 || !divides(placement.mesh, cuts, node.shape[0]!)) return null
  return {
    make(mesh, as, operands) {
      const { inputs, results } = decide(node, node.op.factors(node), operands, placement)
      const without = (layout: Layout): Layout => ({
        dims: layout.dims.map((axes) => axes.filter((axis) => !cuts.includes(axis))),
        partial: Object.fromEntries(Object.entries(layout.partial).filter(([axis]) => !cuts.includes(axis))),
      })
      const lying = inputs.map(without)
      const [index, updates] = node.inputs.map((x, i) => as(x, lying[i]!)) as [Node, Node]
      const rows = node.shape[0]! / piecesOf(mesh, cuts)
      const own = ownRows(mesh, index, cuts, rows)
      // Rows of other ranks go to one that is cut off again.
      const target = where(own.inside, own.index, fill(rows, own.index.type))
      const all = currentGraph().intern(scatterAddOp, [target, updates], {
        ...node.attrs,
        rows: rows + 1,
        ...ownLeaves(mesh, node, lying[0]),
      })
      const kept = slice(
        all,
        all.shape.map(() => 0),
        [rows, ...all.shape.slice(1)],
      )
      const result = without(results[0]!)
      return { node: kept, layout: { ...result, dims: [cuts, ...result.dims.slice(1)] } }
    },
  }
}

/** Row numbers within this rank's part of a table, and which of them lie in it. */
function ownRows(
  mesh: Mesh,
  index: Node,
  cuts: readonly string[],
  rows: number,
): { readonly index: Node; readonly inside: Node } {
  const first = mul(meshIndex(groupOf(mesh, cuts)), constant(rows, 'i32'))
  const local = add(index, broadcast(neg(first), index.shape, [], index.axes))
  const all = (value: number): Node => fill(value, local.type)
  return { index: local, inside: mul(less(all(-1), local), less(local, all(rows))) }
}
