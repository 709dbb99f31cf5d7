/** Comparison a < b; the other orderings are made from it. */
import type { Node } from '../graph/node.ts'
import { apply, elementwise } from './elementwise.ts'

export const lessOp = elementwise({
  name: 'less',
  doc: 'a < b',
  arity: 2,
  accepts: 'number',
  result: 'bool',
  apply: (a, b) => (a < b ? 1 : 0),
  gradient: () => [null, null],
  c: ([a, b]) => `(${a} < ${b})`,
})

export const less = (a: Node, b: Node): Node => apply(lessOp, [a, b])
