/** Runs of the scaling study: interrupted and whole, checkpoints of another run, the rules of the plan. */
import assert from 'node:assert/strict'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, test } from 'node:test'
import { configOf, matmulParameters, planRun, type RunSettings } from './family.ts'
import { register } from './registration.ts'
import { planPath, writeJson } from './store.ts'
import { studyText } from './text.ts'
import { trainScaling } from './train.ts'

const folder = mkdtempSync(join(tmpdir(), 'anneal-scaling-'))
after(() => rmSync(folder, { recursive: true }))

const text = { ...studyText, words: 500 }
const run: RunSettings = {
  budget: 1e9,
  seed: 3,
  width: 8,
  layers: 1,
  heads: 2,
  context: 16,
  batch: 8,
  steps: 45,
  lr: 0.02,
  adamLr: 0.02,
  text,
}

test('a run that was stopped twice and went on has the curve and the loss of one that was not, bit for bit', async () => {
  const whole = await trainScaling(run, { folder: join(folder, 'whole'), threads: 1, heldOutWindows: 20 })
  assert.ok(whole)
  assert.equal(whole.curve.length, 45)
  assert.ok(whole.loss < whole.curve[0]!.loss - 0.5 && whole.loss > whole.floor, `${whole.loss}`)
  const parts = join(folder, 'parts')
  let resumed: typeof whole | undefined
  for (const stop of [7, 31, undefined]) {
    const controller = new AbortController()
    resumed = await trainScaling(run, {
      folder: parts,
      threads: 1,
      heldOutWindows: 20,
      signal: controller.signal,
      progress: ({ step }) => step === stop && controller.abort(),
    })
    assert.equal(resumed === undefined, stop !== undefined)
  }
  assert.deepEqual({ ...resumed, seconds: 0 }, { ...whole, seconds: 0 })
})

test('checkpoints of other settings, and a program the plan did not count, are refused; once there is one, it is too late to register a prediction', async () => {
  const other = { ...run, lr: 0.03 }
  await assert.rejects(
    trainScaling(other, { folder: join(folder, 'whole'), threads: 1 }),
    /got a checkpoint of a run with other settings/,
  )
  await assert.rejects(
    trainScaling(run, { folder: join(folder, 'new'), threads: 1, flops: 1 }),
    /got a program of \d+ FLOP; expected the plan's 1;/,
  )
  const target = { name: 'target', settings: run, parameters: 1, tokens: 1, flops: 1 }
  writeJson(planPath(folder), { series: 'test', fit: [], target })
  assert.throws(
    () => register(folder, join(folder, 'whole'), new Date()),
    /got a run that has begun; expected a prediction registered before the run/,
  )
})

test('a planned run keeps to its budget, counted on the program, at about twenty tokens a parameter', async () => {
  const planned = await planRun(1e11, 1, text)
  assert.ok(Math.abs(planned.flops / 1e11 - 1) < 0.002, `${planned.flops}`)
  const { width, steps, batch, context } = planned.settings
  assert.equal(planned.parameters, matmulParameters(width))
  assert.equal(planned.tokens, steps * batch * context)
  assert.ok(planned.tokens / planned.parameters > 10 && planned.tokens / planned.parameters < 40)
  assert.equal(configOf(planned.settings).optim.name, 'muon')
})
