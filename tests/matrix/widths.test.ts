/**
 * Data-parallel widths 1, 2, 4 and 8 give the same bits in f32 after a hundred steps: every loss, every parameter, all
 * optimizer state. So do products of few bits and moments of few bits, whose roundings would show any other order of sums.
 */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { agreement, trained } from './agree.ts'
import { settingsOf, type ModelName } from './models.ts'
import { coarseCells, overridesOf } from './table.ts'
import { steps } from './tests.ts'

const models: readonly ModelName[] = ['language', 'mixture', 'convolutions']

for (const model of models) {
  test(`${model}: 1, 2, 4 and 8 ranks`, async () => {
    process.env['ANNEAL_OPTIMIZE'] = '3' // as users' programs are compiled
    const of = (data: number): ReturnType<typeof trained> =>
      trained(model, settingsOf(model, overridesOf(`data=${data}`)), 'c', steps)
    const one = await of(1)
    assert.ok(one.losses.at(-1)! < one.losses[0]! - 0.3, 'it learns')
    for (const data of [2, 4, 8]) {
      const { losses, results } = await of(data)
      assert.deepEqual(losses, one.losses, `losses of ${data} ranks`)
      for (const [path, values] of one.results)
        assert.deepEqual(results.get(path), values, `${path} of ${data}`)
    }
  })
}

for (const model of models) {
  test(`${model}: few bits`, async () => {
    // Many programs that run for a moment.
    process.env['ANNEAL_OPTIMIZE'] = '1'
    for (const cell of coarseCells(model)) {
      const { results, worst, losses } = await agreement(cell, 'c', steps)
      assert.deepEqual([results, worst, losses], [0, '', 0], cell.technique.name)
    }
  })
}
