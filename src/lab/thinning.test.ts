/** Smoothing against its definition, without bias, over gaps; thinning keeps every extreme and never invents a value. */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { smooth, thin } from './thinning.ts'

const curve = (y: readonly number[], x = y.map((_, i) => i)): { x: Float64Array; y: Float64Array } => ({
  x: Float64Array.from(x),
  y: Float64Array.from(y),
})

test('property: smoothing is the weighted mean of what came before', () => {
  fc.assert(
    fc.property(
      fc.array(fc.double({ min: -9, max: 9, noNaN: true }), { minLength: 3, maxLength: 40 }),
      fc.double({ min: 0.05, max: 0.98, noNaN: true }),
      (values, strength) => {
        const { y } = smooth(curve(values), strength)
        for (const [i, got] of y.entries()) {
          const weights = values.slice(0, i + 1).map((_, j) => strength ** (i - j))
          const sum = weights.reduce((total, weight) => total + weight, 0)
          const mean = weights.reduce((total, weight, j) => total + weight * values[j]!, 0) / sum
          assert.ok(Math.abs(got - mean) < 1e-9, `${got} is ${mean}`)
        }
      },
    ),
  )
})

test('a constant stays what it is from the first point, and a gap stays a gap', () => {
  const { y } = smooth(curve([5, 5, Number.NaN, 5, 5]), 0.9)
  assert.deepEqual(
    [...y].map((v) => (Number.isNaN(v) ? null : Number(v.toFixed(9)))),
    [5, 5, null, 5, 5],
  )
})

test('property: thinning keeps the extremes of what is seen, in order, and only points that were there', () => {
  fc.assert(
    fc.property(
      fc.array(fc.double({ min: -9, max: 9 }), { minLength: 1, maxLength: 400 }),
      fc.nat(400),
      fc.nat(400),
      (values, a, b) => {
        const whole = curve(values)
        const [from, to] = [Math.min(a, b), Math.max(a, b)]
        const { x, y } = thin(whole, from, to, 10)
        for (let i = 0; i < x.length; i++) {
          assert.ok(Object.is(y[i], whole.y[x[i]!]))
          if (i > 0) assert.ok(x[i]! > x[i - 1]!, 'ascending')
        }
        const seen = values.filter((v, i) => i >= from && i <= to && !Number.isNaN(v))
        if (seen.length > 0) {
          assert.ok([...y].includes(Math.min(...seen)))
          assert.ok([...y].includes(Math.max(...seen)))
        }
        assert.ok(x.length <= 33)
      },
    ),
  )
})
