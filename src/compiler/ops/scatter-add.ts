/**
 * Adds rows into a table of zeros: result[index[i…], :] += updates[i…, :]. The transpose of `gather`. Rows are added
 * in index order, so the result does not depend on how many threads work on it; with `leaves` (leaves.ts), in the order
 * of leaves along the first axis of the index.
 */
import type { Node } from '../graph/node.ts'
import type { Op } from '../graph/op.ts'
import {
  formatType,
  isFloat,
  sameShape,
  sizeOf,
  typeError,
  valueType,
  type AxisName,
} from '../graph/types.ts'
import { apply } from './elementwise.ts'
import { gather } from './gather.ts'
import { sumInLeaves } from './leaves.ts'

export const scatterAddOp: Op = {
  name: 'scatterAdd',
  doc: 'add rows into a table of zeros',
  kind: 'index',
  infer([index, updates], attrs) {
    const rank = index!.shape.length
    if (index!.dtype !== 'i32' || !sameShape(updates!.shape.slice(0, rank), index!.shape)) {
      throw typeError(
        'scatterAdd',
        `${formatType(index!)} and ${formatType(updates!)}`,
        'an i32 index whose shape leads the updates',
        'reshape one side',
      )
    }
    return [
      valueType(
        updates!.dtype,
        [attrs['rows'] as number, ...updates!.shape.slice(rank)],
        [attrs['axis'] as AxisName, ...updates!.axes.slice(rank)],
      ),
    ]
  },
  gradient: (node, [g]) => [null, gather(g!, node.inputs[0]!)],
  factors(node) {
    const [index, updates] = node.inputs as [Node, Node]
    const rows = index.shape.map((_, i) => `i${i}`)
    const rest = updates.shape.slice(rows.length).map((_, i) => `t${i}`)
    return { inputs: [rows, [...rows, ...rest]], results: [[null, ...rest]], reduce: 'sum' }
  },
  flops: (node) => (isFloat(node.dtype) ? sizeOf(node.inputs[1]!.shape) : 0),
  reference(node, [index, updates]) {
    return sumInLeaves(node, index!.length, (from, to) => {
      const out = new Float64Array(sizeOf(node.shape))
      const width = out.length / node.shape[0]!
      for (let i = from; i < to; i++) {
        const at = Math.min(Math.max(index![i]!, 0), node.shape[0]! - 1) * width
        for (let j = 0; j < width; j++) out[at + j]! += updates![i * width + j]!
      }
      return out
    })
  },
  samples: () => [
    {
      inputs: [valueType('i32', [6]), valueType('f64', [6, 3])],
      attrs: { rows: 4, axis: null },
      ranges: [
        [0, 4],
        [-2, 2],
      ],
    },
    {
      inputs: [valueType('i32', [2, 3]), valueType('f64', [2, 3])],
      attrs: { rows: 5, axis: null },
      ranges: [
        [0, 5],
        [-2, 2],
      ],
    },
    {
      inputs: [valueType('i32', [4, 6]), valueType('f64', [4, 6, 3])],
      attrs: { rows: 5, axis: null, leaves: 4 },
      ranges: [
        [0, 5],
        [-2, 2],
      ],
    },
  ],
}

export const scatterAdd = (index: Node, updates: Node, rows: number, axis: AxisName = null): Node =>
  apply(scatterAddOp, [index, updates], { rows, axis })
