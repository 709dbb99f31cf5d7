/** Natural logarithm. */
import type { Node } from '../graph/node.ts'
import { div } from './div.ts'
import { apply, cCall, elementwise } from './elementwise.ts'

export const logOp = elementwise({
  name: 'log',
  doc: 'ln x',
  arity: 1,
  accepts: 'float',
  apply: Math.log,
  gradient: (node, [g]) => [div(g!, node.inputs[0]!)],
  c: cCall('log'),
  ranges: [[0.2, 3]],
})

export const log = (x: Node): Node => apply(logOp, [x])
