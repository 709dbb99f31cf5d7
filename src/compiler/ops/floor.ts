/** Largest integer not above x; gradient zero. */
import type { Node } from '../graph/node.ts'
import { apply, cCall, elementwise } from './elementwise.ts'

export const floorOp = elementwise({
  name: 'floor',
  doc: 'largest integer not above x',
  arity: 1,
  accepts: 'float',
  apply: Math.floor,
  gradient: () => [null],
  c: cCall('floor'),
})

export const floor = (x: Node): Node => apply(floorOp, [x])
