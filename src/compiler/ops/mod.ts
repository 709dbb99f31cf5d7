/** Remainder with the sign of the dividend, as C's % and fmod. */
import type { Node } from '../graph/node.ts'
import { valueType } from '../graph/types.ts'
import { apply, elementwise } from './elementwise.ts'

export const modOp = elementwise({
  name: 'mod',
  doc: 'remainder of an integer division, sign of the dividend',
  arity: 2,
  accepts: 'number',
  apply: (a, b) => a % b,
  c: ([a, b], dtype) => (dtype === 'i32' || dtype === 'u8' ? `(${a} % ${b})` : `fmod(${a}, ${b})`),
  samples: () => [
    {
      inputs: [valueType('i32', [6]), valueType('i32', [6])],
      ranges: [
        [-9, 9],
        [1, 5],
      ],
    },
    {
      inputs: [valueType('i32', [2, 3]), valueType('i32', [2, 3])],
      ranges: [
        [0, 100],
        [1, 50],
      ],
    },
  ],
})

export const mod = (a: Node, b: Node): Node => apply(modOp, [a, b])
