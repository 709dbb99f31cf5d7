/** Multiplication; on booleans, logical and. */
import type { Node } from '../graph/node.ts'
import { apply, elementwise } from './elementwise.ts'

export const mulOp = elementwise({
  name: 'mul',
  doc: 'a * b',
  arity: 2,
  accepts: 'any',
  apply: (a, b) => a * b,
  gradient: (node, [g]) => [mul(g!, node.inputs[1]!), mul(g!, node.inputs[0]!)],
  c: ([a, b]) => `(${a} * ${b})`,
})

export const mul = (a: Node, b: Node): Node => apply(mulOp, [a, b])
