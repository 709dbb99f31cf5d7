/** Largest element over axes. Where several elements tie, they share the gradient equally. */
import type { Node } from '../graph/node.ts'
import type { Op } from '../graph/op.ts'
import { isFloat, sizeOf, valueType } from '../graph/types.ts'
import { broadcast } from './broadcast.ts'
import { cast } from './cast.ts'
import { div } from './div.ts'
import { apply } from './elementwise.ts'
import { equal } from './equal.ts'
import { mul } from './mul.ts'
import { foldReduce, inferReduce, keptAxes, reduceFactors, reducedAxes } from './reduce.ts'
import { sum } from './sum.ts'

export const reduceMaxOp: Op = {
  name: 'reduceMax',
  doc: 'largest element over axes',
  kind: 'reduce',
  infer: ([x], attrs) => inferReduce('reduceMax', x!, attrs['axes'] as number[]),
  gradient: (node, [g]) => {
    const x = node.inputs[0]!
    const up = (value: Node): Node => broadcast(value, x.shape, keptAxes(node), x.axes)
    const winners = cast(equal(x, up(node)), x.dtype)
    return [mul(winners, up(div(g!, sum(winners, reducedAxes(node)))))]
  },
  factors: (node) => reduceFactors(node, 'max'),
  flops: (node) => (isFloat(node.dtype) ? sizeOf(node.inputs[0]!.shape) : 0),
  reference: (node, [x]) => foldReduce(node, x!, -Infinity, (a, b) => (a < b ? b : a)),
  samples: () => [
    { inputs: [valueType('f64', [7])], attrs: { axes: [0] } },
    { inputs: [valueType('f64', [3, 5])], attrs: { axes: [1] } },
    { inputs: [valueType('f64', [3, 5])], attrs: { axes: [0] } },
    { inputs: [valueType('f64', [2, 19])], attrs: { axes: [1] } },
  ],
}

export const reduceMax = (x: Node, axes: readonly number[]): Node =>
  axes.length === 0 ? x : apply(reduceMaxOp, [x], { axes: axes.toSorted((a, b) => a - b) })
