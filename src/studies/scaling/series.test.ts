/** Series of the scaling study beside one another. */
import assert from 'node:assert/strict'
import { join } from 'node:path'
import { test } from 'node:test'
import { runSeries, storePlan } from './series.ts'
import { planPath, readStoredRun, writeJson } from './store.ts'
import { seriesFor } from './test-series.ts'

test('a run that the series beside has made is taken over; a plan with runs is not replaced', async (t) => {
  const { folder, work, plan } = seriesFor(t)
  const other = join(folder, '..', 'other')
  const [first] = plan.fit
  writeJson(planPath(other), { series: 'other', fit: [first], target: plan.target })
  assert.equal(await runSeries(other, { work, threads: 1 }), true)
  assert.deepEqual(readStoredRun(other, first!), readStoredRun(folder, first!))
  assert.throws(() => storePlan(folder, plan), /got a plan whose run 1e\+11 is done/)
  await assert.rejects(runSeries(other, { work, only: 'none' }), /--only: got 'none'; expected one of 1e\+11/)
  await assert.rejects(
    runSeries(other, { work: join(work, 'x'), target: true }),
    /got no registered prediction/,
  )
})
