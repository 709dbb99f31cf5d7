/** Student's t against its density and printed tables; lines and resamples against what can be worked out by hand. */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { pairsBootstrap, residualBootstrap } from './bootstrap.ts'
import { fitHalving, frontierOf, monthsOf } from './halving.ts'
import { fitLine, quantile, slopeInterval, slopeOf, testSlopeBelow, theilSen } from './line-fit.ts'
import { studentCdf, studentQuantile } from './student.ts'

const near = (got: number, expected: number, within: number): void =>
  assert.ok(Math.abs(got - expected) <= within, `${got} is not within ${within} of ${expected}`)

test("Student's t: closed forms, and the printed table", () => {
  for (const t of [-3, -0.5, 0, 1, 12]) {
    near(studentCdf(t, 1), 0.5 + Math.atan(t) / Math.PI, 1e-13)
    near(studentCdf(t, 2), 0.5 + t / (2 * Math.sqrt(2 + t * t)), 1e-13)
  }
  near(studentQuantile(0.975, 4), 2.776445105, 1e-9)
  near(studentQuantile(0.975, 14), 2.144786688, 1e-9)
  near(studentQuantile(0.01, 10), -2.763769458, 1e-9)
  near(studentQuantile(0.975, 1e6), 1.9599664, 1e-6)
})

test("Student's t: the integral of its density", () => {
  // Of 5 degrees of freedom: 8 / (3 pi sqrt(5) (1 + t^2 / 5)^3).
  const density = (t: number): number => 8 / (3 * Math.PI * Math.sqrt(5) * (1 + (t * t) / 5) ** 3)
  const steps = 2000
  let sum = 0
  for (let i = 0; i <= steps; i++) {
    sum += density((1.7 * i) / steps) * (i === 0 || i === steps ? 1 : i % 2 === 1 ? 4 : 2)
  }
  near(studentCdf(1.7, 5), 0.5 + (sum * 1.7) / steps / 3, 1e-12)
})

const points = [
  { x: 0, y: 1 },
  { x: 1, y: 3 },
  { x: 2, y: 4 },
]

test('a line through three points, by hand', () => {
  const line = fitLine(points)
  near(line.slope, 1.5, 1e-15)
  near(line.intercept, 7 / 6, 1e-15)
  // Residuals -1/6, 1/3, -1/6: squares 1/6, one degree of freedom, spread 2.
  near(line.slopeError, Math.sqrt(1 / 12), 1e-15)
  near(line.r2, 1 - 1 / 6 / (14 / 3), 1e-15)
  const [low, high] = slopeInterval(line)
  near((high - low) / 2, Math.tan(0.475 * Math.PI) * Math.sqrt(1 / 12), 1e-12)
  near(testSlopeBelow(line, 1.5).p, 0.5, 1e-12)
  near(theilSen(points), 1.5, 1e-15)
  assert.equal(slopeOf(points.map(({ y }) => ({ x: 0.1, y }))), null)
  assert.equal(quantile([1, 2, 4], 0.75), 3)
})

test('all resamples are taken once: three of 27 have no slope, and the middle is symmetric', () => {
  const straight = [0, 1, 2].map((x) => ({ x, y: 5 - 2 * x }))
  const all = pairsBootstrap(straight)
  assert.deepEqual([all.resamples, all.degenerate, all.exact], [27, 3, true])
  near(all.low, -2, 1e-12)
  near(all.high, -2, 1e-12)
  assert.deepEqual(residualBootstrap(points).resamples, 27)
  // The slope is (r3 - r1) / 2 away from 1.5; residuals are 1/3 with chance 1/3, else -1/6.
  near(residualBootstrap(points).high, 1.75, 1e-12)
  near(residualBootstrap(points).low, 1.25, 1e-12)
})

test('drawn resamples are those of the seed, and near all of them', () => {
  const some = [3, 1, 4, 1, 5, 9].map((y, x) => ({ x, y: y + 2 * x }))
  const [all, drawn] = [pairsBootstrap(some), pairsBootstrap(some, { seed: 7 })]
  assert.deepEqual(drawn, pairsBootstrap(some, { seed: 7 }))
  assert.notEqual(drawn.median, pairsBootstrap(some, { seed: 8 }).median)
  assert.deepEqual([drawn.exact, drawn.resamples], [false, 10_000])
  for (const key of ['low', 'median', 'high'] as const) near(drawn[key], all[key], 0.1)
})

test('a cost that halves every 10 months, and one that does not fall', () => {
  const dates = ['2012-06-01', '2013-06-01', '2015-01-17', '2019-05-28']
  const falling = dates.map((date) => ({ name: date, date, cost: 8 * 2 ** (-monthsOf(date) / 10) }))
  near(fitHalving(falling).months, 10, 1e-9)
  const rising = dates.map((date, i) => ({ name: date, date, cost: 1 + i }))
  assert.equal(fitHalving(rising).months, Infinity)
  assert.deepEqual(
    frontierOf([...rising, { name: 'late', date: '2020-01-01', cost: 0.5 }]).map(({ name }) => name),
    ['2012-06-01', 'late'],
  )
  assert.throws(
    () => fitHalving(falling.with(1, { ...falling[1]!, cost: NaN })),
    /cost of 2013-06-01: got NaN/,
  )
  assert.throws(() => fitHalving(falling.slice(2)), /got 2 rows; expected at least 3/)
})
