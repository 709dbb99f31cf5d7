/** Statistics of boards: summaries, ratios, Welch's test, the verdict on a record. */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { moments, ratio, recordVerdict, summarise, welch } from './compare.ts'
import { predictionInterval } from './regress.ts'
import { madeEntry, madeRun } from './testing.ts'
import { declaredStop, firstCrossing } from './time-to-target.ts'
import { trendOf } from './trend.ts'

const goal = { target: 2, sense: 'lower' } as const
/** Costs a step that differ by seed. */
const runs = (cost: number, count = 10, last = 1.9) =>
  Array.from({ length: count }, (_, seed) => madeRun(seed, { cost: cost * (1 + 0.01 * (seed % 3)), last }))

test('a first crossing is of the mean of two evaluations', () => {
  const curve = [3, 2.2, 1.8, 1.9].map((metric, i): [number, number, number, number] => [
    i + 1,
    i + 1,
    i + 1,
    metric,
  ])
  assert.equal(firstCrossing(curve, 2, 'lower')?.[0], 3)
  assert.equal(firstCrossing(curve, 2.6, 'lower')?.[0], 2)
  assert.equal(firstCrossing(curve, 1.7, 'lower'), null)
  assert.equal(
    firstCrossing(
      curve.map(([a, b, c, m]) => [a, b, c, -m]),
      -2,
      'higher',
    )?.[0],
    3,
  )
  assert.equal(firstCrossing(curve.slice(0, 1), 5, 'lower'), null, 'one evaluation is no mean of two')
})

test('a declared stop needs a mean below the target by a t-test, and every seed', () => {
  const ends = (metrics: readonly number[]) => metrics.map((last, seed) => madeRun(seed, { last }))
  const clear = declaredStop(ends([1.95, 1.96, 1.94, 1.95, 1.95]), 2, 'lower')!
  assert.ok(clear.beats && Math.abs(clear.mean - 1.95) < 1e-12 && clear.flop === 10_000)
  // t = 0.02 / (0.0316 / sqrt 5) = 1.414 with 4 degrees of freedom: p = 0.1151.
  const unclear = declaredStop(ends([1.94, 2.02, 1.98, 1.96, 2]), 2, 'lower')!
  assert.ok(!unclear.beats)
  assert.ok(Math.abs(unclear.p - 0.1151) < 1e-4, String(unclear.p))
  const failed = [...ends([1.9, 1.9]), madeRun(2, { ended: 'diverged' })]
  assert.equal(declaredStop(failed, 2, 'lower'), null)
})

test('a run that missed the target is kept and bounds the cost from below', () => {
  const some = [...runs(100, 4, 1.5), madeRun(4, { cost: 100, last: 2.4 })]
  const found = summarise(some, goal)
  assert.deepEqual([found.seeds, found.reached, found.flop, found.interval], [5, 4, null, null])
  const crossing = firstCrossing(some[0]!.curve, 2, 'lower')![0]
  assert.ok(found.atLeast > crossing && found.atLeast < 10_000)
})

test('the ratio is the product of its split, and its interval holds it', () => {
  const [slow, fast] = [runs(200, 5), runs(80, 5, 1.7)]
  const both = ratio(slow, fast, goal)!
  assert.ok(Math.abs(both.split.samples * both.split.perSample - both.flop) < 1e-12)
  assert.ok(Math.abs(both.split.perSample - 2.5) < 1e-9)
  assert.ok(both.interval![0] < both.flop && both.flop < both.interval![1])
  assert.ok(both.p! < 1e-6)
})

test("Welch's test is Student's where sizes and spreads are equal, and keeps to a published example", () => {
  const found = welch(moments([1, 2, 3, 4]), moments([3, 4, 5, 6]))
  assert.ok(Math.abs(found.freedom - 6) < 1e-12)
  assert.ok(Math.abs(found.t + 2 / Math.sqrt(5 / 3 / 2)) < 1e-12)
  // Unequal sizes and spreads: freedom by Welch and Satterthwaite's formula, worked by hand.
  const other = welch(moments([20, 22, 24]), moments([10, 30, 50, 70]))
  const [va, vb] = [4 / 3, 2000 / 3 / 4]
  assert.ok(Math.abs(other.t - (22 - 40) / Math.sqrt(va + vb)) < 1e-12)
  assert.ok(Math.abs(other.freedom - (va + vb) ** 2 / (va ** 2 / 2 + vb ** 2 / 3)) < 1e-9)
})

