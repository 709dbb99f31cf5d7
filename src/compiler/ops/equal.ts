/** Comparison a = b. */
import type { Node } from '../graph/node.ts'
import { valueType } from '../graph/types.ts'
import { apply, elementwise } from './elementwise.ts'

export const equalOp = elementwise({
  name: 'equal',
  doc: 'a = b',
  arity: 2,
  accepts: 'any',
  result: 'bool',
  apply: (a, b) => (a === b ? 1 : 0),
  gradient: () => [null, null],
  c: ([a, b]) => `(${a} == ${b})`,
  samples: () => [
    {
      inputs: [valueType('i32', [9]), valueType('i32', [9])],
      ranges: [
        [0, 3],
        [0, 3],
      ],
    },
    { inputs: [valueType('bool', [2, 4]), valueType('bool', [2, 4])] },
  ],
})

export const equal = (a: Node, b: Node): Node => apply(equalOp, [a, b])
