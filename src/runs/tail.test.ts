/**
 * Following a run: however it is cut into reads, resumed, torn or replaced, folding what a cursor gives equals what
 * reading the files as a whole gives.
 */
import assert from 'node:assert/strict'
import fc from 'fast-check'
import { appendFileSync, cpSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, test } from 'node:test'
import { Columns } from './columns.ts'
import { createRun, readRun, readTail, reopenRun } from './index.ts'
import type { RunLine } from './index.ts'

const root = mkdtempSync(join(tmpdir(), 'anneal-tail-'))
after(() => rmSync(root, { recursive: true, force: true }))

const newRun = () => createRun(root, { recipe: 'language', config: {}, plan: {}, machine: {} })

function fold(columns: Columns, lines: readonly RunLine[]): void {
  for (const line of lines) {
    if (line.kind === 'segment') columns.truncate(line.fromStep)
    if (line.kind === 'point') columns.add(line)
  }
}

/** Each metric as [step, tokens, value] rows. */
function tableOf(columns: Columns): Record<string, number[][]> {
  return Object.fromEntries(
    [...columns.metrics].map(([name, { rows, values }]) => [
      name,
      Array.from(rows.values, (row, i) => [
        columns.axes.step.at(row),
        columns.axes.tokens.at(row),
        values.at(i),
      ]),
    ]),
  )
}

function expected(id: string): Record<string, number[][]> {
  const table: Record<string, number[][]> = {}
  for (const { step, tokens, metrics } of readRun(root, id).points) {
    for (const [name, value] of Object.entries(metrics)) (table[name] ??= []).push([step, tokens, value])
  }
  return table
}

test('property: reads at any moments, over resumes, fold into the merged history', () => {
  const action = fc.oneof(
    fc.record({ do: fc.constant('step' as const), evaluate: fc.boolean() }),
    fc.record({ do: fc.constant('resume' as const), back: fc.nat(4) }),
    fc.record({ do: fc.constant('read' as const) }),
  )
  fc.assert(
    fc.property(fc.array(action, { maxLength: 40 }), (actions) => {
      let writer = newRun()
      const { id, dir } = writer
      const columns = new Columns()
      let cursor: string | null = null
      let step = 0
      let made = 0
      const point = (metrics: Record<string, number>): void =>
        writer.point({ step, tokens: ++made, seconds: made, flops: made, metrics })
      const read = (): void => {
        const tail = readTail(dir, cursor)
        assert.equal(tail.reset, false)
        fold(columns, tail.lines)
        cursor = tail.cursor
      }
      for (const act of actions) {
        if (act.do === 'read') {
          writer.flush()
          read()
        } else if (act.do === 'resume') {
          writer.close('interrupted')
          step = Math.max(0, step - act.back)
          writer = reopenRun(root, id, { fromStep: step })
          // What the checkpoint's step still owed.
          if (step > 0) point({ validationLoss: made })
        } else {
          step++
          point({ loss: made })
          if (act.evaluate) point({ validationLoss: made })
        }
      }
      writer.close('finished')
      read()
      assert.deepEqual(tableOf(columns), expected(id))
      assert.deepEqual(readTail(dir, cursor).lines, [])
      rmSync(dir, { recursive: true })
    }),
    { numRuns: 60 },
  )
})

test('an unfinished line waits for its end, and garbage is passed over', () => {
  const writer = newRun()
  writer.flush()
  const first = readTail(writer.dir, null)
  const path = join(writer.dir, 'segments', '0001.jsonl')
  const line = '{"kind":"point","step":1,"tokens":1,"seconds":1,"flops":1,"metrics":{"loss":"NaN"}}\n'
  appendFileSync(path, line.slice(0, 30))
  const second = readTail(writer.dir, first.cursor)
  assert.deepEqual([second.lines, second.cursor, second.reset], [[], first.cursor, false])
  appendFileSync(path, `${line.slice(30)}not json\n\0\0\n`)
  const third = readTail(writer.dir, second.cursor)
  assert.deepEqual(
    third.lines.map((l) => l.kind === 'point' && l.metrics),
    [{ loss: Number.NaN }],
  )
  writer.close('finished')
})

test('a run that was replaced, cut or changed in place starts over; a strange cursor reads everything', () => {
  const [a, b] = [newRun(), newRun()]
  for (const [writer, loss] of [
    [a, 1],
    [b, 2],
  ] as const) {
    for (let step = 1; step < 9; step++) {
      writer.point({ step, tokens: step, seconds: step, flops: step, metrics: { loss } })
    }
    writer.close('finished')
  }
  const { cursor, lines } = readTail(a.dir, null)
  assert.ok(lines.length > 8)
  // Another file under the same name.
  rmSync(join(a.dir, 'segments'), { recursive: true })
  assert.equal(readTail(a.dir, cursor).reset, true)
  cpSync(join(b.dir, 'segments'), join(a.dir, 'segments'), { recursive: true })
  const replaced = readTail(a.dir, cursor)
  assert.equal(replaced.reset, true)
  assert.ok(replaced.lines.some((line) => line.kind === 'point' && line.metrics['loss'] === 2))
  // The same inode with other bytes, as long as before.
  const path = join(a.dir, 'segments', '0001.jsonl')
  const inPlace = readTail(a.dir, null)
  writeFileSync(path, inPlace.lines.map((line) => `${JSON.stringify({ ...line, x: 1 })}\n`).join(''))
  assert.equal(readTail(a.dir, inPlace.cursor).reset, true)
  for (const strange of ['', 'x', '1-2-3', '1-2-3-4-5', '-1-0-0-0', '1e9-0-0-0', '9'.repeat(400)]) {
    assert.equal(readTail(a.dir, strange).lines.length, inPlace.lines.length, strange)
  }
})