test('a record needs ten seeds, two per cent and a small p', () => {
  assert.deepEqual(recordVerdict(runs(90), runs(100), goal), { record: true, reasons: [] })
  assert.match(recordVerdict(runs(90, 5), runs(100), goal).reasons.join(), /5 seeds, where a record needs 10/)
  assert.match(recordVerdict(runs(99), runs(100), goal).reasons.join(), /99\.0 % of the standing cost/)
  const wide = Array.from({ length: 10 }, (_, seed) => madeRun(seed, { cost: seed % 2 ? 30 : 280 }))
  assert.match(recordVerdict(wide, runs(100), goal).reasons.join(), /Welch's test gives p = 0\.\d+/)
  const failing = [...runs(50, 8), madeRun(8, { last: 2.6 }), madeRun(9, { last: 2.6 })]
  assert.match(recordVerdict(failing, runs(100), goal).reasons.join(), /2 of 10 seeds did not reach 2/)
  const oneFailed = [...runs(50, 9), madeRun(9, { last: 2.6 })]
  assert.ok(recordVerdict(oneFailed, runs(100), goal).record, 'one in ten is allowed')
})

test('a cost that halves every year is found, with an interval from seeds drawn anew', () => {
  const years = [2012, 2013, 2014, 2015]
  const entries = years.map((year, i) => madeEntry(`e${year}`, `${year}-06-01`, runs(800 / 2 ** i, 5)))
  const trend = trendOf(entries, goal, 'adopted')
  assert.ok(Math.abs(trend.halving!.months - 12) < 0.02, String(trend.halving!.months))
  assert.ok(trend.nested!.low <= 12.02 && trend.nested!.high >= 11.98)
  assert.equal(trend.nested!.flat, 0)
  assert.match(trend.says, /^From e2012 .* fell 8\.00 times: a halving in 12 months by adopted dates/)
})

test('where nothing falls, no rate is given', () => {
  const flat = [2012, 2014, 2016].map((year, i) =>
    madeEntry(`e${year}`, `${year}-01-01`, runs(100 + 30 * i, 5)),
  )
  const rising = trendOf(flat, goal, 'adopted')
  assert.equal(rising.halving, null)
  assert.match(rising.says, /^No gain: e2012/)
  assert.equal(rising.nested!.median, Infinity)
  const small = [2012, 2014, 2016].map((year, i) =>
    madeEntry(`e${year}`, `${year}-01-01`, runs(100 - 5 * i, 5)),
  )
  assert.match(trendOf(small, goal, 'adopted').says, /^No gain worth a rate/)
})

test('an entry with a missed seed stands in no fit and is named', () => {
  const missed = madeEntry('missed', '2010-01-01', [...runs(10, 4), madeRun(4, { last: 2.5 })])
  const trend = trendOf([missed, madeEntry('other', '2012-01-01', runs(100, 5))], goal, 'adopted')
  assert.deepEqual(trend.censored, [missed])
  assert.deepEqual(
    trend.frontier.map(({ name }) => name),
    ['other'],
  )
})

test('the 99 % prediction interval of three costs', () => {
  // ln of 1, e, e^2: mean 1, deviation 1; t(0.995, 2) = 9.92484.
  const [low, high] = predictionInterval([1, Math.E, Math.E ** 2])!
  const reach = 9.924_843_2 * Math.sqrt(4 / 3)
  assert.ok(Math.abs(Math.log(high) - 1 - reach) < 1e-6)
  assert.ok(Math.abs(Math.log(low) - 1 + reach) < 1e-6)
  assert.equal(predictionInterval([1, 2, null, 3]), null)
})
