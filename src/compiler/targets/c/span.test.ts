/** Row locality against its definition: every element of every row of a view is looked up in memory. */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { sizeOf } from '../../graph/types.ts'
import { isRowLocal } from './span.ts'
import { denseView, type View } from './view.ts'

/** Where each element of a view lies, in the order of its shape. */
function places({ offset, shape, strides }: View): number[] {
  return shape.reduce(
    (starts, size, axis) =>
      starts.flatMap((start) => Array.from({ length: size }, (_, i) => start + i * strides[axis]!)),
    [offset],
  )
}

/** Row i of the view touches only row i of the memory. */
function staysInRows(view: View, baseSize: number, rows: number): boolean {
  const at = places(view)
  const [own, piece] = [at.length / rows, baseSize / rows]
  return at.every((place, i) => Math.floor(place / piece) === Math.floor(i / own))
}

const view = fc.array(fc.integer({ min: 1, max: 4 }), { minLength: 1, maxLength: 4 }).chain((shape) =>
  fc.record({
    shape: fc.constant(shape),
    // Dense strides, now and then another one or 0: views as moves make them, and others.
    strides: fc.tuple(
      ...denseView(shape).strides.map((stride) =>
        fc.oneof({ weight: 8, arbitrary: fc.constant(stride) }, fc.constantFrom(0, stride * 2, 1)),
      ),
    ),
    offset: fc.constantFrom(0, 0, 0, 1, 3),
    slack: fc.constantFrom(0, 0, 0, 5),
    split: fc.nat({ max: 4 }),
  }),
)

test('what is said to be local is, for any view and any number of rows', () => {
  let local = 0
  fc.assert(
    fc.property(view, fc.integer({ min: 1, max: 3 }), ({ slack, split, ...shown }, factor) => {
      const rows = factor * sizeOf(shown.shape.slice(0, split))
      const size = Math.ceil((Math.max(...places(shown)) + 1 + slack) / rows) * rows
      if (!isRowLocal(shown, size, rows)) return
      assert.ok(staysInRows(shown, size, rows), `${JSON.stringify(shown)} of ${size} in ${rows} rows`)
      if (rows > 1) local++
    }),
    { numRuns: 3000, seed: 7 },
  )
  assert.ok(local > 50, `${local} local cases among them`)
})

test('the cases that chains live from are recognised', () => {
  const dense = denseView([6, 4, 5])
  for (const rows of [1, 2, 3, 6, 12, 24, 120]) assert.ok(isRowLocal(dense, sizeOf(dense.shape), rows))
  // One value a row, seen by every column; a head of each row; a table that all rows share is not local.
  assert.ok(isRowLocal({ offset: 0, shape: [6, 20], strides: [1, 0] }, 6, 6))
  assert.ok(isRowLocal({ offset: 5, shape: [6, 5], strides: [20, 1] }, 120, 6))
  assert.ok(!isRowLocal({ offset: 0, shape: [6, 20], strides: [0, 1] }, 20, 2))
  assert.ok(!isRowLocal({ offset: 0, shape: [4, 6], strides: [1, 4] }, 24, 2))
  assert.ok(!isRowLocal(dense, 120, 7))
})
