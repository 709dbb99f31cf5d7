/** Bytes and seconds of collectives are those of the textbook, whatever the levels of links. */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { collectiveCost, groupShape, type CollectiveKind } from './collective-cost.ts'
import { unitLinks } from './testing.ts'

const sent = (kind: CollectiveKind, bytes: number, shape: readonly number[]): number =>
  collectiveCost(kind, bytes, shape, unitLinks).levels.reduce((sum, { sentBytes }) => sum + sentBytes, 0)
const near = (a: number, b: number): void =>
  assert.ok(Math.abs(a - b) <= 1e-12 * Math.abs(b), `${a} is not ${b}`)

test('a ring over d ranks sends 2 (d - 1) / d of the value to reduce it, half of that to gather or scatter', () => {
  fc.assert(
    fc.property(
      fc.integer({ min: 1, max: 64 }),
      fc.integer({ min: 1, max: 64 }),
      fc.integer({ min: 1, max: 1e9 }),
      (inside, nodes, value) => {
        const d = inside * nodes
        near(sent('allReduce', value, [inside, nodes]), (2 * (d - 1) * value) / d)
        near(sent('allGather', value, [inside, nodes]), ((d - 1) * value) / d)
        near(sent('reduceScatter', value, [inside, nodes]), ((d - 1) * value) / d)
        near(sent('allToAll', value, [inside, nodes]), ((d - 1) * value) / d)
        near(sent('shift', value, [inside, nodes]), d === 1 ? 0 : value)
      },
    ),
  )
})

test('between nodes goes only what must', () => {
  const between = (kind: CollectiveKind): number =>
    collectiveCost(kind, 64, [4, 2], unitLinks).levels.find(({ level }) => level === 1)!.sentBytes
  assert.equal(between('allReduce'), 2 * (1 / 2) * (64 / 4))
  assert.equal(between('allToAll'), 64 * (4 / 8))
  // One rank of four crosses.
  assert.equal(between('shift'), 64 / 4)
})

test('seconds: steps of latency and bytes over bandwidth, one level after the other', () => {
  const links = unitLinks.map((link) => ({ ...link, latency: 100, achieved: 0.5 }))
  const { seconds } = collectiveCost('allReduce', 64, [4, 2], links)
  assert.equal(seconds, 2 * 3 * 100 + (2 * 0.75 * 64) / 4 + (2 * 1 * 100 + (2 * 0.5 * 16) / 0.5))
  const tree = collectiveCost('allReduce', 64, [4, 2], links, { algorithm: 'tree' })
  assert.equal(seconds - tree.seconds, 2 * (3 - 2) * 100)
  assert.deepEqual(
    tree.levels.map(({ sentBytes }) => sentBytes),
    collectiveCost('allReduce', 64, [4, 2], links).levels.map(({ sentBytes }) => sentBytes),
  )
  // From each to each, on all levels at once.
  assert.equal(collectiveCost('allToAll', 64, [4, 2], links).seconds, 100 + 32 / 0.5)
})

test('the shape of a group follows from its ranks', () => {
  const every = (step: number, count: number): number[] => Array.from({ length: count }, (_, i) => i * step)
  assert.deepEqual(groupShape(every(1, 4), unitLinks), [4, 1])
  assert.deepEqual(groupShape(every(1, 16), unitLinks), [4, 4])
  assert.deepEqual(groupShape(every(2, 8), unitLinks), [2, 4])
  assert.deepEqual(groupShape(every(4, 5), unitLinks), [1, 5])
  assert.deepEqual(groupShape([7], unitLinks), [1, 1])
  // Unequal parts: as if all were apart.
  assert.deepEqual(groupShape(every(1, 6), unitLinks), [1, 6])
})
