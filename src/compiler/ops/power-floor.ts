/** Largest power of two not above |x|: the exponent without the digits. Gradient zero. */
import { powerFloorOf } from '../graph/fp8.ts'
import type { Node } from '../graph/node.ts'
import { apply, cCall, elementwise } from './elementwise.ts'

export const powerFloorOp = elementwise({
  name: 'powerFloor',
  doc: 'largest power of two not above |x|',
  arity: 1,
  accepts: 'float',
  apply: powerFloorOf,
  gradient: () => [null],
  c: cCall('power_floor'),
})

export const powerFloor = (x: Node): Node => apply(powerFloorOp, [x])
