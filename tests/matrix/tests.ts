/** The tests of the matrix, made from its table: one file a model calls them, so that they run beside each other. */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { agreement } from './agree.ts'
import type { ModelName } from './models.ts'
import { assertSent } from './sent.ts'
import { mixedCells, mixedPlans, someCells } from './table.ts'

export const steps = 100

export function float64Tests(model: ModelName): void {
  for (const cell of someCells(model)) {
    test(`${model}, ${cell.technique.name}: ${cell.settings}`, async () => {
      const { results, worst, losses } = await agreement(cell, 'reference', 2)
      assert.ok(results <= 1e-11, `${worst} differs by ${results}`)
      assert.ok(losses <= 1e-11, `losses differ by ${losses}`)
    })
  }
}

/** Losses of one device, bytes as foretold on every link, and arenas as planned; for plans with an axis, or those without. */
export function nativeTests(model: ModelName, axis?: string, having = true): void {
  test(`${model}: at least a dozen mixed plans`, () => assert.ok(mixedPlans[model].length >= 12))
  const wanted = mixedCells(model).filter(
    ({ settings }) => axis === undefined || settings.includes(`${axis}=`) === having,
  )
  assert.ok(wanted.length > 0)
  for (const cell of wanted) {
    test(`${model}, ${cell.technique.name}: ${cell.settings}`, async () => {
      const { losses, one, many } = await agreement(cell, 'c', steps)
      assert.ok(one.losses.at(-1)! < one.losses[0]! - 0.3, 'it learns')
      assert.ok(losses <= (cell.technique.within ?? 1e-5), `losses differ by ${losses}`)
      assert.ok(assertSent(cell.settings, many, steps) > 0)
      assert.ok(many.arenas.length > 1 && many.arenas.every((bytes) => bytes === many.planned))
    })
  }
}
