/**
 * The memory plan for random lifetimes: no two storages that are alive at once overlap, united ones are one, the bound
 * is the true peak, and little is wasted.
 */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { InternalError } from '../../../errors.ts'
import { aligned, alignment, planMemory, Storage } from './storage.ts'

interface Life {
  readonly bytes: number
  readonly first: number
  readonly length: number
}

const life: fc.Arbitrary<Life> = fc.record({
  bytes: fc.oneof(fc.integer({ min: 1, max: 300 }), fc.integer({ min: 1, max: 100_000 })),
  first: fc.integer({ min: 0, max: 40 }),
  length: fc.oneof(fc.integer({ min: 0, max: 3 }), fc.integer({ min: 0, max: 40 })),
})

function made({ bytes, first, length }: Life, label: string): Storage {
  const storage = new Storage(label, bytes)
  storage.touch(first)
  storage.touch(first + length)
  return storage
}

/** Most bytes alive at one step, by looking at every step. */
function truePeak(roots: readonly Storage[]): number {
  let peak = 0
  for (let step = 0; step <= 90; step++) {
    const alive = roots.filter(({ first, last }) => first <= step && step <= last)
    peak = Math.max(
      peak,
      alive.reduce((total, { bytes }) => total + aligned(bytes), 0),
    )
  }
  return peak
}

function checkPlan(storages: readonly Storage[]): { bytes: number; lowerBound: number } {
  const plan = planMemory(storages)
  const roots = [...new Set(storages.map(({ root }) => root))]
  for (const [i, a] of roots.entries()) {
    assert.ok(a.offset >= 0 && a.offset % alignment === 0, `offset ${a.offset}`)
    assert.ok(a.offset + aligned(a.bytes) <= plan.bytes)
    for (const b of roots.slice(i + 1)) {
      const together = a.first <= b.last && b.first <= a.last
      const apart = a.offset + a.bytes <= b.offset || b.offset + b.bytes <= a.offset
      assert.ok(!together || apart, `${a.label} and ${b.label} overlap`)
    }
  }
  assert.equal(plan.lowerBound, truePeak(roots))
  assert.ok(plan.bytes >= plan.lowerBound)
  return plan
}

test('storages alive at once never overlap, and little memory is wasted', () => {
  let planned = 0
  let needed = 0
  fc.assert(
    fc.property(fc.array(life, { minLength: 1, maxLength: 60 }), (lives) => {
      const plan = checkPlan(lives.map((each, i) => made(each, `s${i}`)))
      planned += plan.bytes
      needed += plan.lowerBound
      assert.ok(plan.bytes <= 2 * plan.lowerBound, `${plan.bytes} bytes planned, ${plan.lowerBound} needed`)
    }),
    { numRuns: 300, seed: 6 },
  )
  assert.ok(planned <= 1.1 * needed, `${(planned / needed - 1) * 100} % wasted`)
})

test('united storages are one piece of memory with both lifetimes', () => {
  fc.assert(
    fc.property(fc.array(life, { minLength: 2, maxLength: 40 }), fc.array(fc.nat(39)), (lives, others) => {
      const storages = lives.map((each, i) => made({ ...each, bytes: 256 }, `s${i}`))
      others.forEach((other, i) => {
        if (i < storages.length && other < storages.length) storages[i]!.unite(storages[other]!)
      })
      checkPlan(storages)
      for (const [i, storage] of storages.entries()) {
        const { first, length } = lives[i]!
        assert.ok(storage.root.first <= first && storage.root.last >= first + length)
      }
      others.forEach((other, i) => {
        if (i < storages.length && other < storages.length)
          assert.equal(storages[i]!.root, storages[other]!.root)
      })
    }),
    { numRuns: 200, seed: 7 },
  )
})

test('lifetimes that do not touch share one place; equal ones stack', () => {
  const chain = Array.from({ length: 10 }, (_, i) => made({ bytes: 1000, first: 2 * i, length: 1 }, `s${i}`))
  assert.deepEqual(planMemory(chain), { bytes: 1024, lowerBound: 1024 })
  const crowd = Array.from({ length: 10 }, (_, i) => made({ bytes: 1000, first: 0, length: 1 }, `s${i}`))
  assert.deepEqual(planMemory(crowd), { bytes: 10_240, lowerBound: 10_240 })
})

test('storage from outside and storage that nothing touches take no room', () => {
  const outside = new Storage('parameter', 4096, 'arena + 0')
  outside.touch(3)
  assert.deepEqual(planMemory([outside, new Storage('unused', 4096)]), { bytes: 0, lowerBound: 0 })
  assert.deepEqual(planMemory([]), { bytes: 0, lowerBound: 0 })
})

test('what is placed already, or too large, cannot move into another storage', () => {
  const outside = new Storage('parameter', 64, 'arena + 0')
  assert.throws(() => outside.unite(new Storage('other', 64)), InternalError)
  assert.throws(() => new Storage('large', 128).unite(outside), InternalError)
  new Storage('fits', 64).unite(outside)
})
