/** Error function, for the exact GELU. */
import type { Node } from '../graph/node.ts'
import { fill } from './constant.ts'
import { apply, cCall, elementwise } from './elementwise.ts'
import { exp } from './exp.ts'
import { mul } from './mul.ts'
import { neg } from './neg.ts'

export const erfOp = elementwise({
  name: 'erf',
  doc: 'error function',
  arity: 1,
  accepts: 'float',
  apply: erf64,
  gradient: (node, [g]) => {
    const x = node.inputs[0]!
    return [mul(g!, mul(fill(2 / Math.sqrt(Math.PI), node.type), exp(neg(mul(x, x)))))]
  },
  c: cCall('erf'),
})

export const erf = (x: Node): Node => apply(erfOp, [x])

/** erf in float64: Maclaurin series near zero, Lentz's continued fraction for erfc beyond (relative error < 1e-14). */
function erf64(x: number): number {
  const a = Math.abs(x)
  if (Number.isNaN(x)) return Number.NaN
  if (a > 6) return Math.sign(x)
  if (a < 2.5) {
    let term = a
    let sum = a
    for (let n = 1; Math.abs(term) > 1e-18 * Math.abs(sum); n++) {
      term *= (-a * a) / n
      sum += term / (2 * n + 1)
    }
    return Math.sign(x) * ((2 / Math.sqrt(Math.PI)) * sum)
  }
  let fraction = 0
  for (let k = 80; k >= 1; k--) fraction = k / 2 / (a + fraction)
  return Math.sign(x) * (1 - Math.exp(-a * a) / Math.sqrt(Math.PI) / (a + fraction))
}
