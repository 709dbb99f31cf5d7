/** The training of the study: same bits, queues that resume, rows that are verified, costs that are guarded. */
import assert from 'node:assert/strict'
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, test } from 'node:test'
import type { z } from 'zod'
import { UserError } from '../../errors.ts'
import { type CurvePoint, readEntry, readRuns, readTrials, sha256Of } from './board-files.ts'
import { readBoard, writeBoard } from './board.ts'
import { runForBoards, runShort, select } from './campaign.ts'
import { imageRecipeSchema, trainDigits } from './image-trainer.ts'
import { checkCost, checkProgress } from './regress.ts'
import { swingRecipeSchema } from './models/policy.ts'
import { trainSwing } from './swing-trainer.ts'
import {
  chargedFlop,
  phases,
  withSettings,
  type Baseline,
  type Job,
  type Measurement,
  type Trainer,
} from './task.ts'
import { tasks } from './tasks/index.ts'
import { textRecipe } from './tasks/text-recipes.ts'
import { madeTask } from './testing.ts'
import { scheduled } from './supervised.ts'
import { textRecipeSchema, trainText } from './text-trainer.ts'
import { trainOnce } from './train-once.ts'
import { verifyRun } from './verify.ts'

const scratch = mkdtempSync(join(tmpdir(), 'anneal-campaign-'))
after(() => rmSync(scratch, { recursive: true, force: true }))

const tiny = (kind: string, optimizer: string) => ({
  ...textRecipe({
    steps: 40,
    model: { kind, width: 16, layers: 1, heads: 1 },
    optimizer: { name: optimizer, rate: 0.01 },
  }),
  batch: 4,
  context: 16,
})

const baseline: Baseline = {
  id: 'adam',
  title: 'Adam',
  dates: { idea: '2014-12-22', adopted: '2015-05-07', entered: '2026-11-25' },
  sources: 'Adam',
  recipe: tiny('gpt-2019', 'adamw'),
  trials: [{ 'optimizer.rate': 0.01 }, { 'optimizer.rate': 0.02 }, { 'optimizer.rate': 1e-5 }],
  endless: true,
}
/** Within reach of forty steps. */
const task = { ...madeTask([baseline], trainText), ladder: [4.1, 3.6], headline: 3.6, quick: 4.1 }
const quiet = { note: () => undefined }

async function all(job: Job): Promise<{ measured: Measurement[]; test?: number }> {
  const measured: Measurement[] = []
  const training = trainText(job)
  for (;;) {
    // oxlint-disable-next-line no-await-in-loop -- a generator
    const next = await training.next()
    if (next.done) return { measured, ...next.value }
    measured.push(next.value)
  }
}

test('the same job gives the same integers and the same bits, another seed other bits', async () => {
  const job = { recipe: tiny('gpt-2019', 'muon'), seed: 3, evalEvery: 20 }
  const [first, again, other] = [await all(job), await all(job), await all({ ...job, seed: 4 })]
  assert.deepEqual(first, again)
  assert.deepEqual(
    first.measured.map(({ step, samples }) => [step, samples]),
    [
      [20, 20 * 64],
      [40, 40 * 64],
    ],
  )
  assert.deepEqual(
    other.measured.map(({ phases: counts }) => counts),
    first.measured.map(({ phases: counts }) => counts),
  )
  assert.notEqual(other.measured[1]!.metric, first.measured[1]!.metric)
  assert.ok(first.measured[1]!.metric < first.measured[0]!.metric && first.test! < 4.2)
})

for (const kind of ['lstm-2015', 'transformer-2017', 'transformer-2023']) {
  test(`${kind} learns, and its counts are integers that grow by the step`, async () => {
    const { measured } = await all({ recipe: tiny(kind, 'adamw'), seed: 0, evalEvery: 20 })
    const [first, second] = measured.map(({ phases: counts }) => counts)
    for (const phase of phases) {
      assert.ok(Number.isSafeInteger(first![phase]))
      assert.equal(second![phase], 2 * first![phase], phase)
    }
    assert.ok(first!.backward > 1.5 * first!.forward && first!.optimizer > 0)
    // Untrained, every one of 65 characters is as likely as another: ln 65 = 4.17.
    assert.ok(
      measured[1]!.metric < 4 && measured[1]!.metric < measured[0]!.metric,
      String(measured[1]!.metric),
    )
  })
}

