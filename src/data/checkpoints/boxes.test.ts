/**
 * Box arithmetic against the plainest oracle there is: the set of elements of a box, listed one by one.
 */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { forEachRun, intersect, partitionProblem, subtract, volume, wholeBox } from './boxes.ts'
import type { Box } from './boxes.ts'
import { anyBox, partition } from './testing.ts'

const shapes = fc.array(fc.integer({ min: 1, max: 5 }), { maxLength: 4 })

/** Flat positions in the whole array of the elements of a box. */
function elements({ start, size }: Box, shape: readonly number[]): number[] {
  let found = [0]
  for (const [axis, n] of shape.entries()) {
    const range = Array.from({ length: size[axis]! }, (_, i) => start[axis]! + i)
    found = found.flatMap((at) => range.map((i) => at * n + i))
  }
  return found
}

const sorted = (list: readonly number[]): number[] => list.toSorted((a, b) => a - b)

const twoBoxes = shapes.chain((shape) =>
  fc.record({ shape: fc.constant(shape), a: anyBox(shape), b: anyBox(shape) }),
)

test('an intersection holds the common elements; a difference the others, each once', () => {
  fc.assert(
    fc.property(twoBoxes, ({ shape, a, b }) => {
      const inB = new Set(elements(b, shape))
      const [common, rest] = [
        elements(a, shape).filter((e) => inB.has(e)),
        elements(a, shape).filter((e) => !inB.has(e)),
      ]
      const met = intersect(a, b)
      assert.deepEqual(met ? elements(met, shape) : [], common)
      assert.deepEqual(sorted(subtract(a, b).flatMap((part) => elements(part, shape))), rest)
      assert.equal(volume(a), elements(a, shape).length)
    }),
  )
})

test('runs move every common element to its place and nothing else, and are as long as they can be', () => {
  fc.assert(
    fc.property(twoBoxes, ({ shape, a, b }) => {
      const common = intersect(a, b)
      if (!common) return
      const from = elements(a, shape)
      const to = Array.from({ length: volume(b) }, () => -1)
      const runs: [number, number, number][] = []
      forEachRun(a, b, common, (fromOffset, toOffset, count) => {
        runs.push([fromOffset, toOffset, count])
        for (let i = 0; i < count; i++) to[toOffset + i] = from[fromOffset + i]!
      })
      const inCommon = new Set(elements(common, shape))
      assert.deepEqual(
        to,
        elements(b, shape).map((e) => (inCommon.has(e) ? e : -1)),
      )
      for (const [i, [fromOffset, toOffset, count]] of runs.entries()) {
        const next = runs[i + 1]
        assert.ok(
          !next || next[0] !== fromOffset + count || next[1] !== toOffset + count,
          'two runs that are one',
        )
      }
    }),
  )
})

test('a partition is one; without a box, with one twice, or with one outside it is not', () => {
  fc.assert(
    fc.property(
      shapes.chain((shape) => fc.record({ shape: fc.constant(shape), boxes: partition(shape) })),
      fc.nat(),
      ({ shape, boxes }, random) => {
        assert.equal(partitionProblem(boxes, shape), undefined)
        const i = random % boxes.length
        assert.match(partitionProblem(boxes.toSpliced(i, 1), shape) ?? '', /of its \d+ elements/)
        assert.match(partitionProblem([...boxes, boxes[i]!], shape) ?? '', /overlap/)
        if (shape.length === 0) return
        const outside = { ...boxes[i]!, start: boxes[i]!.start.with(0, shape[0]!) }
        assert.match(partitionProblem(boxes.with(i, outside), shape) ?? '', /no part of it/)
      },
    ),
  )
  assert.equal(partitionProblem([], [0, 3]), undefined)
  assert.equal(partitionProblem([wholeBox([])], []), undefined)
})
