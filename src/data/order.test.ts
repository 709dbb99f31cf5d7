/** The shuffled order is a permutation, an epoch visits every window once, and evaluation counts every token once. */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { UserError } from '../errors.ts'
import { batchStarts, evaluationWindows, permuteIndex, windowsPerEpoch } from './order.ts'

const range = (n: number): number[] => Array.from({ length: n }, (_, i) => i)
const ascending = (a: number, b: number): number => a - b

test('permuteIndex is a permutation for every size, seed and epoch', () => {
  for (let n = 1; n <= 70; n++) {
    const order = range(n).map((i) => permuteIndex(i, n, 1, 0))
    assert.deepEqual(order.toSorted(ascending), range(n))
  }
  fc.assert(
    fc.property(fc.integer({ min: 1, max: 3000 }), fc.nat(), fc.nat({ max: 1000 }), (n, seed, epoch) => {
      const order = range(n).map((i) => permuteIndex(i, n, seed, epoch))
      assert.deepEqual(order.toSorted(ascending), range(n))
    }),
    { numRuns: 60 },
  )
})

test('permuteIndex stays in range and apart for sizes that no array could hold', () => {
  for (const n of [2 ** 31 + 11, 2 ** 40 - 1, 2 ** 50 + 1, 2 ** 52]) {
    const places = range(1000).map((i) => permuteIndex(n - 1 - i, n, 7, 3))
    assert.equal(new Set(places).size, 1000)
    assert.ok(places.every((place) => Number.isInteger(place) && place >= 0 && place < n))
  }
})

test('the order is well mixed: places, neighbours and epochs look independent', () => {
  const n = 1024
  const buckets = new Float64Array(64)
  let neighbours = 0
  let fixed = 0
  let agree = 0
  const seeds = 40
  for (let seed = 0; seed < seeds; seed++) {
    const order = range(n).map((i) => permuteIndex(i, n, seed, 0))
    const other = range(n).map((i) => permuteIndex(i, n, seed, 1))
    order.forEach((place, i) => {
      buckets[(i >> 7) * 8 + (place >> 7)]!++
      if (place === i) fixed++
      if (place === other[i]) agree++
      if (Math.abs(place - (order[i + 1] ?? Infinity)) === 1) neighbours++
    })
  }
  const expected = (seeds * n) / 64
  const chiSquared = buckets.reduce((sum, count) => sum + (count - expected) ** 2 / expected, 0)
  // 49 degrees of freedom: 95 is beyond one in ten thousand.
  assert.ok(chiSquared < 95, `chi squared ${chiSquared}`)
  // Poisson with means 40, 40 and 80: six deviations.
  assert.ok(Math.abs(fixed - 40) < 40, `${fixed} fixed points`)
  assert.ok(Math.abs(agree - 40) < 40, `${agree} agreements between epochs`)
  assert.ok(Math.abs(neighbours - 80) < 54, `${neighbours} neighbours`)
})

const stream = fc
  .record({
    context: fc.integer({ min: 1, max: 16 }),
    extra: fc.integer({ min: 1, max: 200 }),
    batch: fc.integer({ min: 1, max: 9 }),
  })
  .map(({ context, extra, batch }) => ({ tokens: context + extra, context, batch }))

test('an epoch takes every one of its windows once, all inside the stream', () => {
  fc.assert(
    fc.property(stream, fc.nat(), (query, seed) => {
      const { tokens, context, batch } = query
      const perEpoch = windowsPerEpoch(tokens, context)
      const steps = Math.ceil((3 * perEpoch) / batch)
      const starts = range(steps).flatMap((step) => batchStarts({ ...query, seed, step }))
      for (let epoch = 0; epoch < 3; epoch++) {
        const sorted = starts.slice(epoch * perEpoch, (epoch + 1) * perEpoch).toSorted(ascending)
        assert.ok(sorted[0]! >= 0 && sorted.at(-1)! + context < tokens)
        // Same offset throughout, so consecutive windows neither overlap nor leave a gap.
        sorted.forEach((start, k) => assert.equal(start, sorted[0]! + k * context))
      }
    }),
  )
})

test('offsets move from epoch to epoch and reach every token', () => {
  const query = { tokens: 101, context: 10, batch: 9, seed: 5 }
  const offsets = new Set(range(200).map((step) => Math.min(...batchStarts({ ...query, step })) % 10))
  assert.deepEqual([...offsets].toSorted(ascending), range(10))
})

/** Recorded once, for the query below. */
const FROZEN = [924_412, 4092, 366_332, 878_844]

test('a step depends on nothing but seed and step', () => {
  const query = { tokens: 1_003_854, context: 256, batch: 4, seed: 1337 }
  assert.deepEqual(batchStarts({ ...query, step: 12 }), batchStarts({ ...query, step: 12 }))
  assert.notDeepEqual(batchStarts({ ...query, step: 12 }), batchStarts({ ...query, step: 13 }))
  assert.notDeepEqual(batchStarts({ ...query, step: 12 }), batchStarts({ ...query, seed: 1338, step: 12 }))
  // Frozen: a change here would silently give resumed runs other data.
  assert.deepEqual(batchStarts({ ...query, step: 0 }), FROZEN)
})

test('evaluation predicts every token after the first exactly once', () => {
  fc.assert(
    fc.property(stream, (query) => {
      const { tokens, context, batch } = query
      const counts = new Int32Array(tokens)
      let batches = 0
      for (const { starts, weights } of evaluationWindows(query)) {
        batches++
        assert.equal(starts.length, batch)
        assert.equal(weights.length, batch * context)
        starts.forEach((start, row) => {
          assert.ok(start >= 0 && start + context < tokens)
          for (let t = 0; t < context; t++) counts[start + t + 1]! += weights[row * context + t]!
        })
      }
      assert.deepEqual([...counts], [0, ...Array<number>(tokens - 1).fill(1)])
      assert.equal(batches, Math.ceil((tokens - 1) / context / batch))
    }),
  )
})

const refused = (error: unknown): boolean =>
  error instanceof UserError && /got 8 tokens; expected at least 9/.test(error.message)

test('a stream shorter than a window is refused', () => {
  assert.throws(() => batchStarts({ tokens: 8, context: 8, batch: 1, seed: 0, step: 0 }), refused)
  assert.throws(() => [...evaluationWindows({ tokens: 8, context: 8, batch: 1 })], refused)
  assert.deepEqual(batchStarts({ tokens: 9, context: 8, batch: 2, seed: 0, step: 3 }), [0, 0])
})
