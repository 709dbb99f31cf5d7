/** The fit against laws that are known. */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { fitLaw, forecast, lawAt, risesIn } from './law.ts'

const budgets = [1e11, 3e11, 1e12, 3e12, 1e13, 3e13]
const exact = { a: 30, b: -0.2, c: 0.95 }
const pointsOf = (law: typeof exact, noise: readonly number[] = []) =>
  budgets.map((budget, i) => ({ budget, flops: budget, loss: lawAt(law, budget) * (1 + (noise[i] ?? 0)) }))

test('a law with a constant is found again from its own points, and what it says of ten times the compute', () => {
  const found = fitLaw(pointsOf(exact), true)
  assert.ok(Math.abs(found.b - exact.b) < 1e-6, `b = ${found.b}`)
  assert.ok(Math.abs(found.c - exact.c) < 1e-6, `c = ${found.c}`)
  assert.ok(Math.abs(found.a / exact.a - 1) < 1e-4, `a = ${found.a}`)
  const { loss, interval } = forecast(pointsOf(exact), 3e14, true, { draws: 20 })
  assert.ok(Math.abs(loss - lawAt(exact, 3e14)) < 1e-6)
  assert.ok(interval[1] - interval[0] < 1e-5)
})

test('a pure power law is found with and without a constant, which then is 0 and never below', () => {
  const pure = { a: 40, b: -0.13, c: 0 }
  const without = fitLaw(pointsOf(pure), false)
  assert.ok(Math.abs(without.b - pure.b) < 1e-6 && without.c === 0)
  const bent = pointsOf(
    pure,
    budgets.map((_, i) => 0.99 ** (i * i) - 1),
  )
  assert.equal(fitLaw(bent, true).c, 0)
})

test('seeds of one budget weigh as one run', () => {
  const once = pointsOf(exact, [0.01, -0.01, 0.005, 0, 0.002, -0.003])
  const thrice = [once[0]!, once[0]!, ...once]
  assert.ok(Math.abs(fitLaw(once, true).c - fitLaw(thrice, true).c) < 1e-5)
})

test('with noise the interval holds the law, and the same seed gives the same interval', () => {
  const noisy = pointsOf(exact, [0.004, -0.003, 0.002, -0.004, 0.003, -0.001])
  const first = forecast(noisy, 3e14, true, { draws: 200 })
  const truth = lawAt(exact, 3e14)
  assert.ok(first.interval[0] < truth && truth < first.interval[1])
  assert.deepEqual(forecast(noisy, 3e14, true, { draws: 200 }), first)
})

test('too few budgets, and losses that are no numbers, are refused', () => {
  assert.throws(() => fitLaw(pointsOf(exact).slice(0, 3), true), /got 3 budgets; expected at least 4/)
  const broken = [...pointsOf(exact), { budget: 1e14, flops: 1e14, loss: NaN }]
  assert.throws(() => fitLaw(broken, true), /a loss of NaN for 100000000000000 FLOP/)
})

test('a loss that rises is named, and one that rises throughout is not forced into the law', () => {
  const bumped = pointsOf(exact, [0, 0, 0.2])
  assert.deepEqual(risesIn(bumped), [{ from: 3e11, to: 1e12 }])
  assert.deepEqual(risesIn(pointsOf(exact)), [])
  const rising = budgets.map((budget, i) => ({ budget, flops: budget, loss: 1 + 0.1 * i }))
  assert.throws(
    () => fitLaw(rising, true),
    /got losses that do not fall with compute, up from 100000000000 to 300000000000 FLOP/,
  )
})