test('an entry is tuned, run, extended, verified and guarded', async () => {
  const boards = join(scratch, 'boards')
  const options = { boards, jobs: 2, ...quiet }
  assert.ok(await runForBoards(select([task], 'adam'), 2, options))
  const folder = join(boards, 'made', 'entries', '2026-11-25-adam')
  const trials = readTrials(folder)
  assert.equal(trials.filter(({ seed }) => seed === 1000).length, 3)
  assert.equal(trials.find(({ trial }) => trial === 2)!.flop, null, 'a rate far too small misses')
  assert.ok(
    trials.some(({ seed }) => seed === 1002),
    'finalists have more seeds',
  )
  const { entry, runs, recipe } = readEntry(folder)
  assert.deepEqual(entry.tuning, {
    trials: trials.length,
    flop: trials.reduce((sum, { spent }) => sum + spent, 0),
  })
  assert.deepEqual(
    runs.map(({ seed }) => seed),
    [0, 1],
  )
  for (const run of runs) {
    assert.equal(run.ended, 'declared')
    assert.equal(run.curve.at(-1)![0], chargedFlop(run.phases))
    assert.equal(run.curve.at(-1)![1], recipe['steps'])
  }

  // More seeds: the finished ones are not run again.
  const before = readFileSync(join(folder, 'runs.jsonl'), 'utf8')
  assert.ok(await runForBoards(select([task], undefined), 4, options))
  const later = readFileSync(join(folder, 'runs.jsonl'), 'utf8')
  assert.ok(later.startsWith(before))
  assert.equal(readTrials(folder).length, trials.length)
  assert.equal(readEntry(folder).runs.length, 4)
  writeBoard(readBoard(task, boards), boards)

  const row = readEntry(folder)
  const verified = (await verifyRun(task, row, 1))!
  assert.ok(verified.sameMachine && verified.largestDifference === 0)
  assert.equal(verified.flop, row.runs[1]!.curve.at(-1)![0])
  const cost = (await checkCost(task, row))!
  assert.ok(cost.fine && cost.found === row.runs[0]!.curve[0]![0])
  const progress = (await checkProgress(task, row, 4.1))!
  assert.ok(progress.wanted[0] < progress.wanted[1])

  // A row whose numbers and seal were both forged is consistent, and found out by running it again.
  const forged = row.runs.map((run) => ({
    ...run,
    curve: run.curve.map(([flop, step, samples, metric]) => [flop - 1, step, samples, metric]),
  }))
  const lines = forged.map((run) => JSON.stringify({ ...run, sha256: sha256Of(JSON.stringify(run)) }))
  writeFileSync(join(folder, 'runs.jsonl'), `${lines.join('\n')}\n`)
  const accepted = readEntry(folder)
  await assert.rejects(
    verifyRun(task, accepted, 0),
    /seed 0: got \d+ FLOP at evaluation 1; expected \d+, as stored/,
  )
  assert.equal((await checkCost(task, accepted))!.fine, false)
  const [first] = row.runs
  const better = {
    ...first!,
    curve: first!.curve.map(([a, b, c, metric]): CurvePoint => [a, b, c, metric - 1e-7]),
  }
  await assert.rejects(verifyRun(task, { ...row, runs: [better] }, 0), /to the bit, on this kind of machine/)
})

