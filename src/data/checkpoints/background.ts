/**
 * Saving beside the training: `save` copies what this process owns into a shadow buffer, which is all a training step
 * waits for, and a thread of its own hashes and writes the copy. One checkpoint is under way at a time: the next one
 * waits for it or is skipped, as the caller says.
 * The subtle thing: an error of the thread has no caller to go to at the time. It is kept, and thrown by whatever is
 * called next, so a full disk ends the run one checkpoint late and never silently.
 */
import { Worker } from 'node:worker_threads'
import { InternalError, UserError } from '../../errors.ts'
import { DTYPE_BYTES } from '../safetensors.ts'
import { contains, forEachRun } from './boxes.ts'
import type { CheckpointEntry } from './folder.ts'
import { pieceBytes, planPieces } from './pieces.ts'
import type { HeldBox, Piece } from './pieces.ts'
import type { SaveRequest } from './write.ts'

export interface SaverOptions extends Pick<SaveRequest, 'folder' | 'attempt' | 'keep'> {
  /** What each rank holds, all of them in order: every process says the same. */
  readonly held: readonly (readonly HeldBox[])[]
  /** The ranks of this process; all when left out. */
  readonly local?: readonly number[]
  /** The numbers of a box that a rank of this process holds, row-major: a window into its state. */
  readonly data: (rank: number, held: HeldBox) => NodeJS.ArrayBufferView
  /** How long the process of rank 0 waits for the files of the others; ten minutes when left out. */
  readonly patienceSeconds?: number
}

/** A checkpoint that is being written from its copy: the state may change from now on. */
export interface Snapshot {
  readonly step: number
  /** Bytes copied: what this process writes. */
  readonly bytes: number
  /** How long the caller was kept for the copy. */
  readonly copySeconds: number
  /** How long before that for the checkpoint before. */
  readonly waitSeconds: number
  /** The finished checkpoint, for the process of rank 0; undefined for others, whose files are written. */
  readonly done: Promise<CheckpointEntry | undefined>
}

/** @internal What the thread is given once, and then for every checkpoint. */
export interface ThreadSetup {
  readonly request: Omit<SaveRequest, 'step' | 'metadata'>
  readonly shadow: SharedArrayBuffer
  /** For every local rank where its pieces lie in the shadow, `[byte, bytes]`, in their order. */
  readonly local: readonly {
    readonly rank: number
    readonly places: readonly (readonly [number, number])[]
  }[]
}
/** @internal */
export type ThreadJob = Pick<SaveRequest, 'step' | 'metadata'>
/** @internal */
export type ThreadAnswer =
  | { readonly kind: 'done'; readonly entry: CheckpointEntry | undefined }
  | { readonly kind: 'failed'; readonly complaint: UserError['complaint']; readonly exitCode: 1 | 2 }
  | { readonly kind: 'defect'; readonly text: string }

/** A piece this process writes, where it comes from, and where in the shadow it goes. */
interface Copy {
  readonly piece: Piece
  readonly from: HeldBox
  readonly at: number
}

const ALIGNMENT = 64

export class CheckpointSaver {
  /** What the shadow costs, for as long as the saver lives. */
  readonly shadowBytes: number
  readonly #data: SaverOptions['data']
  readonly #copies: readonly Copy[]
  readonly #shadow: Uint8Array
  readonly #thread: Worker
  /** The checkpoint being written, and what the thread will say of it. */
  #underWay: Promise<unknown> | undefined
  #answer: PromiseWithResolvers<ThreadAnswer> | undefined
  /** What went wrong and has not been thrown yet. */
  #error: unknown
  /** Why there is no thread any more. */
  #lost: unknown

