/** The library as a user meets it, through the public entry: train a tiny model, let it write, reopen it, go on. */
import assert from 'node:assert/strict'
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, test } from 'node:test'
import { compile, f32, gpt, listRuns, openRun, text, train, UserError, type TrainPlan } from '../src/index.ts'

const scratch = mkdtempSync(join(tmpdir(), 'anneal-library-'))
const runsDir = join(scratch, 'runs')
const notes = join(scratch, 'notes')
mkdirSync(notes)
writeFileSync(join(notes, 'a.txt'), 'The quick brown fox jumps over the lazy dog. '.repeat(60))
writeFileSync(
  join(notes, 'b.jsonl'),
  `${JSON.stringify({ text: 'Pack my box with five dozen jugs. '.repeat(40) })}\n`,
)
writeFileSync(join(notes, 'c.png'), Buffer.from([0x89, 0x50, 0, 1]))
after(() => rmSync(scratch, { recursive: true, force: true }))

const usage = (pattern: RegExp) => (error: unknown) => {
  assert.ok(error instanceof UserError && error.exitCode === 2, String(error))
  assert.match(error.message, pattern)
  return true
}

test('train on a folder, write, reopen and go on', async () => {
  const data = await text(notes, { tokenizer: 'bytes' })
  assert.deepEqual([data.documents, data.skipped.map(({ name }) => name)], [2, ['c.png']])

  let plan: TrainPlan | undefined
  const losses: number[] = []
  const run = await train(gpt({ layers: 1, width: 32, heads: 1, context: 16 }), {
    data,
    steps: 30,
    batch: 4,
    threads: 1,
    eval: { every: 0 },
    save: { every: 0 },
    sample: { every: 0, tokens: 1 },
    runsDir,
    observer: { plan: (known) => (plan = known), point: ({ metrics }) => losses.push(metrics['loss']!) },
  })
  assert.deepEqual([run.status, run.step, losses.length], ['finished', 30, 30])
  assert.equal(plan?.tokens, 30 * 4 * 16)
  assert.ok(losses.at(-1)! < losses[0]! - 1, `${losses[0]} to ${losses.at(-1)}`)
  assert.ok(run.validationLoss! < losses[0]!)
  assert.equal(run.read().points.filter(({ metrics }) => 'loss' in metrics).length, 30)

  const options = { tokens: 12, temperature: 0 }
  const written = await run.sample('The ', options)
  assert.ok(written.length > 0)
  const again = openRun('latest', { runsDir })
  assert.deepEqual([again.id, again.step, again.validationLoss], [run.id, 30, run.validationLoss])
  assert.equal(await again.sample('The ', options), written)

  const longer = await again.resume({ steps: 32 })
  assert.deepEqual([longer.id, longer.status, longer.step], [run.id, 'finished', 32])
  assert.equal(listRuns(runsDir).runs.length, 1)
})

test('mistakes are reported by the call that makes them', async () => {
  assert.throws(() => gpt({ width: 48, heads: 5 }), usage(/^model\.heads: .*divisor of model\.width=48/))
  await assert.rejects(
    train(gpt(), { steps: -1, runsDir }),
    usage(/^steps: got steps=-1; expected at least 1/),
  )
  await assert.rejects(text(join(scratch, 'note')), (error) => {
    assert.ok(error instanceof UserError)
    assert.match(error.message, /no such file.*did you mean notes\?/)
    return true
  })
})

test('the compiler on its own', async () => {
  const program = await compile(
    ({ x, w }) => ({ y: x.matmul(w) }),
    { x: f32([2, 3]), w: f32([3, 2]) },
    { threads: 1 },
  )
  assert.equal(program.flops, 2 * 2 * 3 * 2)
  await program.run({ x: [1, 2, 3, 4, 5, 6], w: [1, 0, 0, 1, 1, 1] })
  assert.deepEqual([...program.view('y')], [4, 5, 10, 11])
  assert.match(program.source, /anneal_run/)
  program.close()
})
