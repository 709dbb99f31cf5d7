/** Sine, radians. */
import type { Node } from '../graph/node.ts'
import { cos } from './cos.ts'
import { apply, cCall, elementwise } from './elementwise.ts'
import { mul } from './mul.ts'

export const sinOp = elementwise({
  name: 'sin',
  doc: 'sin x',
  arity: 1,
  accepts: 'float',
  apply: Math.sin,
  gradient: (node, [g]) => [mul(g!, cos(node.inputs[0]!))],
  c: cCall('sin'),
})

export const sin = (x: Node): Node => apply(sinOp, [x])
