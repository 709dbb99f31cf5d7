/**
 * One answer while it is written: draws tokens, turns them into text, watches for what ends it, and hands all of it to
 * whoever iterates over it. Nothing waits for the reader: an answer is at most a context long, so what is not read yet is
 * kept, and a slow connection holds up nobody.
 *
 * The subtle thing is text that may become a stop string: it is held back until it is sure not to be one, so a stream
 * never has to take anything back.
 */
import { streamDecoder } from '../data/tokenizers/decode.ts'
import type { Tokenizer } from '../data/tokenizers/tokenizer.ts'
import type { Job } from './scheduler.ts'
import { probabilities, sample, type Sampling, type TokenProbability } from './sampling.ts'

/** What decides which tokens may come next (schema/constraint.ts). */
export interface Constraint {
  /** Marks allowed tokens, at least one, such that what they begin can be ended with `left` tokens, this one included. */
  allowed(left: number): Uint8Array
  /** Takes a token that was allowed. */
  push(id: number): void
  /** Nothing may follow. */
  readonly complete: boolean
}

export interface GenerationRequest {
  readonly prompt: readonly number[]
  readonly maxTokens: number
  readonly sampling: Sampling
  readonly stop?: readonly string[]
  /** Tokens that end the text and are not part of it. */
  readonly stopIds?: ReadonlySet<number>
  /** Give probabilities, with so many of the likeliest tokens. */
  readonly top?: number | undefined
  readonly constraint?: Constraint | undefined
  readonly signal?: AbortSignal | undefined
  /** An answer to the same prompt. */
  readonly after?: Generation | undefined
}

export interface Token {
  readonly id: number
  /** What became certain with it, after what was held back; often empty. */
  readonly text: string
  readonly logprob?: number
  readonly top?: readonly TokenProbability[]
}

export type FinishReason = 'stop' | 'length'

export class Generation implements Job, AsyncIterable<Token> {
  readonly tokens: number[]
  readonly most: number
  readonly share = true
  readonly after: Job | undefined
  readonly signal: AbortSignal | undefined
  /** Known once it has ended. */
  finish: FinishReason | undefined
  readonly promptTokens: number
  /** Tokens of the prompt that were in the cache. */
  cachedTokens = 0
  /** Tokens drawn, one that ended the text included. */
  drawn = 0
  readonly started = performance.now()
  /** When the first token was there, after the start. */
  firstMs: number | undefined
  readonly #request: GenerationRequest
  readonly #onEnd: (answer: Generation) => void
  readonly #text: { push(id: number): string; flush(): string }
  readonly #counts = new Map<number, number>()
  readonly #stop: readonly string[]
  #held = ''
  readonly #queue: Token[] = []
  #error: { readonly value: unknown } | undefined
  #ended = false
  #wake: () => void = () => undefined

  constructor(
    request: GenerationRequest,
    tokenizer: Pick<Tokenizer, 'bytesOf'>,
    onEnd: (answer: Generation) => void = () => undefined,
  ) {
    this.#onEnd = onEnd
    this.#request = request
    this.#stop = request.stop ?? []
    this.tokens = [...request.prompt]
    this.promptTokens = request.prompt.length
    this.most = request.prompt.length + request.maxTokens - 1
    this.after = request.after
    this.signal = request.signal
    this.#text = streamDecoder(tokenizer)
  }

  admitted(known: number): void {
    this.cachedTokens = known
  }

  next(logits: Float32Array): boolean {
    const { sampling, constraint, stopIds, maxTokens, top } = this.#request
    const left = maxTokens - this.drawn
    const id = sample(logits, sampling, this.drawn, this.#counts, constraint?.allowed(left))
    this.firstMs ??= performance.now() - this.started
    this.drawn++
    if (stopIds?.has(id)) return this.#close('stop')
    this.tokens.push(id)
    this.#counts.set(id, (this.#counts.get(id) ?? 0) + 1)
    constraint?.push(id)
    this.#held += this.#text.push(id)
    const stopped = firstOf(this.#held, this.#stop)
    const certain = stopped ?? this.#held.length - beginning(this.#held, this.#stop)
    const text = this.#held.slice(0, certain)
    this.#held = stopped === undefined ? this.#held.slice(certain) : ''
    this.#say({ id, text, ...(top === undefined ? {} : probabilities(logits, id, top)) })
    if (stopped !== undefined) return this.#close('stop')
    if (constraint?.complete) return this.#close('stop')
    return this.drawn < maxTokens || this.#close('length')
  }

  fail(error: unknown): void {
    this.#error ??= { value: error }
    this.#end()
  }

  /** Text after the last token: of an incomplete character, or the beginning of a stop string that did not come. */
  get rest(): string {
    return this.#held
  }

  #close(reason: FinishReason): false {
    const unfinished = this.#text.flush()
    // What a stop string cut off took everything after it along.
    if (reason === 'length' || this.#held !== '') this.#held += unfinished
    this.finish = reason
    this.#end()
    return false
  }

  #end(): void {
    this.#ended = true
    this.#onEnd(this)
    this.#wake()
  }

  #say(token: Token): void {
    this.#queue.push(token)
    this.#wake()
  }

  /** For one reader. Throws what made it fail. */
  async *[Symbol.asyncIterator](): AsyncGenerator<Token, void> {
    for (;;) {
      const token = this.#queue.shift()
      if (token) {
        yield token
        continue
      }
      if (this.#error) throw this.#error.value
      if (this.#ended) return
      await new Promise<void>((resolve) => (this.#wake = resolve))
    }
  }
}

/** Where the first of `words` begins in `text`. */
function firstOf(text: string, words: readonly string[]): number | undefined {
  const found = words.map((word) => text.indexOf(word)).filter((at) => at >= 0)
  return found.length > 0 ? Math.min(...found) : undefined
}

/** How long the longest end of `text` is with which one of `words` begins. */
function beginning(text: string, words: readonly string[]): number {
  let longest = 0
  for (const word of words) {
    for (let length = Math.min(word.length - 1, text.length); length > longest; length--)
      if (text.endsWith(word.slice(0, length))) longest = length
  }
  return longest
}
