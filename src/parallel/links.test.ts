/** Links are measured: every size is there; and what a wire is made of that, by hand. */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { measureLink, typicalLink, wireOf, type LinkMeasure } from './links.ts'

test('messages between two ranks of this process have a latency and a bandwidth', async () => {
  const { latency, bandwidth, samples } = await measureLink(2)
  assert.deepEqual(
    samples.map(({ bytes }) => bytes),
    [64, 4096, 16384, 65536, 262144, 1048576, 4194304],
  )
  assert.ok(latency > 0 && Number.isFinite(latency))
  assert.ok(bandwidth > 0 && Number.isFinite(bandwidth))
  assert.ok(samples.every(({ seconds }) => seconds > 0))
})

/** Seconds of messages of 64, 1000 and 2000 bytes. */
const measureOf = (...seconds: readonly [number, number, number]): LinkMeasure => ({
  latency: Math.min(...seconds),
  bandwidth: 1000 / (seconds[2] - seconds[1]),
  samples: [64, 1000, 2000].map((bytes, i) => ({ bytes, seconds: seconds[i]! })),
})

test('a message holds its port for what is over the latency, shared among those who sent at once', () => {
  const wire = wireOf('cable', measureOf(10, 30, 70), 2)
  assert.equal(wire.latency, 10)
  assert.deepEqual([64, 1000, 1500, 2000, 3000].map(wire.busy), [0, 10, 20, 30, 50])
})

test('a smallest message that had to wait for its core makes no other one free', () => {
  const wire = wireOf('cable', measureOf(50, 30, 70), 1)
  assert.equal(wire.latency, 30)
  assert.deepEqual([1000, 1500, 2000].map(wire.busy), [0, 20, 40])
})

test('of several probes each size counts with its middle, and the latency is the least of all', () => {
  const { latency, bandwidth, samples } = typicalLink([
    measureOf(50, 30, 70),
    measureOf(10, 40, 80),
    measureOf(20, 35, 99),
  ])
  assert.deepEqual(
    samples.map(({ seconds }) => seconds),
    [20, 35, 80],
  )
  assert.deepEqual([latency, bandwidth], [10, 1000 / 45])
})
