/** Calls take what they were measured to take, others what lies on the line of their class; rankings are compared. */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { callSeconds, fitLine, type CallSample } from './call-rates.ts'
import { rankCorrelation } from './rank-correlation.ts'

const sample = (ops: string, flops: number, bytes: number, seconds: number): CallSample => ({
  ops,
  flops,
  bytes,
  seconds,
})

test('points on a line give the line, and nothing is below zero', () => {
  const [overhead, each] = fitLine([1, 2, 5, 9].map((size) => [size, 3 + 2 * size]))
  assert.ok(Math.abs(overhead - 3) < 1e-9 && Math.abs(each - 2) < 1e-9)
  assert.deepEqual(
    fitLine([
      [1, 1],
      [3, 9],
    ]).map((x) => x >= 0),
    [true, true],
  )
  assert.equal(fitLine([[4, 2]])[1], 0.5)
})

test('a measured call takes what it took, the mean where it was met twice; another lies on the line', () => {
  const seconds = callSeconds([
    sample('attention [2]', 100, 10, 3),
    sample('attention [2]', 100, 10, 5),
    sample('dot [2] [2]', 100, 10, 4),
    sample('dot [4] [4]', 200, 10, 8),
    sample('add mul', 7, 50, 1),
  ])
  assert.equal(seconds(sample('attention [2]', 100, 10, 0)), 4)
  assert.ok(Math.abs(seconds(sample('dot [8] [8]', 400, 10, 0)) - 16) < 1e-9)
  // Whatever is no product moves bytes.
  assert.ok(Math.abs(seconds(sample('exp', 1000, 100, 0)) - 2) < 1e-9)
})

test('rankings: the same, the opposite, one exchange, and equal values', () => {
  assert.equal(rankCorrelation([1, 5, 9], [10, 20, 90]), 1)
  assert.equal(rankCorrelation([1, 5, 9], [3, 2, 1]), -1)
  // 1 - 6 sum d^2 / n (n^2 - 1)
  assert.ok(Math.abs(rankCorrelation([1, 2, 3, 4], [2, 1, 3, 4]) - (1 - (6 * 2) / (4 * 15))) < 1e-12)
  assert.ok(Math.abs(rankCorrelation([1, 1, 2], [1, 2, 3]) - Math.sqrt(3) / 2) < 1e-12)
})
