/**
 * The run store against a model of it: whatever was written in whatever segments, with whatever files torn, the
 * merged history is what a plain list kept in memory says. Also locks, damaged files, and finding a run by name.
 */
import assert from 'node:assert/strict'
import { execFileSync, spawn } from 'node:child_process'
import {
  appendFileSync,
  mkdtempSync,
  readFileSync,
  readdirSync,
  rmSync,
  truncateSync,
  writeFileSync,
} from 'node:fs'
import { hostname, tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, test } from 'node:test'
import fc from 'fast-check'
import { UserError } from '../errors.ts'
import { createRun, findRun, listRuns, readRun, reopenRun, summarise } from './index.ts'
import type { RunWriter } from './index.ts'
import { parseLines, printLine } from './lines.ts'

const root = mkdtempSync(join(tmpdir(), 'anneal-runs-'))
after(() => rmSync(root, { recursive: true, force: true }))

const newRun = (folder = root, now = new Date('2026-11-24T10:00:00Z')): RunWriter =>
  createRun(folder, {
    recipe: 'language',
    config: { steps: 3 },
    plan: { flops: 1e9 },
    machine: { cores: 2 },
    now,
  })

const point = (step: number, metrics: Record<string, number>): Parameters<RunWriter['point']>[0] => ({
  step,
  tokens: step * 10,
  seconds: step / 2,
  flops: step * 1000,
  metrics,
})

const complaint = (pattern: RegExp) => (error: unknown) =>
  error instanceof UserError && pattern.test(error.message)

test('a run that was written is read back whole', () => {
  const writer = newRun()
  writer.point(point(1, { loss: 4, lr: 0.1 }))
  writer.point(point(2, { loss: NaN, gradNorm: Infinity }))
  writer.point(point(2, { validationLoss: 3.5 }))
  writer.sample({ step: 2, prompt: 'To be', text: ' or\nnot "to" be \u2028' })
  writer.checkpoint({ step: 2, file: 'checkpoints/step-2.safetensors', bytes: 12 })
  assert.equal(readRun(root, writer.id).status, 'running')
  writer.close('finished', { step: 2 })
  writer.close('failed')

  const run = readRun(root, writer.id)
  assert.match(run.meta.id, /^2026-11-24-language-[a-z2-9]{4}$/)
  assert.deepEqual(run.meta.config, { steps: 3 })
  assert.equal(run.status, 'finished')
  assert.deepEqual(
    run.points.map((p) => [p.step, p.metrics]),
    [
      [1, { loss: 4, lr: 0.1 }],
      [2, { loss: NaN, gradNorm: Infinity }],
      [2, { validationLoss: 3.5 }],
    ],
  )
  assert.equal(run.samples[0]?.text, ' or\nnot "to" be \u2028')
  assert.deepEqual(run.checkpoints[0]?.present, false)
  assert.deepEqual(run.notes, [])
  assert.deepEqual(readdirSync(run.dir).toSorted(), ['run.json', 'segments'])

  const { metrics } = summarise(run)
  assert.deepEqual(metrics['loss'], {
    count: 2,
    nonFinite: 1,
    last: { value: NaN, step: 2 },
    min: { value: 4, step: 1 },
    max: { value: 4, step: 1 },
  })
})

test('points reach the file within a second even when the loop never yields', () => {
  const writer = newRun()
  const file = join(writer.dir, 'segments', '0001.jsonl')
  const before = readFileSync(file, 'utf8')
  writer.point(point(1, { loss: 1 }))
  assert.equal(readFileSync(file, 'utf8'), before, 'small appends stay in memory')
  const end = performance.now() + 1010
  while (performance.now() < end);
  writer.point(point(2, { loss: 1 }))
  assert.equal(readFileSync(file, 'utf8').split('\n').length, 5)
  writer.close('interrupted')
})

test('a resume supersedes later steps of its parent and keeps the earlier ones', () => {
  const first = newRun()
  for (let step = 1; step <= 100; step++) first.point(point(step, { loss: step }))
  first.checkpoint({ step: 50, file: 'a', bytes: 1 })
  first.checkpoint({ step: 90, file: 'b', bytes: 1 })
  first.close('interrupted')
  const second = reopenRun(root, first.id, { fromStep: 50 })
  assert.equal(second.segment, 2)
  second.point(point(51, { loss: -51 }))
  second.close('interrupted', { reason: 'stopped by hand' })

  const run = readRun(root, first.id)
  assert.equal(run.points.length, 51)
  assert.deepEqual(run.points.at(-1)?.metrics, { loss: -51 })
  assert.deepEqual(
    run.checkpoints.map((c) => c.step),
    [50],
  )
  assert.equal(run.segments[0]?.points.length, 100, 'nothing is dropped')
  assert.equal(run.segments[1]?.parent, 1)
  assert.equal(run.reason, 'stopped by hand')
})

