/**
 * Multiplication; on booleans, logical and. In C a float product is rounded by itself, never together with a sum that it
 * is fused with: a value has the same bits wherever it is computed, stored or again.
 */
import type { Node } from '../graph/node.ts'
import { isFloat } from '../graph/types.ts'
import { apply, elementwise } from './elementwise.ts'

export const mulOp = elementwise({
  name: 'mul',
  doc: 'a * b',
  arity: 2,
  accepts: 'any',
  apply: (a, b) => a * b,
  gradient: (node, [g]) => [mul(g!, node.inputs[1]!), mul(g!, node.inputs[0]!)],
  c: ([a, b], dtype) =>
    isFloat(dtype) ? `product_${dtype === 'f64' ? 'f64' : 'f32'}(${a}, ${b})` : `(${a} * ${b})`,
})

export const mul = (a: Node, b: Node): Node => apply(mulOp, [a, b])
