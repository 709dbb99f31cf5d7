/**
 * A model that answers: decoder, tokenizer and what a checkpoint says about how to talk to it, behind three questions:
 * which tokens does a text have, what comes after them, and where does a text lie among others.
 */
import type { Program } from '../compiler/index.ts'
import type { Tokenizer } from '../data/tokenizers/tokenizer.ts'
import type { Decodable } from '../models/decoder.ts'
import { PagedDecoder } from '../models/paged-decoder.ts'
import { silentOf, type ChatTemplate } from './chat-template.ts'
import { RequestError } from './error.ts'
import { Generation, type GenerationRequest } from './generation.ts'
import { Metrics } from './metrics.ts'
import { Scheduler, type Job } from './scheduler.ts'
import { compileSchema, type CompiledSchema } from './schema/constraint.ts'
import { TokenTable } from './schema/tokens.ts'

/** What is served: everything about a checkpoint but its weights. */
export interface Served {
  /** By which requests ask for it. */
  readonly name: string
  readonly model: Decodable
  readonly tokenizer: Tokenizer
  readonly template: ChatTemplate
  /** Tokens that end an answer. */
  readonly stopIds: ReadonlySet<number>
  /** Tokens before the first of a text that is no conversation. */
  readonly begin?: readonly number[]
  /** Unix seconds. */
  readonly created: number
}

export interface EngineOptions {
  readonly threads?: number
  /** Texts written at once; default 16. */
  readonly slots?: number
  /** Requests that may wait; default 256. */
  readonly queue?: number
  /** Rows of a call: how much of prompts is read at once; default 64. */
  readonly rows?: number
  /** Tokens whose keys and values are kept; default a context for each slot. */
  readonly cacheTokens?: number
}

const pageSize = 16
const mostSchemas = 16

export class Engine {
  readonly served: Served
  readonly scheduler: Scheduler
  readonly metrics: Metrics
  readonly slots: number
  /** The checkpoint's, but special tokens and ids without a token are no text. */
  readonly tokenizer: Tokenizer
  readonly #schemas = new Map<string, CompiledSchema>()
  /** Which weights answer now, e.g. `step-200`. */
  version = ''
  #tokens: TokenTable | undefined

  private constructor(served: Served, scheduler: Scheduler, slots: number) {
    this.served = served
    this.scheduler = scheduler
    this.slots = slots
    this.tokenizer = silent(served.tokenizer)
    this.metrics = new Metrics(this)
  }

  /** Compiles the programs; weights are still to be loaded. */
  static async open(served: Served, options: EngineOptions = {}): Promise<Engine> {
    const { slots = 16, queue = 256, rows = 64, threads } = options
    const { context } = served.model
    const perSequence = Math.ceil(context / pageSize)
    const cacheTokens = Math.max(options.cacheTokens ?? slots * context, context)
    const decoder = await PagedDecoder.open(served.model, {
      pages: Math.max(perSequence, Math.ceil(cacheTokens / pageSize)),
      pageSize,
      rows: Math.max(rows, slots),
      wanted: slots,
      ...(threads ? { threads } : {}),
    })
    await decoder.prepare()
    return new Engine(served, new Scheduler(decoder, { slots, queue }), slots)
  }

  get context(): number {
    return this.served.model.context
  }

  /** Puts weights into the program: between two answers, whatever else is going on. */
  load(version: string, write: (program: Program) => Promise<void>): Promise<void> {
    return this.scheduler.exchange(async (program) => {
      await write(program)
      this.version = version
    })
  }

  /** What holds answers to a JSON schema, or to being any JSON object; kept for the next request. */
  schema(schema: unknown, param: string): CompiledSchema {
    this.#tokens ??= new TokenTable(this.tokenizer, this.served.model.vocab, this.served.stopIds)
    const key = JSON.stringify(schema) ?? 'any'
    const known = this.#schemas.get(key) ?? compileSchema(schema, this.#tokens, param)
    this.#schemas.delete(key)
    this.#schemas.set(key, known)
    if (this.#schemas.size > mostSchemas) this.#schemas.delete(this.#schemas.keys().next().value!)
    return known
  }

  /** Token ids of a text that is no conversation: with what the tokenizer puts in front of it. */
  encodeText(text: string, param: string): number[] {
    return [...(this.served.begin ?? []), ...this.encode(text, param)]
  }

  /**
   * Token ids of a text. Special tokens spelled out in it count as such.
   * @throws RequestError for text the tokenizer cannot spell.
   */
  encode(text: string, param: string): number[] {
    try {
      return Array.from(this.served.tokenizer.encode(text))
    } catch (error) {
      const message = error instanceof Error ? error.message : String(error)
      throw new RequestError(400, { message: `${param}: ${message}`, param, code: 'invalid_text' })
    }
  }

  /** How many tokens may follow a prompt; refuses prompts that leave no room. */
  room(prompt: readonly number[], param: string): number {
    if (prompt.length === 0)
      throw new RequestError(400, { message: `${param}: no text at all`, param, code: 'invalid_value' })
    if (prompt.length < this.context) return this.context - prompt.length
    throw new RequestError(400, {
      message: `${param}: ${prompt.length} tokens, but this model's context is ${this.context} tokens, the answer included`,
      param,
      code: 'context_length_exceeded',
    })
  }

  /** Writes `count` answers to one prompt, with consecutive seeds; the prompt is read once. */
  generate(
    request: Omit<GenerationRequest, 'after' | 'constraint'>,
    count = 1,
    constraint?: () => GenerationRequest['constraint'],
  ): Generation[] {
    const answers: Generation[] = []
    for (let i = 0; i < count; i++) {
      const sampling = { ...request.sampling, seed: (request.sampling.seed + i) % 2 ** 32 }
      const own = { ...request, sampling, constraint: constraint?.(), after: answers[0] }
      answers.push(new Generation(own, this.tokenizer, (answer) => this.metrics.ended(answer)))
    }
    this.scheduler.submit(answers)
    return answers
  }

  /**
   * Where a text lies: the mean over its tokens of what the last block returns, scaled to length 1. It is what the model
   * has at hand, not what a model trained to compare texts would give.
   */
  embed(prompt: readonly number[], signal: AbortSignal | undefined): Promise<Float32Array> {
    return new Promise((resolve, reject) => {
      let sum: Float64Array | undefined
      const job: Job = {
        tokens: prompt,
        most: prompt.length,
        share: false,
        signal,
        computed(hidden, width) {
          sum ??= new Float64Array(width)
          for (let i = 0; i < hidden.length; i++) sum[i % width]! += hidden[i]!
        },
        next() {
          const length = Math.hypot(...sum!) || 1
          resolve(Float32Array.from(sum!, (x) => x / length))
          return false
        },
        fail: reject,
      }
      this.scheduler.submit([job])
    })
  }

  close(): Promise<void> {
    return this.scheduler.close()
  }
}

const noBytes = new Uint8Array()

function silent(tokenizer: Tokenizer): Tokenizer {
  const specials = silentOf(tokenizer)
  const bytesOf = (id: number): Uint8Array => {
    if (id >= tokenizer.vocabSize || specials.has(id)) return noBytes
    try {
      return tokenizer.bytesOf(id)
    } catch {
      // A hole in the vocabulary.
      return noBytes
    }
  }
  return { ...tokenizer, bytesOf }
}