// One segment: where it begins, counted back from the last step of the history, what it measures, and how many bytes
// a kill tears off its file.
const segmentPlan = fc.record({
  back: fc.nat(8),
  points: fc.array(fc.record({ stride: fc.nat(2), metric: fc.constantFrom('loss', 'lr') }), {
    maxLength: 12,
  }),
  torn: fc.oneof(fc.constant(0), fc.nat(400)),
})

test('property: random segments and torn writes merge into the newest value of every step', () => {
  fc.assert(
    fc.property(fc.array(segmentPlan, { minLength: 1, maxLength: 5 }), (plans) => {
      const empty = newRun()
      const id = empty.id
      empty.close('interrupted')
      rmSync(join(root, id, 'segments'), { recursive: true })
      let history: [step: number, metric: string, value: number][] = []
      let value = 0
      for (const { back, points, torn } of plans) {
        const fromStep = Math.max(0, (history.at(-1)?.[0] ?? 0) - back)
        const writer = reopenRun(root, id, { fromStep })
        const file = join(writer.dir, 'segments', `${String(writer.segment).padStart(4, '0')}.jsonl`)
        let step = fromStep
        for (const { stride, metric } of points) {
          step += stride
          writer.point(point(step, { [metric]: ++value }))
        }
        writer.close('interrupted')
        const written = readFileSync(file)
        truncateSync(file, Math.max(0, written.length - torn))

        // The model: what of this segment survived, put on top of the history up to fromStep.
        const kept = written.subarray(0, Math.max(0, written.length - torn)).toString()
        const rows = kept.split('\n').slice(0, -1)
        if (rows.length === 0) continue
        const mine = rows.flatMap((row): typeof history => {
          const line = JSON.parse(row) as { kind: string; step: number; metrics: Record<string, number> }
          if (line.kind !== 'point') return []
          const [name, v] = Object.entries(line.metrics)[0]!
          return [[line.step, name, v]]
        })
        const replaced = new Set(mine.map(([s, m]) => `${s} ${m}`))
        history = [...history.filter(([s, m]) => s <= fromStep && !replaced.has(`${s} ${m}`)), ...mine]
        history = history.toSorted((a, b) => a[0] - b[0])
      }
      const run = readRun(root, id)
      const read = run.points.map(
        (p) => [p.step, ...Object.entries(p.metrics)[0]!] as (typeof history)[number],
      )
      const sorted = (rows: typeof history): typeof history =>
        rows.toSorted((a, b) => a[0] - b[0] || a[2] - b[2])
      assert.deepEqual(sorted(read), sorted(history))
      assert.deepEqual(run.notes, [])
      rmSync(join(root, id), { recursive: true })
    }),
    { numRuns: 25, seed: 7 },
  )
})

test('property: a line survives printing and parsing, for any text and any number', () => {
  const line = fc.oneof(
    fc.record({
      kind: fc.constant('point' as const),
      step: fc.nat(),
      tokens: fc.nat(),
      seconds: fc.nat(),
      flops: fc.nat(),
      metrics: fc.dictionary(
        fc.string({ minLength: 1 }).filter((k) => k !== '__proto__'),
        fc.double().map((x) => x + 0),
      ),
    }),
    fc.record({
      kind: fc.constant('sample' as const),
      step: fc.nat(),
      prompt: fc.string({ unit: 'binary' }),
      text: fc.string(),
    }),
  )
  fc.assert(
    fc.property(fc.array(line, { maxLength: 5 }), (lines) => {
      const text = lines.map(printLine).join('')
      assert.deepEqual(JSON.parse(JSON.stringify(parseLines(text).lines)), JSON.parse(JSON.stringify(lines)))
      assert.deepEqual(parseLines(text).notes, [])
      assert.equal(text.split('\n').length, lines.length + 1)
    }),
    { numRuns: 40, seed: 3 },
  )
})

