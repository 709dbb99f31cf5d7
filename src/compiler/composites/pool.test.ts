/** Pools and resizing against their definition, window by window; the composite suite has gradients and the C target. */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { valueType } from '../graph/types.ts'
import { draw, runCases, worstError, type Case } from '../testing.ts'
import { averagePool, maxPool, resizeNearest } from './pool.ts'

test('pools are the largest and the mean of each window, and resizing repeats', async () => {
  const types = [valueType('f64', [1, 5, 7, 2])]
  const data = draw(types[0]!, 0)
  const cases: readonly Omit<Case, 'data'>[] = [
    { name: 'max', types, build: ([x]) => [maxPool(x!, [3, 2], { stride: 2, padding: [1, [0, 1]] })] },
    { name: 'mean', types, build: ([x]) => [averagePool(x!, [3, 2], { stride: 2, padding: [1, [0, 1]] })] },
    { name: 'plain', types, build: ([x]) => [maxPool(x!, 2)] },
    { name: 'resize', types, build: ([x]) => [resizeNearest(x!, [2, 3])] },
  ]
  const { results } = await runCases(
    cases.map(({ name, build }) => ({ name, types, data: [data], build })),
    { target: 'reference' },
  )
  const at = (h: number, w: number, c: number): number | undefined =>
    h >= 0 && h < 5 && w >= 0 && w < 7 ? data[(h * 7 + w) * 2 + c] : undefined
  const fill = (
    rows: number,
    columns: number,
    value: (h: number, w: number, c: number) => number,
  ): number[] =>
    Array.from({ length: rows * columns * 2 }, (_, i) =>
      value(Math.floor(i / 2 / columns), Math.floor(i / 2) % columns, i % 2),
    )
  const window = (h: number, w: number, c: number): number[] =>
    [-1, 0, 1].flatMap((i) => [0, 1].flatMap((j) => at(2 * h + i, 2 * w + j, c) ?? []))
  const largest = fill(3, 4, (h, w, c) => Math.max(...window(h, w, c)))
  const mean = fill(3, 4, (h, w, c) => window(h, w, c).reduce((a, b) => a + b) / 6)
  const pairs = fill(2, 3, (h, w, c) =>
    Math.max(...[0, 1].flatMap((i) => [0, 1].map((j) => at(2 * h + i, 2 * w + j, c)!))),
  )
  assert.deepEqual(Array.from(results.get('max')![0]!), largest)
  assert.ok(worstError(results.get('mean')![0]!, mean) < 1e-15)
  assert.deepEqual(Array.from(results.get('plain')![0]!), pairs)
  const repeated = fill(10, 21, (h, w, c) => at(Math.floor(h / 2), Math.floor(w / 3), c)!)
  assert.deepEqual(Array.from(results.get('resize')![0]!), repeated)
})
