/**
 * Rows of a table by index: result[i…, :] = table[index[i…], :]. The embedding lookup. An index outside the table is
 * the caller's mistake; targets clamp it so that memory is never read out of bounds.
 */
import type { Node } from '../graph/node.ts'
import type { Op } from '../graph/op.ts'
import { formatType, sizeOf, typeError, valueType } from '../graph/types.ts'
import { apply } from './elementwise.ts'
import { scatterAdd } from './scatter-add.ts'

export const gatherOp: Op = {
  name: 'gather',
  doc: 'rows of a table by index',
  kind: 'index',
  infer([table, index]) {
    if (index!.dtype !== 'i32' || table!.shape.length === 0) {
      throw typeError(
        'gather',
        `${formatType(table!)} by ${formatType(index!)}`,
        'a table with rows and an i32 index',
        'cast the index to i32',
      )
    }
    return [
      valueType(
        table!.dtype,
        [...index!.shape, ...table!.shape.slice(1)],
        [...index!.axes, ...table!.axes.slice(1)],
      ),
    ]
  },
  gradient(node, [g]) {
    const [table, index] = node.inputs as [Node, Node]
    return [scatterAdd(index, g!, table.shape[0]!, table.axes[0]!), null]
  },
  factors(node) {
    const [table, index] = node.inputs as [Node, Node]
    const rows = index.shape.map((_, i) => `i${i}`)
    const rest = table.shape.slice(1).map((_, i) => `t${i}`)
    return { inputs: [[null, ...rest], rows], results: [[...rows, ...rest]] }
  },
  flops: () => 0,
  reference(node, [table, index]) {
    const [rows, ...rest] = node.inputs[0]!.shape
    const width = sizeOf(rest)
    const out = new Float64Array(sizeOf(node.shape))
    index!.forEach((row, i) => {
      const at = Math.min(Math.max(row, 0), rows! - 1) * width
      out.set(table!.subarray(at, at + width), i * width)
    })
    return out
  },
  samples: () => [
    {
      inputs: [valueType('f64', [5, 3]), valueType('i32', [4])],
      ranges: [
        [-2, 2],
        [0, 5],
      ],
    },
    {
      inputs: [valueType('f64', [7]), valueType('i32', [2, 3])],
      ranges: [
        [-2, 2],
        [0, 7],
      ],
    },
    {
      inputs: [valueType('f64', [4, 2, 3]), valueType('i32', [])],
      ranges: [
        [-2, 2],
        [0, 4],
      ],
    },
  ],
}

export const gather = (table: Node, index: Node): Node => apply(gatherOp, [table, index])
