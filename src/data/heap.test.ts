/** A heap gives back what went in, in order, also when pushes and pops alternate. */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { createHeap } from './heap.ts'

test('pops in order', () => {
  fc.assert(
    fc.property(fc.array(fc.integer()), fc.array(fc.integer()), (first, second) => {
      const heap = createHeap<number>((a, b) => a < b)
      for (const item of first) heap.push(item)
      const half = first.slice(0, first.length >> 1).map(() => heap.pop()!)
      assert.deepEqual(half, first.toSorted((a, b) => a - b).slice(0, half.length))
      for (const item of second) heap.push(item)
      const rest = Array.from({ length: heap.size }, () => heap.pop()!)
      const expected = [...first.toSorted((a, b) => a - b).slice(half.length), ...second].toSorted(
        (a, b) => a - b,
      )
      assert.deepEqual(rest, expected)
      assert.equal(heap.pop(), undefined)
    }),
  )
})
