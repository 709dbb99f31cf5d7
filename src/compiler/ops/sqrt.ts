/** Square root. */
import type { Node } from '../graph/node.ts'
import { fill } from './constant.ts'
import { div } from './div.ts'
import { apply, cCall, elementwise } from './elementwise.ts'
import { mul } from './mul.ts'

export const sqrtOp = elementwise({
  name: 'sqrt',
  doc: 'square root',
  arity: 1,
  accepts: 'float',
  apply: Math.sqrt,
  gradient: (node, [g]) => [div(mul(g!, fill(0.5, node.type)), node)],
  c: cCall('sqrt'),
  ranges: [[0.2, 3]],
})

export const sqrt = (x: Node): Node => apply(sqrtOp, [x])