test('an interrupted queue keeps what is finished and goes on from there', async () => {
  const boards = join(scratch, 'interrupted')
  const controller = new AbortController()
  let measurements = 0
  const counting: typeof trainText = async function* (job) {
    const training = trainText(job)
    for (;;) {
      // oxlint-disable-next-line no-await-in-loop -- a generator
      const next = await training.next()
      if (next.done) return next.value
      if (++measurements === 7) controller.abort()
      yield next.value
    }
  }
  const slow = { ...task, train: counting }
  const options = { boards, jobs: 1, signal: controller.signal, ...quiet }
  assert.equal(await runForBoards(select([slow], undefined), 1, options), false)
  const folder = join(boards, 'made', 'entries', '2026-11-25-adam')
  const kept = readFileSync(join(folder, 'tuning.jsonl'), 'utf8')
  assert.ok(readTrials(folder).length > 0 && readTrials(folder).length < 3)
  assert.ok(await runForBoards(select([task], undefined), 1, { boards, jobs: 1, ...quiet }))
  assert.ok(readFileSync(join(folder, 'tuning.jsonl'), 'utf8').startsWith(kept))
  assert.equal(readEntry(folder).runs.length, 1)
})

test('a short suite ends at its target, lies beside the boards, and is not run twice', async () => {
  const folder = join(scratch, 'short')
  const options = { boards: join(scratch, 'none'), jobs: 2, ...quiet }
  const [result] = (await runShort('quick', select([task], undefined), folder, 2, options))!
  assert.deepEqual(
    result!.runs.map(({ seed, ended }) => [seed, ended]),
    [
      [0, 'reached'],
      [1, 'reached'],
    ],
  )
  const path = join(folder, 'quick', 'made', 'adam')
  const [again] = (await runShort('quick', select([task], undefined), folder, 2, options))!
  assert.deepEqual(again, result)
  assert.equal(readRuns(path).length, 2)
})

const schemas = new Map<Trainer, z.ZodType>([
  [trainText, textRecipeSchema],
  [trainDigits, imageRecipeSchema],
  [trainSwing, swingRecipeSchema],
])

test('every baseline of a task tries as many settings, each of which its trainer takes', () => {
  for (const one of tasks) {
    assert.ok(
      one.ladder.includes(one.headline) &&
        one.ladder.includes(one.quick) &&
        one.ladder.includes(one.smoke.target),
    )
    for (const id of one.smoke.entries)
      assert.ok(
        one.baselines.some((entry) => entry.id === id),
        id,
      )
    for (const { id, trials, recipe } of one.baselines) {
      assert.equal(trials.length, 12, `${one.id}/${id}`)
      assert.equal(new Set(trials.map((settings) => JSON.stringify(settings))).size, 12, `${one.id}/${id}`)
      const schema = schemas.get(one.train)!
      for (const settings of trials) schema.parse(withSettings(recipe, settings))
    }
  }
})

test('schedules begin, peak and end where they say', () => {
  const of = (kind: 'constant' | 'inverse-sqrt' | 'linear' | 'cosine', warmup: number) => (step: number) =>
    scheduled({ steps: 100, schedule: { kind, warmup, cooldown: 0.5 } }, step)
  assert.deepEqual([of('constant', 0)(0), of('constant', 10)(4), of('constant', 10)(99)], [1, 0.5, 1])
  assert.ok(Math.abs(of('inverse-sqrt', 25)(99) - 0.5) < 1e-12)
  assert.equal(of('inverse-sqrt', 25)(24), 1)
  assert.ok(Math.abs(of('cosine', 0)(49) - 0.5) < 1e-12)
  assert.ok(of('cosine', 10)(99) < 1e-12)
  assert.deepEqual([of('linear', 0)(49), of('linear', 0)(75), of('linear', 0)(99)], [1, 0.5, 0.02])
})

test('a recipe with a setting that is none is refused by name', async () => {
  const recipe = { ...tiny('gpt-2019', 'adamw'), schedule: { kind: 'sawtooth', warmup: 0, cooldown: 0 } }
  await assert.rejects(trainText({ recipe, seed: 0, evalEvery: 10 }).next(), (error) => {
    assert.ok(error instanceof UserError)
    assert.match(error.message, /schedule\.kind.*sawtooth/)
    return true
  })
})

test('other data than the task was made for is refused before anything is trained', async () => {
  const data = { file: 'data/text/README.md', sha256: sha256Of('something else') }
  await assert.rejects(
    trainOnce({ ...task, data }, baseline.recipe, 0),
    /README\.md: got sha256 [0-9a-f]{64}; expected/,
  )
})
