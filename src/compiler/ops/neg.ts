/** Negation. A sign flip folds into whatever uses it and costs no FLOP, so that a - b costs one, as it should. */
import type { Node } from '../graph/node.ts'
import { apply, elementwise } from './elementwise.ts'

export const negOp = elementwise({
  name: 'neg',
  doc: '-x',
  arity: 1,
  accepts: 'number',
  counted: false,
  apply: (x) => -x,
  gradient: (_, [g]) => [neg(g!)],
  c: ([x]) => `(-${x})`,
})

export const neg = (x: Node): Node => apply(negOp, [x])
