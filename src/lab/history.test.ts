/**
 * A history against `readRun` of the same folder: while it grows, over a resume, from the cache, and from a cache that was
 * cut or has any bit turned, which must never show.
 */
import assert from 'node:assert/strict'
import { mkdtempSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, test } from 'node:test'
import { createRun, readRun, reopenRun, summarise } from '../runs/index.ts'
import type { RunWriter } from '../runs/index.ts'
import { cacheFile, loadCache } from './column-cache.ts'
import { describe } from './describe.ts'
import { History } from './history.ts'

const root = mkdtempSync(join(tmpdir(), 'anneal-history-'))
after(() => rmSync(root, { recursive: true, force: true }))

/** Longer than what is worth a cache. */
const many = 9000

function write(writer: RunWriter, from: number, to: number): void {
  for (let step = from; step <= to; step++) {
    const loss = step % 1000 === 7 ? Number.NaN : 1 / step
    const at = { step, tokens: step * 64, seconds: step / 7, flops: step * 1e9 }
    writer.point({ ...at, metrics: { loss, lr: 0.1 } })
    if (step % 100 === 0) writer.point({ ...at, metrics: { validationLoss: loss + 1 } })
    if (step % 3000 === 0) writer.sample({ step, prompt: 'a', text: `at ${step}` })
  }
  writer.flush()
}

const begin = (): RunWriter => createRun(root, { recipe: 'r', config: { a: 1 }, plan: {}, machine: {} })

function read(dir: string): History {
  const history = new History(dir)
  history.update()
  return history
}

/** Everything that is shown is what the log says. */
function check(id: string, history: History): void {
  const run = readRun(root, id)
  const reply = describe(run.dir, id, history, 'anneal')
  assert.deepEqual(reply.summary, summarise(run))
  assert.deepEqual(reply.samples, run.samples)
  assert.deepEqual(reply.notes, run.notes)
  assert.deepEqual(
    reply.segments.map(({ points }) => points),
    run.segments.map(({ points }) => points.length),
  )
  const { axes, metrics } = history.columns
  for (const [name, { rows, values }] of metrics) {
    const points = run.points.filter((point) => Object.hasOwn(point.metrics, name))
    assert.deepEqual(
      Array.from(values.values),
      points.map((point) => point.metrics[name]),
    )
    assert.deepEqual(
      Array.from(rows.values, (row) => axes.step.at(row)),
      points.map(({ step }) => step),
    )
  }
}

test('a history grows with its log, goes back with a resume, and begins from its cache', () => {
  const first = begin()
  const { id, dir } = first
  write(first, 1, many)
  const live = read(dir)
  check(id, live)
  assert.equal(loadCache(dir).stretches.length, 1)
  write(first, many + 1, many + 5)
  live.update()
  check(id, live)
  check(id, read(dir))
  first.close('interrupted')
  const second = reopenRun(root, id, { fromStep: many - 100, config: { a: 2 } })
  write(second, many - 99, many * 2)
  second.close('finished')
  live.update()
  check(id, live)
  const parts = loadCache(dir).stretches
  assert.deepEqual(
    parts.map(({ segment }) => segment),
    [1, 1, 1, 2],
    'appended, not written anew',
  )
  assert.equal(parts.at(-1)!.to, statSync(join(dir, 'segments', '0002.jsonl')).size)
  const again = read(dir)
  check(id, again)
  assert.equal(again.cursor, live.cursor)
})

test('a cache that was cut, damaged or belongs to another log is not believed', () => {
  const writer = begin()
  const { id, dir } = writer
  write(writer, 1, many)
  writer.close('finished')
  read(dir)
  const path = join(dir, cacheFile)
  const whole = readFileSync(path)
  const headerEnds = 16 + whole.readUInt32LE(4)
  const places = [
    0,
    3,
    5,
    9,
    13,
    16,
    40,
    headerEnds + 2,
    headerEnds + 300,
    whole.length >> 1,
    whole.length - 1,
  ]
  for (const place of places) {
    const turned = Buffer.from(whole)
    turned[place]! ^= 1 << (place % 8)
    writeFileSync(path, turned)
    assert.equal(loadCache(dir).stretches.length, 0, `a bit of byte ${place}`)
    writeFileSync(path, whole.subarray(0, place))
    assert.equal(loadCache(dir).stretches.length, 0, `cut at byte ${place}`)
  }
  check(id, read(dir))
  assert.deepEqual(readFileSync(path), whole, 'made again from the log')

  // The same length, another digit.
  const log = join(dir, 'segments', '0001.jsonl')
  const text = readFileSync(log, 'utf8')
  writeFileSync(log, text.replace('"lr":0.1', '"lr":0.2'))
  assert.equal(loadCache(dir).stretches.length, 0)
  check(id, read(dir))
})
