/** The integers of `operations.json`: what a step of every bundled recipe costs, phase by phase. */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { phases } from '../compiler/index.ts'
import { resolveConfig } from '../models/language/config.ts'
import { measureOperations, readRecorded, recipes } from './operations.ts'
import { compileStep } from './step.ts'

const recorded = readRecorded()

test('every bundled recipe costs what is recorded, and its phases are all of it', async () => {
  assert.deepEqual(Object.keys(recorded.recipes), Object.keys(recipes))
  assert.ok(recorded.reason.length > 0)
  for (const [name, overrides] of Object.entries(recipes)) {
    const got = await measureOperations(overrides)
    assert.deepEqual(
      got,
      recorded.recipes[name],
      `${name} costs something else now; if that is meant: ${recorded.recordedBy}`,
    )
    assert.equal(
      got.total,
      phases.reduce((sum, phase) => sum + got[phase], 0),
    )
  }
})

test('threads and ranks: the same counts for any number, and program.flops is their sum', async () => {
  const overrides = { model: { layers: 2, width: 32, heads: 2, context: 16 }, batch: 4 } as const
  const whole = await compileStep(resolveConfig(overrides), 64, { target: 'reference' })
  for (const threads of [1, 2]) {
    const native = await compileStep(resolveConfig(overrides), 64, { target: 'text', threads })
    assert.deepEqual(native.operations, whole.operations)
    assert.equal(native.flops, native.operations.total)
  }
  for (const mesh of [{ data: 2 }, { tensor: 2 }, { pipe: 2 }]) {
    const config = resolveConfig({ ...overrides, mesh, accumulate: 2 })
    const spread = await compileStep(config, 64, { target: 'text' })
    assert.equal(spread.operations.total, spread.flops)
    assert.equal(spread.operations.model, whole.operations.model, JSON.stringify(mesh))
  }
})

test('what is computed again is exactly the compute that keeping less adds', async () => {
  const overrides = { model: { layers: 2, width: 32, heads: 2, context: 16 }, batch: 4 } as const
  const whole = await compileStep(resolveConfig(overrides), 64, { target: 'reference' })
  const less = await compileStep(resolveConfig({ ...overrides, recompute: 'full' }), 64, {
    target: 'reference',
  })
  const { recompute, total } = less.operations
  assert.equal(recompute, less.recomputed!.extraFlops)
  assert.deepEqual({ ...less.operations, recompute: 0, total: total - recompute }, whole.operations)
})
