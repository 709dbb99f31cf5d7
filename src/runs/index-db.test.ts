/**
 * The SQLite index says exactly what reading the files says: when fresh, after every kind of change, after it was
 * deleted or damaged, and where it cannot be written at all.
 */
import assert from 'node:assert/strict'
import { appendFileSync, cpSync, mkdirSync, mkdtempSync, rmSync, statSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, test } from 'node:test'
import { DatabaseSync } from 'node:sqlite'
import { createRun, listRuns, reopenRun } from './index.ts'
import { listIndexedRuns } from './index-db.ts'

const root = mkdtempSync(join(tmpdir(), 'anneal-index-'))
after(() => rmSync(root, { recursive: true, force: true }))
const indexFile = join(root, 'index.sqlite')

function writeRun(loss: number): string {
  const writer = createRun(root, { recipe: 'language', config: {}, plan: {}, machine: {} })
  writer.point({ step: 5, tokens: 50, seconds: 1.5, flops: 1e12, metrics: { loss } })
  writer.close('finished')
  return writer.id
}

function assertAgrees(): void {
  const { runs, skipped } = listRuns(root)
  const indexed = listIndexedRuns(root)
  assert.deepEqual(indexed.runs, runs)
  assert.deepEqual(indexed.skipped, skipped)
}

test('the index agrees with the files through additions, resumes, removals and garbage', () => {
  assertAgrees()
  const ids = [writeRun(2), writeRun(NaN), writeRun(1.25)]
  assertAgrees()
  const writer = reopenRun(root, ids[0]!, { fromStep: 5 })
  writer.point({ step: 6, tokens: 60, seconds: 2, flops: 2e12, metrics: { loss: 1, validationLoss: 3 } })
  writer.flush()
  assertAgrees()
  assert.equal(listIndexedRuns(root).runs.find((r) => r.id === ids[0])?.status, 'running')
  // The process vanishes: no file of the run changes, its status does.
  rmSync(join(writer.dir, 'lock'))
  assert.equal(listIndexedRuns(root).runs.find((r) => r.id === ids[0])?.status, 'interrupted')
  writer.close('finished')
  rmSync(join(root, ids[1]!), { recursive: true })
  writeFileSync(join(root, ids[2]!, 'run.json'), 'not json')
  writeFileSync(join(root, 'notes.txt'), '')
  mkdirSync(join(root, 'archive'))
  assertAgrees()
  assert.equal(listIndexedRuns(root).runs.length, 1)
})

test('an unchanged run is not read again, a changed one is', () => {
  const id = writeRun(3)
  assertAgrees()
  const db = new DatabaseSync(indexFile)
  db.prepare('update run set step = 999 where id = ?').run(id)
  db.close()
  const step = (): number | undefined => listIndexedRuns(root).runs.find((r) => r.id === id)?.step
  assert.equal(step(), 999, 'taken from the index')
  appendFileSync(join(root, id, 'segments', '0001.jsonl'), '\n')
  assert.equal(step(), 5, 'read again')
})

test('a deleted, damaged or older index comes back', () => {
  const expected = listIndexedRuns(root)
  rmSync(indexFile)
  assert.deepEqual(listIndexedRuns(root), expected)
  writeFileSync(indexFile, 'this is not a database '.repeat(500))
  assert.deepEqual(listIndexedRuns(root), expected)
  assert.ok(statSync(indexFile).size > 4096)
  const db = new DatabaseSync(indexFile)
  db.exec('drop table run; create table run (id text); pragma user_version = 0')
  db.close()
  assert.deepEqual(listIndexedRuns(root), expected)
})

test('runs in a place where no index can be written are still listed', () => {
  const copy = mkdtempSync(join(tmpdir(), 'anneal-readonly-'))
  try {
    cpSync(root, copy, { recursive: true, filter: (source) => source !== indexFile })
    // A folder of that name that is not empty: neither opened nor removed, whatever the permissions.
    mkdirSync(join(copy, 'index.sqlite', 'x'), { recursive: true })
    assert.equal(listIndexedRuns(copy).runs.length, listRuns(root).runs.length)
  } finally {
    rmSync(copy, { recursive: true })
  }
})
