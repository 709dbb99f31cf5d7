/**
 * Writes a run: one folder, `run.json` once, then one append-only segment file for each time it was started or
 * resumed. Nothing written is ever changed or dropped. Subtle: appends go to memory and reach the file within 150 ms
 * or 64 KiB, so the training loop never waits for a disk; a checkpoint line is forced down at once, because a
 * checkpoint that the log does not know is lost. After a failed write the rest stays buffered and continues exactly
 * where the file stopped.
 */
import {
  closeSync,
  fsyncSync,
  mkdirSync,
  openSync,
  readdirSync,
  renameSync,
  rmSync,
  writeFileSync,
  writeSync,
} from 'node:fs'
import { randomInt } from 'node:crypto'
import { join } from 'node:path'
import { failure, UserError } from '../errors.ts'
import { printLine } from './lines.ts'
import type { CheckpointLine, PointLine, RunLine, RunStatus, SampleLine } from './lines.ts'
import { acquireLock } from './lock.ts'
import type { Lock } from './lock.ts'

/** What `run.json` holds. `config`, `plan` and `machine` are plain JSON that the recipe chooses. */
export interface RunMeta {
  readonly version: 1
  readonly id: string
  readonly recipe: string
  readonly created: string
  readonly config: JsonObject
  readonly plan: JsonObject
  readonly machine: JsonObject
  /** Of a fork: the run and the step whose checkpoint it started from. */
  readonly parent?: RunOrigin
}

export interface RunOrigin {
  readonly run: string
  readonly step: number
}

/** Plain data; written as JSON. */
export type JsonObject = Readonly<Record<string, unknown>>

export interface NewRun {
  readonly recipe: string
  readonly config: object
  readonly plan: object
  readonly machine: object
  /** Of a fork: where it starts from. */
  readonly parent?: RunOrigin
  /** For tests: when the run starts. */
  readonly now?: Date
}

const flushBytes = 64 * 1024
const flushMs = 150

/** Creates `root/<date>-<recipe>-<4 letters>/` and opens its first segment. */
export function createRun(
  root: string,
  { recipe, config, plan, machine, parent, now = new Date() }: NewRun,
): RunWriter {
  const id = makeFolder(root, `${now.toISOString().slice(0, 10)}-${recipe}`)
  const dir = join(root, id)
  try {
    const lock = acquireLock(dir)
    const forked = parent === undefined ? {} : { parent }
    const meta = { version: 1, id, recipe, created: now.toISOString(), config, plan, machine, ...forked }
    const path = join(dir, 'run.json')
    writeFileSync(`${path}.tmp`, `${JSON.stringify(meta, null, 2)}\n`, { flush: true })
    renameSync(`${path}.tmp`, path)
    return openSegment(id, dir, lock, { fromStep: parent?.step ?? 0 })
  } catch (error) {
    // Nothing was trained: a folder without a run in it would only puzzle.
    rmSync(dir, { recursive: true, force: true })
    throw refusedFolder(root, error)
  }
}

/**
 * Opens a new segment of an existing run that goes on after `fromStep`. Points of earlier segments beyond that step
 * stay on disk; readers prefer the new ones.
 * @throws UserError (exit 1) when another live process writes this run, or the disk refuses.
 */
export function reopenRun(root: string, id: string, start: SegmentStart): RunWriter {
  const dir = join(root, id)
  try {
    return openSegment(id, dir, acquireLock(dir), start)
  } catch (error) {
    throw refusedFolder(dir, error)
  }
}

/** Where a segment begins; `config` only when it differs from what the run had so far. */
export interface SegmentStart {
  readonly fromStep: number
  readonly config?: object
}

function openSegment(id: string, dir: string, lock: Lock, start: SegmentStart): RunWriter {
  try {
    return new RunWriter(id, dir, lock, start)
  } catch (error) {
    lock.release()
    throw error
  }
}

/** A system's refusal to make the files of a run as a UserError; other errors come back unchanged. */
function refusedFolder(folder: string, error: unknown): unknown {
  if (error instanceof UserError || (error as NodeJS.ErrnoException).code === undefined) return error
  return failure({
    where: folder,
    got: (error as Error).message,
    expected: 'a folder that runs can be written to',
    fix: 'free some space, or choose another place with --runs DIR',
  })
}

export class RunWriter {
  readonly id: string
  readonly dir: string
  /** Number of the segment being written, from 1. */
  readonly segment: number
  readonly #lock: Lock
  readonly #path: string
  readonly #fd: number
  readonly #timer: NodeJS.Timeout
  readonly #onExit = (): void => this.#flushQuietly()
  #pending: Buffer[] = []
  #pendingBytes = 0
  #lastFlush = performance.now()
  #closed = false

