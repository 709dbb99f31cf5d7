/**
 * For each group, what its rows of two operands say together: out[e] = the sum over rows r of group e of x[r]^T y[r]. The
 * gradient of `groupedDot` by its matrices; see grouped.ts. Rows are added in order; with `leaves` (leaves.ts) in the order of
 * leaves along their first axis. A group without rows gives zeros.
 */
import type { Node } from '../graph/node.ts'
import type { Op } from '../graph/op.ts'
import { formatType, sizeOf, typeError, valueType } from '../graph/types.ts'
import { apply } from './elementwise.ts'
import { groupedDot } from './grouped-dot.ts'
import { eachRow, groupedFlops, groupedRanges, groupedShapes, rowLabels, sameRows } from './grouped.ts'
import { sumInLeaves } from './leaves.ts'
import { transpose } from './transpose.ts'

export const groupedOuterOp: Op = {
  name: 'groupedOuter',
  doc: 'for each group, the product of two operands over its rows',
  kind: 'product',
  infer([x, group, y, numbers]) {
    const plain = x!.dtype === y!.dtype && (x!.dtype === 'f32' || x!.dtype === 'f64')
    const indexed = group!.dtype === 'i32' && numbers!.dtype === 'i32' && numbers!.shape.length === 1
    if (!plain || !indexed || !sameRows(x!, group!) || !sameRows(y!, group!) || numbers!.shape[0] === 0) {
      throw typeError(
        'groupedOuter',
        `${formatType(x!)} and ${formatType(y!)} by ${formatType(group!)} in ${formatType(numbers!)}`,
        'f32 or f64 rows [..., k] and [..., n], an i32 group number for each, and i32 numbers of the groups',
        'reshape or cast one side',
      )
    }
    return [
      valueType(
        x!.dtype,
        [numbers!.shape[0]!, x!.shape.at(-1)!, y!.shape.at(-1)!],
        [numbers!.axes[0]!, x!.axes.at(-1)!, y!.axes.at(-1)!],
      ),
    ]
  },
  gradient(node, [g]) {
    const [x, group, y, numbers] = node.inputs as [Node, Node, Node, Node]
    return [
      groupedDot(y, group, transpose(g!, [0, 2, 1]), numbers),
      null,
      groupedDot(x, group, g!, numbers),
      null,
    ]
  },
  factors(node) {
    const rows = rowLabels(node.inputs[1]!)
    return {
      inputs: [[...rows, 'k'], rows, [...rows, 'n'], ['e']],
      results: [['e', 'k', 'n']],
      reduce: 'sum',
    }
  },
  flops(node) {
    const [, inner, columns] = node.shape as [number, number, number]
    return groupedFlops(node.inputs[1]!.shape, inner, columns)
  },
  reference(node, [x, group, y, numbers]) {
    const [, inner, columns] = node.shape as [number, number, number]
    return sumInLeaves(node, group!.length, (from, to) => {
      const out = new Float64Array(sizeOf(node.shape))
      eachRow(group!.slice(from, to), numbers!, (at, matrix) => {
        const row = from + at
        for (let p = 0; p < inner; p++) {
          const [left, to] = [x![row * inner + p]!, (matrix * inner + p) * columns]
          for (let c = 0; c < columns; c++) out[to + c]! += left * y![row * columns + c]!
        }
      })
      return out
    })
  },
  samples: () =>
    groupedShapes.map(({ rows, groups, inner, columns }, i) => ({
      inputs: [
        valueType('f64', [...rows, inner]),
        valueType('i32', rows),
        valueType('f64', [...rows, columns]),
        valueType('i32', [groups]),
      ],
      ranges: groupedRanges(groups),
      attrs: i % 2 === 0 ? {} : { leaves: 2 },
    })),
}

export const groupedOuter = (x: Node, group: Node, y: Node, numbers: Node): Node =>
  apply(groupedOuterOp, [x, group, y, numbers])
