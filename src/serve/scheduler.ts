/**
 * Continuous batching: one loop over one decoder. Each turn takes the next token of every text that is being written and
 * as much of the waiting prompts as fits into the same call (Yu et al., Orca: A Distributed Serving System for
 * Transformer-Based Generative Models); texts join when there is a place and pages for them, and leave the moment they
 * end or nobody wants them any more.
 *
 * Weights can be exchanged while requests come in. An answer is the work of one set of weights: the exchange waits for
 * the texts under way, and those that come meanwhile wait for it.
 */
import type { Program } from '../compiler/index.ts'
import type { PagedDecoder, Results, Row } from '../models/paged-decoder.ts'
import { RequestError } from './error.ts'
import { PagePool, type Held } from './pages.ts'

/** Something to be run through the model. */
export interface Job {
  /** All its tokens; grows as it is written. */
  readonly tokens: readonly number[]
  /** Most tokens it will come to have in the cache. */
  readonly most: number
  /** Whether what is already known of its first tokens may be used. */
  readonly share: boolean
  /** Starts only when this one has read its prompt, which it shares. */
  readonly after?: Job | undefined
  readonly signal?: AbortSignal | undefined
  /** It was let in; `known` tokens need not be read. */
  admitted?(known: number): void
  /** What the last block returned for its next tokens, [tokens, width]. */
  computed?(hidden: Float32Array, width: number): void
  /** Logits after its last token: adds a token, or returns false when it has come to its end. */
  next(logits: Float32Array): boolean
  /** It ends without coming to its end: aborted, or the server failed. */
  fail(error: unknown): void
}

interface Running {
  readonly job: Job
  readonly held: Held
  /** Tokens in the cache. */
  done: number
}

/** Weights that wait to be written. */
interface Exchange {
  readonly run: (program: Program) => Promise<void>
  readonly done: () => void
  readonly fail: (error: unknown) => void
}

const closing = (): RequestError =>
  new RequestError(503, { message: 'the server is closing', code: 'closing' })

export interface SchedulerLimits {
  /** Texts at once. */
  readonly slots: number
  /** Requests that may wait; more are refused. */
  readonly queue: number
}

export class Scheduler {
  readonly decoder: PagedDecoder
  readonly pool: PagePool
  readonly #limits: SchedulerLimits
  readonly #waiting: Job[] = []
  #running: Running[] = []
  /** Jobs that have read their prompt, or have ended. */
  readonly #ready = new WeakSet<Job>()
  #exchanges: Exchange[] = []
  #loop: Promise<void> | undefined
  #closed = false
  /** Calls of the decoder, and rows in them. */
  turns = 0
  rows = 0

  constructor(decoder: PagedDecoder, limits: SchedulerLimits) {
    this.decoder = decoder
    this.#limits = limits
    this.pool = new PagePool(decoder.options.pages, decoder.options.pageSize)
  }

  get running(): number {
    return this.#running.length
  }

  get waiting(): number {
    return this.#waiting.length
  }

