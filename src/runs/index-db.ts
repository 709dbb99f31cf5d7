/**
 * An SQLite index over a runs folder, so that listing thousands of runs reads only what changed. It holds nothing
 * that the JSONL files do not: delete `runs/index.sqlite` and the next listing rebuilds it. A run is read again when
 * inode, size or modification time of any of its files changed. Subtle: whether a recorded 'running' is still true
 * depends on a process, not on a file, so that is looked up on every listing.
 */
import { mkdirSync, rmSync } from 'node:fs'
import { join } from 'node:path'
import { DatabaseSync } from 'node:sqlite'
import { newestFirst, runFolders, skipReason } from './find.ts'
import type { RunList, Skipped } from './find.ts'
import type { RunStatus } from './lines.ts'
import { fingerprint, presentStatus, readRun } from './reader.ts'
import { summarise } from './summary.ts'
import type { RunSummary } from './summary.ts'

/** Raise when the tables or what is stored in them change: an index of another version is rebuilt. */
const version = 2

const tables = `
  create table run (
    id text primary key, fingerprint text not null, recipe text not null, created text not null,
    status text not null, step integer not null, tokens real not null, seconds real not null, flops real not null,
    segments integer not null, metrics text not null, told text not null
  ) strict;
  create table unreadable (id text primary key, fingerprint text not null, reason text not null) strict;
  pragma user_version = ${version};
`

/** Lists the runs of `root` through its index, bringing the index up to date first. */
export function listIndexedRuns(root: string): RunList {
  const { ids, skipped } = runFolders(root)
  if (ids.length === 0) return { runs: [], skipped }
  const db = openIndex(root)
  try {
    refresh(db, root, ids)
    const runs = db
      .prepare('select * from run')
      .all()
      .map((row) => toSummary(root, row))
    const unreadable = db
      .prepare('select id, reason from unreadable order by id')
      .all()
      .map((row): Skipped => ({ name: row['id'] as string, reason: row['reason'] as string }))
    return { runs: runs.toSorted(newestFirst), skipped: [...skipped, ...unreadable] }
  } finally {
    db.close()
  }
}

/** Opens the index, starting afresh when it is damaged or of another version, in memory when it cannot be written. */
function openIndex(root: string): DatabaseSync {
  const path = join(root, 'index.sqlite')
  try {
    mkdirSync(root, { recursive: true })
    return openFile(path)
  } catch {
    try {
      for (const suffix of ['', '-journal', '-wal', '-shm']) rmSync(path + suffix, { force: true })
      return openFile(path)
    } catch {
      // A read-only folder: everything is read again each time, and listing still works.
      return openFile(':memory:')
    }
  }
}

function openFile(path: string): DatabaseSync {
  const db = new DatabaseSync(path)
  try {
    db.exec('pragma busy_timeout = 3000')
    const stored = db.prepare('pragma user_version').get()?.['user_version']
    if (stored !== version) {
      // Exclusive, so that of two processes that find no tables only one makes them.
      db.exec('begin exclusive; drop table if exists run; drop table if exists unreadable')
      db.exec(tables)
      db.exec('commit')
    }
    db.prepare('select count(*) from run, unreadable').get()
    return db
  } catch (error) {
    db.close()
    throw error
  }
}

/** Reads again every run whose files changed and forgets those that are gone, in one transaction. */
function refresh(db: DatabaseSync, root: string, ids: readonly string[]): void {
  const known = new Map(
    db
      .prepare('select id, fingerprint from run union all select id, fingerprint from unreadable')
      .all()
      .map((row) => [row['id'] as string, row['fingerprint'] as string]),
  )
  // Taken before reading: a run that grows meanwhile is read again next time rather than missed.
  const prints = new Map(ids.map((id) => [id, fingerprint(join(root, id))]))
  const gone = [...known.keys()].filter((id) => !prints.has(id))
  const changed = ids.filter((id) => known.get(id) !== prints.get(id))
  if (gone.length === 0 && changed.length === 0) return

  const forget = [
    db.prepare('delete from run where id = ?'),
    db.prepare('delete from unreadable where id = ?'),
  ]
  const addRun = db.prepare('insert into run values (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)')
  const addUnreadable = db.prepare('insert into unreadable values (?, ?, ?)')
  db.exec('begin immediate')
  try {
    for (const id of [...gone, ...changed]) for (const statement of forget) statement.run(id)
    for (const id of changed) {
      const print = prints.get(id)!
      try {
        const run = readRun(root, id)
        const s = summarise(run)
        const status = run.segments.at(-1)?.status?.status ?? 'running'
        const metrics = JSON.stringify(s.metrics, printNonFinite)
        const { config, tags, note, archived, parent } = s
        const told: Told = { config, tags, note, archived, parent }
        addRun.run(
          id,
          print,
          s.recipe,
          s.created,
          status,
          s.step,
          s.tokens,
          s.seconds,
          s.flops,
          s.segments,
          metrics,
          JSON.stringify(told),
        )
      } catch (error) {
        addUnreadable.run(id, print, skipReason(id, error).reason)
      }
    }
    db.exec('commit')
  } catch (error) {
    db.exec('rollback')
    throw error
  }
}

/** What is not a number of its own in the table. */
type Told = Pick<RunSummary, 'config' | 'tags' | 'note' | 'archived' | 'parent'>

function toSummary(root: string, row: Record<string, unknown>): RunSummary {
  const { fingerprint: _, metrics, status, told, ...rest } = row
  return {
    ...(rest as unknown as Omit<RunSummary, keyof Told | 'metrics' | 'status'>),
    ...(JSON.parse(told as string) as Told),
    status: presentStatus(join(root, row['id'] as string), status as RunStatus),
    metrics: JSON.parse(metrics as string, readNonFinite) as RunSummary['metrics'],
  }
}

const nonFinite: Readonly<Record<string, number>> = { NaN, Infinity, '-Infinity': -Infinity }
const printNonFinite = (_: string, value: unknown): unknown =>
  typeof value === 'number' && !Number.isFinite(value) ? String(value) : value
const readNonFinite = (_: string, value: unknown): unknown =>
  typeof value === 'string' ? (nonFinite[value] ?? value) : value
