/** Hyperbolic tangent. */
import type { Node } from '../graph/node.ts'
import { add } from './add.ts'
import { fill } from './constant.ts'
import { apply, cCall, elementwise } from './elementwise.ts'
import { mul } from './mul.ts'
import { neg } from './neg.ts'

export const tanhOp = elementwise({
  name: 'tanh',
  doc: 'hyperbolic tangent',
  arity: 1,
  accepts: 'float',
  apply: Math.tanh,
  gradient: (node, [g]) => [mul(g!, add(fill(1, node.type), neg(mul(node, node))))],
  c: cCall('tanh'),
})

export const tanh = (x: Node): Node => apply(tanhOp, [x])
