/** The larger of two values. Where they tie, the gradient goes to the first. */
import type { Node } from '../graph/node.ts'
import { fill } from './constant.ts'
import { apply, elementwise } from './elementwise.ts'
import { less } from './less.ts'
import { where } from './where.ts'

export const maxOp = elementwise({
  name: 'max',
  doc: 'larger of a and b',
  arity: 2,
  accepts: 'number',
  apply: (a, b) => (a < b ? b : a),
  gradient: (node, [g]) => {
    const [a, b] = node.inputs as [Node, Node]
    const second = less(a, b)
    const zero = fill(0, g!.type)
    return [where(second, zero, g!), where(second, g!, zero)]
  },
  c: ([a, b]) => `(${a} < ${b} ? ${b} : ${a})`,
})

export const max = (a: Node, b: Node): Node => apply(maxOp, [a, b])
