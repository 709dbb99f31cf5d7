/**
 * One writer a run: `runs/<id>/lock` names the process that writes. A process that was killed cannot remove its
 * lock, so a lock whose process is gone is stale and may be taken over. Subtle: process ids are reused, hence the
 * process's start time is stored too where the system tells it (Linux), and the host, since a process on another
 * machine cannot be looked up.
 */
import { closeSync, openSync, readFileSync, renameSync, rmSync, statSync, writeSync } from 'node:fs'
import { hostname } from 'node:os'
import { join } from 'node:path'
import { failure } from '../errors.ts'

interface Holder {
  readonly pid: number
  readonly host: string
  /** Start time of the process in clock ticks since boot; null where unknown. */
  readonly started: string | null
}

export interface Lock {
  release(): void
}

/** A lock this young may still be being written by the process that made it. */
const unwrittenGraceMs = 2000

/**
 * Takes the lock of a run folder, from a dead process if need be.
 * @throws UserError (exit 1) when a live process holds it.
 */
export function acquireLock(runDir: string): Lock {
  const path = join(runDir, 'lock')
  for (let attempt = 0; attempt < 5; attempt++) {
    if (tryCreate(path)) return { release: () => releaseLock(path) }
    const holder = readHolder(path)
    if (holder === 'unwritten') break
    if (holder !== null && isAlive(holder)) throw refused(runDir, holder)
    removeStale(path, holder)
  }
  throw failure({
    where: path,
    got: 'a lock that another process is taking right now',
    expected: 'a run that nobody writes',
    fix: 'try again in a few seconds',
  })
}

/** Whether a process that may still be alive holds the lock of this run folder. */
export function isLocked(runDir: string): boolean {
  const holder = readHolder(join(runDir, 'lock'))
  return holder === 'unwritten' || (holder !== null && isAlive(holder))
}

/** The live process of this machine that writes a run; undefined when there is none, or it runs elsewhere. */
export function lockHolder(runDir: string): number | undefined {
  const holder = readHolder(join(runDir, 'lock'))
  if (holder === null || holder === 'unwritten' || holder.host !== hostname()) return undefined
  return isAlive(holder) ? holder.pid : undefined
}

function refused(runDir: string, holder: Holder): Error {
  const here = holder.host === hostname()
  return failure({
    where: runDir,
    got: `a run that process ${holder.pid}${here ? '' : ` on ${holder.host}`} is writing`,
    expected: 'a run that nobody writes',
    fix: here
      ? `wait for it, or stop it with kill ${holder.pid}`
      : `stop it there, or delete ${join(runDir, 'lock')} if that machine is gone`,
  })
}

function tryCreate(path: string): boolean {
  let fd: number
  try {
    fd = openSync(path, 'wx')
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'EEXIST') return false
    throw error
  }
  const holder: Holder = { pid: process.pid, host: hostname(), started: startTime(process.pid) }
  try {
    writeSync(fd, `${JSON.stringify(holder)}\n`)
  } catch (error) {
    // A full disk. An empty lock would keep everyone else waiting.
    rmSync(path, { force: true })
    throw error
  } finally {
    closeSync(fd)
  }
  return true
}

/** The holder, null when there is no lock or it is damaged, 'unwritten' when its content has yet to appear. */
function readHolder(path: string): Holder | null | 'unwritten' {
  try {
    const holder = JSON.parse(readFileSync(path, 'utf8')) as Partial<Holder>
    if (typeof holder.pid === 'number' && typeof holder.host === 'string') {
      return { pid: holder.pid, host: holder.host, started: holder.started ?? null }
    }
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return null
  }
  const age = Date.now() - (statSync(path, { throwIfNoEntry: false })?.mtimeMs ?? 0)
  return age < unwrittenGraceMs ? 'unwritten' : null
}

function isAlive({ pid, host, started }: Holder): boolean {
  if (host !== hostname()) return true
  try {
    process.kill(pid, 0)
  } catch (error) {
    // EPERM: the process exists and belongs to someone else.
    if ((error as NodeJS.ErrnoException).code !== 'EPERM') return false
  }
  const now = startTime(pid)
  return started === null || now === null || now === started
}

/** Field 22 of /proc/<pid>/stat; the second field, a name in parentheses, may hold spaces. A zombie is dead. */
function startTime(pid: number): string | null {
  try {
    const stat = readFileSync(`/proc/${pid}/stat`, 'utf8')
    const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ')
    return fields[0] === 'Z' ? 'zombie' : (fields[19] ?? null)
  } catch {
    return null
  }
}

/** Renames before deleting, so that of two processes that saw the same stale lock only one removes it. */
function removeStale(path: string, seen: Holder | null): void {
  const aside = `${path}.stale-${process.pid}`
  try {
    renameSync(path, aside)
  } catch {
    return
  }
  const moved = readHolder(aside)
  const isFresh = moved === 'unwritten' || (moved !== null && moved.pid !== seen?.pid && isAlive(moved))
  // Between our look and our rename another process took over: give its lock back, the next attempt will refuse.
  if (isFresh) renameSync(aside, path)
  else rmSync(aside, { force: true })
}

function releaseLock(path: string): void {
  const holder = readHolder(path)
  if (holder !== null && holder !== 'unwritten' && holder.pid === process.pid && holder.host === hostname()) {
    rmSync(path, { force: true })
  }
}
