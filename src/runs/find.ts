/**
 * What lies in a runs folder and which run a person means. Anything that is not a run (a stray file, a folder
 * without `run.json`) is passed over with a note, never a failure: people keep notes and archives there.
 */
import { existsSync, readdirSync } from 'node:fs'
import type { Dirent } from 'node:fs'
import { join } from 'node:path'
import { badUsage, didYouMean, failure, UserError } from '../errors.ts'
import { readRun } from './reader.ts'
import { summarise } from './summary.ts'
import type { RunSummary } from './summary.ts'

export interface Skipped {
  readonly name: string
  readonly reason: string
}

export interface RunList {
  /** Newest first. */
  readonly runs: readonly RunSummary[]
  readonly skipped: readonly Skipped[]
}

/** Files the store itself keeps beside the runs. */
const ownFiles = /^index\.sqlite(-journal|-wal|-shm)?$/

/** Names of the run folders in `root`, ascending, and what else lies there. A missing `root` holds no runs. */
export function runFolders(root: string): {
  readonly ids: readonly string[]
  readonly skipped: readonly Skipped[]
} {
  const ids: string[] = []
  const skipped: Skipped[] = []
  for (const entry of entriesOf(root)) {
    const { name } = entry
    if (name.startsWith('.') || ownFiles.test(name)) continue
    if (existsSync(join(root, name, 'run.json'))) ids.push(name)
    else
      skipped.push({ name, reason: entry.isDirectory() ? 'a folder without run.json' : 'not a run folder' })
  }
  return { ids: ids.toSorted(), skipped }
}

/** Whether `name` is that of a run folder in `root`: one name, no path, whatever a stranger made of it. */
export const isRunFolder = (root: string, name: string): boolean =>
  /^[^./\\\0][^/\\\0]*$/.test(name) && existsSync(join(root, name, 'run.json'))

/** Reads every run of `root` from its files, without the index. */
export function listRuns(root: string): RunList {
  const { ids, skipped } = runFolders(root)
  const runs: RunSummary[] = []
  const unreadable: Skipped[] = []
  for (const id of ids) {
    try {
      runs.push(summarise(readRun(root, id)))
    } catch (error) {
      unreadable.push(skipReason(id, error))
    }
  }
  return { runs: runs.toSorted(newestFirst), skipped: [...skipped, ...unreadable] }
}

/** Newest first; runs of the same instant by id. */
export function newestFirst(a: RunSummary, b: RunSummary): number {
  return b.created.localeCompare(a.created) || a.id.localeCompare(b.id)
}

/** Why a run folder could not be read. Rethrows defects of ours. */
export function skipReason(name: string, error: unknown): Skipped {
  if (error instanceof UserError) return { name, reason: error.complaint.got }
  const { code, message } = error as NodeJS.ErrnoException
  if (code === undefined) throw error
  return { name, reason: message }
}

/**
 * The id of the run that `word` names: a whole id, the beginning of one, its last four letters, or `latest`.
 * @throws UserError (exit 2) when it names none or several.
 */
export function findRun(root: string, word: string): string {
  const { ids } = runFolders(root)
  if (ids.includes(word)) return word
  if (word === 'latest' && ids.length > 0) return latest(root)
  const matches = ids.filter((id) => id.startsWith(word) || id.endsWith(`-${word}`))
  if (matches.length === 1) return matches[0]!
  if (matches.length > 1) {
    throw badUsage({
      where: root,
      got: `'${word}', which fits ${matches.length} runs`,
      expected: 'enough of an id to tell them apart',
      fix: `choose one of ${matches.slice(-5).join(', ')}`,
    })
  }
  const near = didYouMean(word, ids) ?? ids.find((id) => id.slice(-4) === didYouMean(word, [id.slice(-4)]))
  throw badUsage({
    where: root,
    got: `'${word}', which fits no run`,
    expected: ids.length === 0 ? 'a run, but there is none yet' : `one of the ${ids.length} runs there`,
    fix:
      near === undefined
        ? ids.length === 0
          ? 'train one with anneal up'
          : 'list them with anneal runs'
        : `did you mean ${near}?`,
  })
}

function latest(root: string): string {
  const [newest] = listRuns(root).runs
  if (newest !== undefined) return newest.id
  throw failure({
    where: root,
    got: 'no readable run',
    expected: 'at least one',
    fix: 'see anneal runs for what is wrong with each',
  })
}

function entriesOf(root: string): readonly Dirent[] {
  try {
    return readdirSync(root, { withFileTypes: true })
  } catch (error) {
    const { code, message } = error as NodeJS.ErrnoException
    if (code === 'ENOENT') return []
    throw failure({
      where: root,
      got: code === 'ENOTDIR' ? 'a file' : message,
      expected: 'a folder of runs',
      fix: 'name another with --runs DIR',
    })
  }
}
