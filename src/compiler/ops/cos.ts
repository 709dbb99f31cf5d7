/** Cosine, radians. */
import type { Node } from '../graph/node.ts'
import { apply, cCall, elementwise } from './elementwise.ts'
import { mul } from './mul.ts'
import { neg } from './neg.ts'
import { sin } from './sin.ts'

export const cosOp = elementwise({
  name: 'cos',
  doc: 'cos x',
  arity: 1,
  accepts: 'float',
  apply: Math.cos,
  gradient: (node, [g]) => [neg(mul(g!, sin(node.inputs[0]!)))],
  c: cCall('cos'),
})

export const cos = (x: Node): Node => apply(cosOp, [x])
