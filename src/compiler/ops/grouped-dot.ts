/**
 * Every row times the matrix of its group: out[r…, :] = x[r…, :] w[group[r…], :, :]. What the experts of a mixture do to
 * the tokens they were given. Rows are in any order, which no result depends on; see grouped.ts for the form and for
 * `numbers`. Rows of groups that are not here are zero.
 */
import type { Node } from '../graph/node.ts'
import type { Op } from '../graph/op.ts'
import { formatType, sizeOf, typeError, valueType } from '../graph/types.ts'
import { apply } from './elementwise.ts'
import { groupedOuter } from './grouped-outer.ts'
import { eachRow, groupedFlops, groupedRanges, groupedShapes, rowLabels, sameRows } from './grouped.ts'
import { transpose } from './transpose.ts'

export const groupedDotOp: Op = {
  name: 'groupedDot',
  doc: 'every row times the matrix of its group',
  kind: 'product',
  infer([x, group, w, numbers]) {
    const plain = x!.dtype === w!.dtype && (x!.dtype === 'f32' || x!.dtype === 'f64')
    const indexed = group!.dtype === 'i32' && numbers!.dtype === 'i32' && numbers!.shape.length === 1
    const fits = w!.shape.length === 3 && w!.shape[0] === numbers!.shape[0] && w!.shape[1] === x!.shape.at(-1)
    if (!plain || !indexed || !fits || !sameRows(x!, group!) || w!.shape[0] === 0) {
      throw typeError(
        'groupedDot',
        `${formatType(x!)} by ${formatType(group!)} and ${formatType(w!)} of ${formatType(numbers!)}`,
        'f32 or f64 rows [..., k], an i32 group number for each, a matrix [groups, k, n] and its i32 number for each group',
        'reshape or cast one side',
      )
    }
    return [valueType(x!.dtype, [...group!.shape, w!.shape[2]!], [...x!.axes.slice(0, -1), w!.axes[2]!])]
  },
  gradient(node, [g]) {
    const [x, group, w, numbers] = node.inputs as [Node, Node, Node, Node]
    return [
      groupedDot(g!, group, transpose(w, [0, 2, 1]), numbers),
      null,
      groupedOuter(x, group, g!, numbers),
      null,
    ]
  },
  factors(node) {
    const rows = rowLabels(node.inputs[1]!)
    return {
      inputs: [[...rows, 'k'], rows, ['e', 'k', 'n'], ['e']],
      results: [[...rows, 'n']],
      reduce: 'sum',
    }
  },
  flops(node) {
    const [, group, w] = node.inputs as [Node, Node, Node]
    return groupedFlops(group.shape, w.shape[1]!, w.shape[2]!)
  },
  reference(node, [x, group, w, numbers]) {
    const [, inner, columns] = node.inputs[2]!.shape as [number, number, number]
    const out = new Float64Array(sizeOf(node.shape))
    eachRow(group!, numbers!, (row, matrix) => {
      for (let p = 0; p < inner; p++) {
        const [left, from] = [x![row * inner + p]!, (matrix * inner + p) * columns]
        for (let c = 0; c < columns; c++) out[row * columns + c]! += left * w![from + c]!
      }
    })
    return out
  },
  samples: () =>
    groupedShapes.map(({ rows, groups, inner, columns }) => ({
      inputs: [
        valueType('f64', [...rows, inner]),
        valueType('i32', rows),
        valueType('f64', [groups, inner, columns]),
        valueType('i32', [groups]),
      ],
      ranges: groupedRanges(groups),
    })),
}

export const groupedDot = (x: Node, group: Node, w: Node, numbers: Node): Node =>
  apply(groupedDotOp, [x, group, w, numbers])
