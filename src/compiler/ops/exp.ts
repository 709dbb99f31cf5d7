/** Exponential. */
import type { Node } from '../graph/node.ts'
import { apply, cCall, elementwise } from './elementwise.ts'
import { mul } from './mul.ts'

export const expOp = elementwise({
  name: 'exp',
  doc: 'e^x',
  arity: 1,
  accepts: 'float',
  apply: Math.exp,
  gradient: (node, [g]) => [mul(g!, node)],
  c: cCall('exp'),
})

export const exp = (x: Node): Node => apply(expOp, [x])