  constructor(options: SaverOptions) {
    const { held, data, folder, attempt, keep, patienceSeconds = 600 } = options
    const local = options.local ?? held.map((_, rank) => rank)
    const pieces = planPieces(held)
    const copies: Copy[] = []
    let end = 0
    for (const piece of pieces) {
      if (!local.includes(piece.rank)) continue
      const from = held[piece.rank]!.find(({ path, box }) => path === piece.path && contains(box, piece.box))!
      copies.push({ piece, from, at: end })
      end += Math.ceil(pieceBytes(piece) / ALIGNMENT) * ALIGNMENT
    }
    this.#data = data
    this.#copies = copies
    this.shadowBytes = end
    // Touched now, so that the first copy is no slower than the others.
    this.#shadow = new Uint8Array(new SharedArrayBuffer(end)).fill(0)
    const setup: ThreadSetup = {
      request: { folder, attempt, keep, patienceSeconds, pieces },
      shadow: this.#shadow.buffer as SharedArrayBuffer,
      local: local.map((rank) => ({
        rank,
        places: copies.flatMap(({ piece, at }) =>
          piece.rank === rank ? [[at, pieceBytes(piece)] as const] : [],
        ),
      })),
    }
    // `.ts` in the sources, `.js` in the package.
    const file = new URL(import.meta.url.replace(/background(?=\.\w+$)/, 'background-thread'))
    // Not the options of this process, which need not fit a file.
    this.#thread = new Worker(file, { workerData: setup, execArgv: [] })
    this.#thread.on('message', (answer: ThreadAnswer) => this.#answer?.resolve(answer))
    this.#thread.on('error', (error) => this.#lose(error))
    this.#thread.on('exit', () =>
      this.#lose(new InternalError('the thread that writes checkpoints has ended')),
    )
    this.#thread.unref()
  }

  /**
   * Copies the state and has the copy written. Comes back once the state may change.
   *
   * @param whenBusy while the checkpoint before is still being written: wait for it, or skip this one (undefined).
   * @throws what went wrong with the checkpoint before, once: a UserError for a full disk and the like.
   */
  async save(
    step: number,
    metadata: Readonly<Record<string, string>>,
    whenBusy: 'wait' | 'skip' = 'wait',
  ): Promise<Snapshot | undefined> {
    this.#throwLate()
    const asked = performance.now()
    if (this.#underWay) {
      if (whenBusy === 'skip') return undefined
      await this.settle()
    }
    const started = performance.now()
    for (const copy of this.#copies) this.#copy(copy)
    const copied = performance.now()
    const done = this.#write({ step, metadata })
    this.#underWay = done
    done.then(
      () => (this.#underWay = undefined),
      (error: unknown) => {
        this.#underWay = undefined
        this.#error ??= error
      },
    )
    return {
      step,
      bytes: this.#copies.reduce((sum, { piece }) => sum + pieceBytes(piece), 0),
      copySeconds: (copied - started) / 1000,
      waitSeconds: (started - asked) / 1000,
      done,
    }
  }

  /** Comes back when nothing is under way; throws what went wrong since the last call. */
  async settle(): Promise<void> {
    await this.#underWay?.catch(() => undefined)
    this.#throwLate()
  }

  /** Waits for the checkpoint under way and ends the thread. The saver can then not be used. */
  async close(): Promise<void> {
    await this.#underWay?.catch(() => undefined)
    await this.#thread.terminate()
    this.#throwLate()
  }

  #throwLate(): void {
    const error = this.#error
    this.#error = undefined
    if (error !== undefined) throw error
  }

  #copy({ piece, from, at }: Copy): void {
    const { buffer, byteOffset, byteLength } = this.#data(piece.rank, from)
    if (byteLength !== pieceBytes(from))
      throw new InternalError(`'${from.path}': ${byteLength} bytes for a box of ${pieceBytes(from)}`)
    const source = new Uint8Array(buffer, byteOffset, byteLength)
    const width = DTYPE_BYTES[piece.dtype]
    forEachRun(from.box, piece.box, piece.box, (fromOffset, toOffset, count) => {
      const run = source.subarray(fromOffset * width, (fromOffset + count) * width)
      this.#shadow.set(run, at + toOffset * width)
    })
  }

  async #write(job: ThreadJob): Promise<CheckpointEntry | undefined> {
    if (this.#lost !== undefined) throw this.#lost
    // While it writes, the thread keeps the process alive.
    this.#thread.ref()
    try {
      this.#answer = Promise.withResolvers()
      this.#thread.postMessage(job, [])
      const answer = await this.#answer.promise
      if (answer.kind === 'done') return answer.entry
      if (answer.kind === 'failed') throw new UserError(answer.complaint, answer.exitCode)
      throw new InternalError(`while writing a checkpoint: ${answer.text}`)
    } finally {
      this.#answer = undefined
      this.#thread.unref()
    }
  }

  #lose(error: unknown): void {
    this.#lost ??= error
    this.#answer?.reject(this.#lost)
  }
}
