/** Sum over axes. Costs one addition an input element. With `leaves` (leaves.ts) the first axis is one of those summed. */
import type { Node } from '../graph/node.ts'
import type { Op } from '../graph/op.ts'
import { isFloat, sizeOf, valueType } from '../graph/types.ts'
import { broadcast } from './broadcast.ts'
import { apply } from './elementwise.ts'
import { sumInLeaves } from './leaves.ts'
import { foldReduce, inferReduce, keptAxes, reduceFactors } from './reduce.ts'

export const sumOp: Op = {
  name: 'sum',
  doc: 'sum over axes',
  kind: 'reduce',
  infer: ([x], attrs) => inferReduce('sum', x!, attrs['axes'] as number[]),
  gradient: (node, [g]) => {
    const x = node.inputs[0]!
    return [broadcast(g!, x.shape, keptAxes(node), x.axes)]
  },
  factors: (node) => reduceFactors(node, 'sum'),
  flops: (node) => (isFloat(node.dtype) ? sizeOf(node.inputs[0]!.shape) : 0),
  reference: (node, [x]) =>
    sumInLeaves(node, x!.length, (from, to) => foldReduce(node, x!, 0, (a, b) => a + b, from, to)),
  samples: () => [
    { inputs: [valueType('f64', [7])], attrs: { axes: [0] } },
    { inputs: [valueType('f64', [3, 5])], attrs: { axes: [1] } },
    { inputs: [valueType('f64', [3, 5])], attrs: { axes: [0] } },
    { inputs: [valueType('f64', [2, 3, 4])], attrs: { axes: [0, 2] } },
    { inputs: [valueType('f64', [2, 3, 4])], attrs: { axes: [1] } },
    { inputs: [valueType('f64', [4, 37])], attrs: { axes: [0, 1] } },
    { inputs: [valueType('f64', [8, 5])], attrs: { axes: [0], leaves: 4 } },
    { inputs: [valueType('f64', [4, 3, 5])], attrs: { axes: [0, 1], leaves: 2 } },
    { inputs: [valueType('f64', [8, 3])], attrs: { axes: [0, 1], leaves: 8 } },
    { inputs: [valueType('i32', [3, 4])], attrs: { axes: [1] }, ranges: [[-9, 9]] },
  ],
}

export const sum = (x: Node, axes: readonly number[]): Node =>
  axes.length === 0 ? x : apply(sumOp, [x], { axes: axes.toSorted((a, b) => a - b) })