  /** @internal use `createRun` or `reopenRun` */
  constructor(id: string, dir: string, lock: Lock, { fromStep, config }: SegmentStart) {
    this.id = id
    this.dir = dir
    this.#lock = lock
    const folder = join(dir, 'segments')
    mkdirSync(folder, { recursive: true })
    const parent = lastSegment(folder)
    this.segment = (parent ?? 0) + 1
    this.#path = join(folder, segmentFile(this.segment))
    this.#fd = openSync(this.#path, 'ax')
    // The loop may block the event loop for a step, so appends check the clock too; this covers the idle case.
    this.#timer = setInterval(() => this.#flushQuietly(), flushMs).unref()
    process.once('exit', this.#onExit)
    const time = new Date().toISOString()
    const changed = config === undefined ? {} : { config: config as JsonObject }
    this.#append({ kind: 'segment', segment: this.segment, parent, fromStep, time, ...changed })
    this.#append({ kind: 'status', status: 'running', time })
    try {
      this.flush({ sync: true })
    } catch (error) {
      this.#end()
      closeSync(this.#fd)
      throw error
    }
  }

  point(point: Omit<PointLine, 'kind'>): void {
    this.#append({
      kind: 'point',
      step: point.step,
      tokens: point.tokens,
      seconds: point.seconds,
      flops: point.flops,
      metrics: point.metrics,
    })
    if (this.#pendingBytes > flushBytes || performance.now() - this.#lastFlush > flushMs) this.flush()
  }

  sample({ step, prompt, text }: Omit<SampleLine, 'kind'>): void {
    this.#append({ kind: 'sample', step, prompt, text })
    this.flush()
  }

  /** Call after the checkpoint file is in place: this line is on disk when the call returns. */
  checkpoint({ step, file, bytes, files }: Omit<CheckpointLine, 'kind'>): void {
    this.#append({ kind: 'checkpoint', step, file, bytes, ...(files === undefined ? {} : { files }) })
    this.flush({ sync: true })
  }

  /**
   * Writes everything appended so far to the file; with `sync`, down to the disk.
   * @throws UserError (exit 1) when the disk refuses; what was not written stays buffered.
   */
  flush({ sync = false } = {}): void {
    this.#lastFlush = performance.now()
    try {
      while (this.#pending.length > 0) {
        const chunk = Buffer.concat(this.#pending)
        const written = writeSync(this.#fd, chunk)
        this.#pending = written < chunk.length ? [chunk.subarray(written)] : []
        this.#pendingBytes = chunk.length - written
      }
      if (sync) fsyncSync(this.#fd)
    } catch (error) {
      throw failure({
        where: this.#path,
        got: (error as Error).message,
        expected: 'a disk that takes the log',
        fix: 'free some space; what was written so far is intact',
      })
    }
  }

  /** Writes the final status, releases the lock and closes the file. Closing twice does nothing. */
  close(status: RunStatus, detail: { readonly step?: number; readonly reason?: string } = {}): void {
    if (this.#closed) return
    this.#end()
    this.#append({ kind: 'status', status, time: new Date().toISOString(), ...detail })
    try {
      this.flush({ sync: true })
    } finally {
      closeSync(this.#fd)
      this.#lock.release()
    }
  }

  #end(): void {
    this.#closed = true
    clearInterval(this.#timer)
    process.removeListener('exit', this.#onExit)
  }

  #append(line: RunLine): void {
    const bytes = Buffer.from(printLine(line))
    this.#pending.push(bytes)
    this.#pendingBytes += bytes.length
  }

  /** For timers and exit, where throwing would hide the real end of the run. */
  #flushQuietly(): void {
    try {
      this.flush()
    } catch {
      // The next flush from the loop meets the same error and reports it.
    }
  }
}

/** File name of segment `number`. */
export const segmentFile = (number: number): string => `${String(number).padStart(4, '0')}.jsonl`

/** Numbers of the segments in a `segments/` folder, ascending. */
export function segmentNumbers(files: readonly string[]): number[] {
  return files
    .flatMap((file) => /^(\d{4,})\.jsonl$/.exec(file)?.[1] ?? [])
    .map(Number)
    .toSorted((a, b) => a - b)
}

const lastSegment = (folder: string): number | null => segmentNumbers(readdirSync(folder)).at(-1) ?? null

/** Letters and digits that cannot be taken for one another. */
const alphabet = 'abcdefghjkmnpqrstuvwxyz23456789'

/** Makes a new folder `<base>-<4 letters>` in `root`, which is created when missing, and returns its name. */
function makeFolder(root: string, base: string): string {
  try {
    mkdirSync(root, { recursive: true })
    for (let attempt = 0; ; attempt++) {
      const letters = Array.from({ length: 4 }, () => alphabet[randomInt(alphabet.length)]).join('')
      try {
        mkdirSync(join(root, `${base}-${letters}`))
        return `${base}-${letters}`
      } catch (error) {
        if ((error as NodeJS.ErrnoException).code !== 'EEXIST' || attempt === 20) throw error
      }
    }
  } catch (error) {
    throw refusedFolder(root, error)
  }
}
