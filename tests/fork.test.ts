/**
 * A fork is its parent from the checkpoint on: with nothing changed it computes the parent's bits, with settings changed
 * it goes its own way; it owns a checkpoint from its first moment, and says where it came from.
 */
import assert from 'node:assert/strict'
import { mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, test } from 'node:test'
import { resolveConfig } from '../src/models/language/config.ts'
import { readRun } from '../src/runs/index.ts'
import { forkLanguage, resumeLanguage, trainLanguage } from '../src/train/language.ts'

const runsDir = mkdtempSync(join(tmpdir(), 'anneal-fork-'))
after(() => rmSync(runsDir, { recursive: true, force: true }))

const tiny = {
  steps: 12,
  batch: 4,
  model: { layers: 1, width: 32, context: 16 },
  optim: { warmup: 2, cooldown: 0 },
  save: { every: 6, keep: 5 },
  eval: { every: 6 },
  sample: { tokens: 4 },
} as const

const losses = (id: string): [number, number][] =>
  readRun(runsDir, id).points.flatMap(({ step, metrics }): [number, number][] =>
    metrics['loss'] === undefined ? [] : [[step, metrics['loss']]],
  )

test('an unchanged fork repeats its parent, a changed one differs, both name it', async () => {
  const parent = await trainLanguage(resolveConfig(tiny), { runsDir })
  const same = await forkLanguage(parent.runId, { runsDir, fromStep: 6 })
  const after6 = losses(parent.runId).filter(([step]) => step > 6)
  assert.deepEqual(losses(same.runId), after6)
  const bytes = (dir: string): Buffer =>
    readFileSync(join(dir, 'checkpoints', 'step-00000012.safetensors')).subarray(-4096)
  assert.deepEqual(bytes(same.runDir), bytes(parent.runDir))
  const read = readRun(runsDir, same.runId)
  assert.deepEqual(read.meta.parent, { run: parent.runId, step: 6 })
  assert.deepEqual(
    read.checkpoints.map(({ step }) => step),
    [6, 12],
  )
  assert.equal(read.segments[0]?.fromStep, 6)

  const other = await forkLanguage(parent.runId, { runsDir, overrides: { steps: 15, optim: { lr: 0.001 } } })
  assert.deepEqual(
    losses(other.runId).map(([step]) => step),
    [13, 14, 15],
  )
  // Its own checkpoint of step 12 makes it whole: it goes on without the parent.
  rmSync(parent.runDir, { recursive: true })
  const resumed = await resumeLanguage(other.runId, { runsDir, overrides: { steps: 17 } })
  assert.deepEqual([resumed.step, resumed.status], [17, 'finished'])
})

test('a fork is refused where nothing could be trained or loaded', async () => {
  const controller = new AbortController()
  const parent = await trainLanguage(resolveConfig(tiny), {
    runsDir,
    signal: controller.signal,
    observer: { point: ({ step }) => step === 2 && controller.abort() },
  })
  assert.equal(parent.step, 2)
  await assert.rejects(
    forkLanguage(parent.runId, { runsDir, fromStep: 1 }),
    /no checkpoint of step 1.*steps 2/,
  )
  await assert.rejects(forkLanguage(parent.runId, { runsDir, overrides: { steps: 2 } }), /steps=2.*reached/)
})
