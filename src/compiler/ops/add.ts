/** Addition. Subtraction is addition of a negation. */
import type { Node } from '../graph/node.ts'
import { apply, elementwise } from './elementwise.ts'

export const addOp = elementwise({
  name: 'add',
  doc: 'a + b',
  arity: 2,
  accepts: 'number',
  apply: (a, b) => a + b,
  gradient: (_, [g]) => [g!, g!],
  c: ([a, b]) => `(${a} + ${b})`,
})

export const add = (a: Node, b: Node): Node => apply(addOp, [a, b])