test('damaged lines are noted with file and line, and passed over', () => {
  const writer = newRun()
  writer.point(point(1, { loss: 2 }))
  writer.close('finished')
  const file = join(writer.dir, 'segments', '0001.jsonl')
  appendFileSync(file, 'rubbish\n{"kind":"point","step":-1}\n{"kind":"video"}\n{"kind":"point","st')
  const run = readRun(root, writer.id)
  assert.equal(run.points.length, 1)
  assert.equal(run.status, 'finished')
  assert.deepEqual(run.notes, [
    'segments/0001.jsonl line 5: not JSON',
    'segments/0001.jsonl line 6: a point with missing or wrong fields',
    'segments/0001.jsonl line 7: unknown kind "video"',
  ])
})

test('a live writer is not disturbed, a dead one is taken over', () => {
  const writer = newRun()
  assert.throws(() => reopenRun(root, writer.id, { fromStep: 0 }), complaint(/process \d+ is writing.*kill/))
  writer.close('interrupted')

  const lock = join(writer.dir, 'lock')
  const child = spawn('sleep', ['30'])
  writeFileSync(lock, JSON.stringify({ pid: child.pid, host: hostname() }))
  assert.throws(
    () => reopenRun(root, writer.id, { fromStep: 0 }),
    complaint(new RegExp(`process ${child.pid} is`)),
  )
  child.kill('SIGKILL')

  const dead = Number(execFileSync(process.execPath, ['-p', 'process.pid'], { encoding: 'utf8' }))
  writeFileSync(lock, JSON.stringify({ pid: dead, host: hostname() }))
  reopenRun(root, writer.id, { fromStep: 0 }).close('finished')

  // Our own number, but another start time: the number was reused by us, its owner is dead.
  if (process.platform === 'linux') {
    writeFileSync(lock, JSON.stringify({ pid: process.pid, host: hostname(), started: '1' }))
    reopenRun(root, writer.id, { fromStep: 0 }).close('finished')
  }
  writeFileSync(lock, JSON.stringify({ pid: 1, host: 'another-machine' }))
  assert.throws(() => reopenRun(root, writer.id, { fromStep: 0 }), complaint(/on another-machine.*delete/))
})

test('a run whose process died shows as interrupted and can be resumed', () => {
  const script = `
    import { createRun } from ${JSON.stringify(new URL('./index.ts', import.meta.url).href)}
    const writer = createRun(${JSON.stringify(root)}, { recipe: 'killed', config: {}, plan: {}, machine: {} })
    writer.point({ step: 1, tokens: 1, seconds: 1, flops: 1, metrics: { loss: 1 } })
    writer.flush()
    process.stdout.write(writer.id, () => process.kill(process.pid, 'SIGKILL'))`
  let id = ''
  try {
    execFileSync(process.execPath, ['--input-type=module', '-e', script], { encoding: 'utf8' })
  } catch (error) {
    id = (error as { stdout: string }).stdout
  }
  assert.equal(readRun(root, id).status, 'interrupted')
  const writer = reopenRun(root, id, { fromStep: 1 })
  assert.equal(readRun(root, id).status, 'running')
  writer.close('finished')
  assert.deepEqual([readRun(root, id).status, readRun(root, id).segments.length], ['finished', 2])
})

test('runs are found by id, beginning, last letters or latest; anything else is refused with a hint', () => {
  const folder = mkdtempSync(join(root, 'find-'))
  const ids = [new Date('2026-01-02T00:00:00Z'), new Date('2026-03-04T00:00:00Z')].map((now) => {
    const writer = newRun(folder, now)
    writer.close('finished')
    return writer.id
  })
  const [older, newer] = ids as [string, string]
  assert.equal(findRun(folder, older), older)
  assert.equal(findRun(folder, '2026-01'), older)
  assert.equal(findRun(folder, newer.slice(-4)), newer)
  assert.equal(findRun(folder, 'latest'), newer)
  assert.throws(() => findRun(folder, '2026'), complaint(/fits 2 runs/))
  assert.throws(() => findRun(folder, `${older}x`), complaint(new RegExp(`did you mean ${older}`)))
  assert.throws(() => findRun(join(folder, 'nowhere'), 'x'), complaint(/none yet.*anneal up/))
  assert.throws(() => listRuns(join(folder, older, 'run.json')), complaint(/got a file.*--runs/))

  writeFileSync(join(folder, 'notes.txt'), 'mine')
  writeFileSync(join(folder, older, 'run.json'), '{"version": 1')
  const { runs, skipped } = listRuns(folder)
  assert.deepEqual(
    runs.map((r) => r.id),
    [newer],
  )
  assert.deepEqual(skipped, [
    { name: 'notes.txt', reason: 'not a run folder' },
    { name: older, reason: 'text that is not JSON' },
  ])
})
