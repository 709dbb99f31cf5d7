/**
 * Training asked for in the page. Each is a process of its own, detached, so that it goes on when the server ends. Which
 * run it writes is read off the locks in the runs folder: no protocol between the two. What it says goes to a file that
 * moves into the run's folder as `log.txt` once there is one.
 */
import { spawn } from 'node:child_process'
import { closeSync, existsSync, mkdirSync, openSync, readFileSync, renameSync } from 'node:fs'
import { join } from 'node:path'
import { stripVTControlCharacters } from 'node:util'
import { badUsage, failure } from '../errors.ts'
import { lockHolder } from '../runs/index.ts'
import { runFolders } from '../runs/find.ts'
import { NotFound } from './json.ts'
import type { LabOptions } from './options.ts'
import type { JobReply, Settings } from './wire.ts'

export const logFile = 'log.txt'

/** Where what has no run yet is kept, in the runs folder. */
export const labFolder = '.lab'

interface Job {
  readonly id: string
  readonly pid: number
  log: string
  run: string | null
  exitCode: number | null
}

export class Jobs {
  readonly #options: LabOptions
  readonly #jobs = new Map<string, Job>()
  #count = 0

  constructor(options: LabOptions) {
    this.#options = options
  }

  /** Starts a command that trains. `run`: the run it goes on with, when that is known. */
  start(words: readonly string[], run: string | null = null): JobReply {
    const { command, runsDir } = this.#options
    const [program, ...first] = command
    const folder = join(runsDir, labFolder)
    mkdirSync(folder, { recursive: true })
    const id = `${Date.now()}-${++this.#count}`
    const log = run === null ? join(folder, `${id}.txt`) : join(runsDir, run, logFile)
    const output = openSync(log, 'a')
    const child = spawn(program, [...first, ...words, '--runs', runsDir], {
      detached: true,
      stdio: ['ignore', output, output],
      env: { ...process.env, NO_COLOR: '1' },
    })
    closeSync(output)
    if (child.pid === undefined) {
      throw failure({
        where: program,
        got: 'a program that does not start',
        expected: 'a training process',
        fix: 'train in a terminal, which says more',
      })
    }
    const job: Job = { id, pid: child.pid, log, run, exitCode: null }
    child.on('exit', (code) => (job.exitCode = code ?? 1))
    child.on('error', () => (job.exitCode = 1))
    child.unref()
    this.#jobs.set(id, job)
    return this.look(id)
  }

  /** How a job stands. */
  look(id: string): JobReply {
    const job = this.#jobs.get(id)
    if (job === undefined) {
      const [where, got] = ['jobs', `no job '${id.slice(0, 40)}'`]
      throw new NotFound(
        { where, got, expected: 'one that this server started', fix: 'see the list of runs' },
        2,
      )
    }
    const { runsDir } = this.#options
    const isNew = job.run === null
    if (job.exitCode === null || job.run === null) job.run ??= this.#runOf(job.pid)
    if (isNew && job.run !== null) {
      const moved = join(runsDir, job.run, logFile)
      if (existsSync(job.log)) renameSync(job.log, moved)
      job.log = moved
    }
    const writes = job.run !== null && lockHolder(join(runsDir, job.run)) === job.pid
    const state =
      job.exitCode === null
        ? writes
          ? 'running'
          : 'starting'
        : job.exitCode === 0 || job.exitCode === 130
          ? 'ended'
          : 'failed'
    return { job: id, state, run: job.run, message: lastLine(job.log) }
  }

  #runOf(pid: number): string | null {
    const { runsDir } = this.#options
    // Newest names come last.
    return runFolders(runsDir).ids.findLast((run) => lockHolder(join(runsDir, run)) === pid) ?? null
  }
}

function lastLine(path: string): string {
  try {
    const lines = stripVTControlCharacters(readFileSync(path, 'utf8')).trimEnd().split('\n')
    return (lines.findLast((line) => line.startsWith('error: ')) ?? lines.at(-1) ?? '').slice(0, 1000)
  } catch {
    return ''
  }
}

/**
 * Settings as words of a command line. They become arguments of a process, never text of a shell.
 * @throws UserError (exit 2) when a key or value is not text that can be a setting.
 */
export function settingWords(settings: unknown): string[] {
  const refuse = (got: string): Error =>
    badUsage({
      where: 'settings',
      got,
      expected: 'keys with values as text',
      fix: 'send {"steps": "200"}, say',
    })
  if (settings === undefined) return []
  if (typeof settings !== 'object' || settings === null || Array.isArray(settings))
    throw refuse(JSON.stringify(settings).slice(0, 100))
  return Object.entries(settings as Settings).map(([key, value]) => {
    if (!/^[A-Za-z][A-Za-z0-9]*(\.[A-Za-z][A-Za-z0-9]*)*$/.test(key))
      throw refuse(`the key '${key.slice(0, 60)}'`)
    if (typeof value !== 'string' || value.includes('\0') || value.length > 10_000)
      throw refuse(`a value of ${key} that is no setting`)
    return `${key}=${value}`
  })
}
