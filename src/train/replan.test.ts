/** A run with fewer ranks: the data axis gives way first; where it cannot, the planner chooses. */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { resolveConfig, type LanguageOverrides } from '../models/language/config.ts'
import { replan, type Replanned } from './replan.ts'

const after = (overrides: LanguageOverrides, left: number): Promise<Replanned | undefined> =>
  replan(resolveConfig({ batch: 8, ...overrides }), 65, left)

test('the data axis shrinks to a width that divides it, and nothing else changes', async () => {
  const four = await after({ mesh: { data: 4 } }, 3)
  assert.deepEqual([four?.ranks, four?.settings], [2, ['mesh.data=2']])
  const mixed = await after({ mesh: { data: 4, tensor: 2 }, parallel: { zero: 1 } }, 5)
  assert.deepEqual([mixed?.ranks, mixed?.settings], [4, ['mesh.data=2']])
  const last = await after({ mesh: { data: 2 } }, 1)
  assert.deepEqual([last?.ranks, last?.settings], [1, ['mesh.data=1']])
})

test('where the other axes need more ranks than are left, the planner finds a plan that can be', async () => {
  const overrides = { mesh: { tensor: 2 }, parallel: { sequence: true } } as const
  const found = await after(overrides, 1)
  assert.equal(found?.ranks, 1)
  assert.match(found.why, /planner/)
  assert.ok(found.settings.includes('mesh.tensor=1'), found.settings.join(' '))
  assert.ok(found.settings.includes('parallel.sequence=false'), found.settings.join(' '))
})

test('with no rank left there is no plan', async () => {
  assert.equal(await after({ mesh: { data: 2 } }, 0), undefined)
})
