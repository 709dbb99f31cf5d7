/** Division; on integers, truncated towards zero. */
import type { Node } from '../graph/node.ts'
import type { Op } from '../graph/op.ts'
import { isFloat, valueType } from '../graph/types.ts'
import { apply, elementwise } from './elementwise.ts'
import { mul } from './mul.ts'
import { neg } from './neg.ts'

const base = elementwise({
  name: 'div',
  doc: 'a / b (integers: truncated towards zero)',
  arity: 2,
  accepts: 'number',
  apply: (a, b) => a / b,
  // d(a/b)/db = -(a/b)/b: reuses the quotient, which the forward pass has anyway.
  gradient: (node, [g]) => {
    const scaled = div(g!, node.inputs[1]!)
    return [scaled, neg(mul(scaled, node))]
  },
  c: ([a, b]) => `(${a} / ${b})`,
  samples: () => [
    ...[[], [5], [2, 3]].map((shape) => ({
      inputs: [valueType('f64', shape), valueType('f64', shape)],
      ranges: [[-2, 2] as const, [0.5, 2] as const],
    })),
    { inputs: [valueType('i32', [7]), valueType('i32', [7])], ranges: [[-20, 20] as const, [1, 6] as const] },
  ],
})

export const divOp: Op = {
  ...base,
  reference(node, inputs) {
    const out = base.reference!(node, inputs)
    return isFloat(node.dtype) ? out : out.map(Math.trunc)
  },
}

export const div = (a: Node, b: Node): Node => apply(divOp, [a, b])
