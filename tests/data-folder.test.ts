/**
 * `anneal train language data=./folder` on what a person's folder holds (text, JSON lines, a picture), and what the
 * settings promise: the same seed gives the same bits on any number of threads, microbatches and recomputation change
 * nothing but memory, every optimizer, precision and block learns.
 */
import assert from 'node:assert/strict'
import { existsSync, mkdirSync, mkdtempSync, readdirSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, test } from 'node:test'
import { resolveConfig } from '../src/models/language/config.ts'
import type { LanguageOverrides } from '../src/models/language/config.ts'
import { readRun } from '../src/runs/index.ts'
import { trainLanguage } from '../src/train/language.ts'
import type { TrainPlan } from '../src/train/events.ts'
import { launcher, run } from './launch.ts'
import type { Outcome } from './launch.ts'

const scratch = mkdtempSync(join(tmpdir(), 'anneal-folder-'))
after(() => rmSync(scratch, { recursive: true, force: true }))

const folder = join(scratch, 'folder')
mkdirSync(join(folder, 'letters'), { recursive: true })
writeFileSync(join(folder, 'notes.md'), '# Notes\nThe quick brown fox jumps over the lazy dog.\n'.repeat(40))
writeFileSync(join(folder, 'letters', 'first.txt'), 'Dear friend, the fox is quick again.\n'.repeat(60))
const quotes = Array.from({ length: 80 }, (_, i) => JSON.stringify({ text: `The dog said ${i} words.` }))
writeFileSync(join(folder, 'quotes.jsonl'), `${quotes.join('\n')}\n`)
writeFileSync(join(folder, 'photo.png'), Buffer.from([0x89, 0x50, 0x4e, 0x47, 0, 1, 2, 3]))

/** Runs `anneal train language data=./folder` in the folder above it. */
const train = (...words: string[]): Outcome =>
  run(process.execPath, [launcher, 'train', 'language', 'data=./folder', ...tinyWords, ...words], scratch)

const tinyWords = ['batch=4', 'model.context=16', 'model.layers=1', 'model.width=32', 'sample.tokens=4']

interface Document {
  readonly version: number
  readonly recipe: string
  readonly plan?: TrainPlan
  readonly result?: {
    readonly status: string
    readonly step: number
    readonly validationLoss: number
    readonly sample: string
    readonly runDir: string
  }
}

test('a folder of text, JSON lines and a picture: the picture is left out with a note, --json parses', () => {
  const { code, out, err } = train('steps=12', 'tokenizer=bpe', 'vocab=300', '--json')
  assert.equal(code, 0, err)
  assert.match(err, /left out photo\.png: .*binary/)
  const { version, recipe, result } = JSON.parse(out) as Document
  assert.deepEqual([version, recipe, result?.status, result?.step], [1, 'language', 'finished', 12])
  assert.ok(result!.validationLoss > 0 && result!.validationLoss < Math.log(300) + 0.5)
  assert.ok(existsSync(join(scratch, result!.runDir, 'run.json')))
})

test('--dry-run prints the plan and leaves no run', () => {
  const { code, out, err } = train('steps=12', 'tokenizer=bytes', '--dry-run', '--json', '--runs', 'dry')
  assert.equal(code, 0, err)
  const { plan, result } = JSON.parse(out) as Document
  assert.equal(result, undefined)
  assert.deepEqual([plan!.steps, plan!.tokens, plan!.data.tokenizer], [12, 12 * 4 * 16, 'bytes'])
  assert.deepEqual(
    plan!.data.skipped.map(({ name }) => name),
    ['photo.png'],
  )
  assert.ok(plan!.data.vocabSize === 256 && plan!.flops === 12 * plan!.flopsPerStep && plan!.arenaBytes > 0)
  assert.equal(existsSync(join(scratch, 'dry')), false)
})

const runsDir = join(scratch, 'runs')
const steps = 16

interface Trained {
  readonly losses: readonly number[]
  /** Everything measured, as text: equal when equal to the last bit. */
  readonly bits: string
}

const done = new Map<string, Trained>()

/** Trains in this process; asked twice for the same settings, `again` tells the runs apart. */
async function trained(overrides: LanguageOverrides = {}, again = 0): Promise<Trained> {
  const key = JSON.stringify([overrides, again])
  const known = done.get(key)
  if (known) return known
  const config = resolveConfig({
    data: folder,
    batch: 4,
    threads: 1,
    steps,
    ...overrides,
    model: { context: 16, layers: 1, width: 32, ...overrides.model },
    optim: { warmup: 0, ...overrides.optim },
    sample: { every: 0, tokens: 4 },
  })
  const { runId, status } = await trainLanguage(config, { runsDir })
  assert.equal(status, 'finished')
  const { points, samples } = readRun(runsDir, runId)
  const result = {
    losses: points.flatMap(({ metrics }) => metrics['loss'] ?? []),
    bits: JSON.stringify([points.map(({ metrics }) => metrics), samples]),
  }
  assert.equal(result.losses.length, steps)
  done.set(key, result)
  return result
}

function assertClose(actual: readonly number[], expected: readonly number[], relative: number): void {
  expected.forEach((loss, i) => {
    const error = Math.abs(actual[i]! - loss) / loss
    assert.ok(error <= relative, `step ${i + 1}: ${actual[i]} against ${loss}`)
  })
}

/** Mean of the last four losses against the first. */
function assertLearns({ losses }: Trained, most: number): void {
  const end = losses.slice(-4).reduce((a, b) => a + b, 0) / 4
  assert.ok(end < losses[0]! * most, `from ${losses[0]} only to ${end}`)
}

test('the same seed gives the same bits, another seed does not', async () => {
  const first = await trained()
  assert.equal((await trained({}, 1)).bits, first.bits)
  assert.notEqual((await trained({ seed: 2 })).bits, first.bits)
})

test('one thread and two give the same bits', async () => {
  assert.equal((await trained({ threads: 2 })).bits, (await trained()).bits)
})

test('two microbatches give the losses of one batch', async () => {
  assertClose((await trained({ accumulate: 2 })).losses, (await trained()).losses, 1e-4)
})

test('recomputed activations give the losses of kept ones', async () => {
  assertClose((await trained({ recompute: true })).losses, (await trained()).losses, 1e-5)
})

for (const [name, lr, most] of [
  ['sgd', 0.5, 0.95],
  ['momentum', 0.05, 0.9],
  ['adamw', 0.01, 0.75],
  ['adamw8bit', 0.01, 0.75],
  ['adafactor', 0.01, 0.75],
  ['muon', 0.03, 0.9],
] as const) {
  test(`${name} reduces the loss`, async () => assertLearns(await trained({ optim: { name, lr } }), most))
}

test('bf16 trains, close to f32', async () => {
  const bf16 = await trained({ precision: 'bf16' })
  assertLearns(bf16, 0.9)
  assertClose(bf16.losses, (await trained()).losses, 0.05)
  assert.notEqual(bf16.bits, (await trained()).bits)
})

test('adafactor with relative steps reduces the loss', async () =>
  assertLearns(
    await trained({
      model: { block: 'gpt2' },
      optim: { name: 'adafactor', lr: 0.3, relativeStep: true },
    }),
    0.9,
  ))

test('the gpt2 block trains, with dropout too', async () => {
  assertLearns(await trained({ model: { block: 'gpt2', dropout: 0.1 } }), 0.9)
})

test('every run is in the store, finished', () => {
  const ids = readdirSync(runsDir)
  assert.ok(ids.length >= 10)
  for (const id of ids) assert.equal(readRun(runsDir, id).status, 'finished')
})