  /** @throws RequestError 429 when too many wait already, 503 when the server is closing. */
  submit(jobs: readonly Job[]): void {
    if (this.#closed) throw closing()
    if (this.#waiting.length + jobs.length > this.#limits.queue) {
      throw new RequestError(429, {
        message: `${this.#waiting.length} requests are waiting already; try again later`,
        code: 'too_many_requests',
        headers: { 'retry-after': '1' },
      })
    }
    this.#waiting.push(...jobs)
    this.#wake()
  }

  /**
   * Changes the weights between two texts. Comes back when it is done; throws what `run` throws, and when the server
   * closes before its turn comes: nobody is left waiting.
   */
  exchange(run: (program: Program) => Promise<void>): Promise<void> {
    if (this.#closed) return Promise.reject(closing())
    return new Promise((resolve, reject) => {
      this.#exchanges.push({ run, done: resolve, fail: reject })
      this.#wake()
    })
  }

  /** Ends all texts under way and waits for the call that runs. */
  async close(): Promise<void> {
    this.#closed = true
    const error = closing()
    for (const job of this.#waiting.splice(0)) job.fail(error)
    for (const running of this.#running) this.#end(running, error)
    for (const exchange of this.#exchanges.splice(0)) exchange.fail(error)
    await this.#loop
    await this.decoder.close()
  }

  #wake(): void {
    this.#loop ??= this.#run().finally(() => {
      this.#loop = undefined
      if (this.#hasWork()) this.#wake()
    })
  }

  #hasWork(): boolean {
    return this.#running.length > 0 || (!this.#closed && this.#waiting.length + this.#exchanges.length > 0)
  }

  async #run(): Promise<void> {
    while (this.#hasWork()) {
      this.#dropAborted()
      if (this.#running.length === 0) await this.#exchangeAll()
      if (this.#exchanges.length === 0 && !this.#closed) this.#admit()
      if (this.#running.length > 0) await this.#turn()
      // Requests, aborts and answers get their turn, too.
      await new Promise((resolve) => setImmediate(resolve))
    }
  }

  #dropAborted(): void {
    for (const running of this.#running)
      if (running.job.signal?.aborted) this.#end(running, running.job.signal.reason)
    for (const job of this.#waiting.slice()) {
      if (!job.signal?.aborted) continue
      this.#waiting.splice(this.#waiting.indexOf(job), 1)
      this.#ready.add(job)
      job.fail(job.signal.reason)
    }
  }

  async #exchangeAll(): Promise<void> {
    for (let next = this.#exchanges.shift(); next; next = this.#exchanges.shift()) {
      const { run, done, fail } = next
      try {
        await run(this.decoder.program)
        done()
      } catch (error) {
        fail(error)
      }
      // What was read with the old weights is worth nothing to the new ones.
      this.pool.forget()
    }
  }

  /** In the order they came; one that waits for another does not hold up those behind it. */
  #admit(): void {
    for (const job of this.#waiting.slice()) {
      if (this.#running.length >= this.#limits.slots) return
      if (job.after && !this.#ready.has(job.after)) continue
      const held = this.pool.admit(job.tokens, job.most, job.share)
      if (!held) return
      this.#waiting.splice(this.#waiting.indexOf(job), 1)
      job.admitted?.(held.known)
      this.#running.push({ job, held, done: held.known })
    }
  }

  /** One call: texts being written first, a token each; then prompts, in order, as far as there is room. */
  async #turn(): Promise<void> {
    const left = ({ job, done }: Running): number => job.tokens.length - done
    const rows: Row[] = []
    const wanted: number[] = []
    const taken: { readonly running: Running; readonly first: number; readonly count: number }[] = []
    for (const running of this.#running.toSorted((a, b) => Number(left(a) > 1) - Number(left(b) > 1))) {
      const { job, held, done } = running
      const count = Math.min(left(running), this.decoder.options.rows - rows.length)
      if (count === 0) break
      this.pool.grow(held, done + count)
      taken.push({ running, first: rows.length, count })
      for (let position = done; position < done + count; position++)
        rows.push({ token: job.tokens[position]!, position, pages: held.pages })
      if (count === left(running)) wanted.push(rows.length - 1)
    }
    let results: Results
    try {
      results = await this.decoder.run(rows, wanted)
    } catch (error) {
      for (const { running } of taken) this.#end(running, error)
      return
    }
    this.turns++
    this.rows += rows.length
    let read = 0
    for (const { running, first, count } of taken) {
      const isLast = count === left(running)
      const logits = isLast ? results.logits[read++]! : undefined
      // It may have been ended while the call ran.
      if (!this.#running.includes(running)) continue
      const { job, held } = running
      running.done += count
      this.pool.publish(held, job.tokens, running.done)
      try {
        const { hidden, width } = results
        job.computed?.(hidden.subarray(first * width, (first + count) * width), width)
        if (!logits) continue
        this.#ready.add(job)
        if (job.signal?.aborted) this.#end(running, job.signal.reason)
        else if (!job.next(logits)) this.#leave(running)
      } catch (error) {
        this.#end(running, error)
      }
    }
  }

  #end(running: Running, error: unknown): void {
    this.#leave(running)
    running.job.fail(error)
  }

  #leave(running: Running): void {
    this.#ready.add(running.job)
    this.#running = this.#running.filter((other) => other !== running)
    this.pool.release(running.held)
  }
}
