/**
 * Sequences that grow token by token, several at once: a slot of the key/value cache each, at lengths of their own. Two
 * programs share weights and cache (see `shares` in compile.ts): one reads a chunk of a prompt into one slot, the other
 * takes a step with one token for each of some slots. Both are compiled once; lengths are data.
 *
 * What a slot computes does not depend on what the others do, bit for bit, so a request gives the same text alone and in
 * company. A slot ends at the model's context; what to do then is the caller's decision (see train/sample.ts).
 */
import { InternalError } from '../errors.ts'
import {
  compile,
  valueType,
  type CompileOptions,
  type Program,
  type Tensor,
  type Tensorised,
  type Tensors,
  type Tree,
  type ValueType,
} from '../compiler/index.ts'

/** Tokens, the pages of the cache that hold their sequences, and their position there; a position outside: padding. */
export interface CachedRows {
  /** i32 [rows] */
  readonly token: Tensor
  /** i32 [rows, pages of a sequence] */
  readonly pages: Tensor
  /** i32 [rows] */
  readonly position: Tensor
}

/** A model that can be run over a cache. */
export interface Decodable {
  readonly context: number
  readonly vocab: number
  readonly weights: Tree<ValueType>
  /** A cache of so many pages with so many positions each. */
  readonly cache: (pages: number, size: number) => Tree<ValueType>
  /** `last` [rows, embed]: what the readout takes. */
  readonly decode: (
    weights: Tensors,
    cache: Tensors,
    rows: CachedRows,
  ) => { readonly last: Tensor; readonly cache: Tensors }
  readonly readout: (weights: Tensors, last: Tensor) => Tensor
}

export interface DecoderOptions extends Pick<CompileOptions, 'target' | 'threads' | 'checking'> {
  /** Sequences at once. */
  readonly slots: number
  /** Prompt tokens read at once; default 64. */
  readonly chunk?: number
}

export class Decoder {
  readonly slots: number
  readonly chunk: number
  readonly #model: Decodable
  readonly #step: Program
  readonly #lengths: number[]
  readonly #openChunk: () => Promise<Program>
  #chunk: Promise<Program> | undefined

  private constructor(
    model: Decodable,
    step: Program,
    { slots, chunk }: { readonly slots: number; readonly chunk: number },
    options: CompileOptions,
  ) {
    this.#model = model
    this.#step = step
    this.slots = slots
    this.chunk = chunk
    this.#lengths = Array.from({ length: slots }, () => 0)
    this.#openChunk = () => compilePrefill(model, slots, chunk, { ...options, shares: step })
  }

  static async open(model: Decodable, { slots, chunk = 64, ...options }: DecoderOptions): Promise<Decoder> {
    const step = await compileDecode(model, slots, options)
    return new Decoder(model, step, { slots, chunk: Math.min(chunk, model.context) }, options)
  }

  /** Holds the weights (`params.…`) and the cache (`state.…`) for both. */
  get program(): Program {
    return this.#step
  }

  /** Compiles what reads long prompts now rather than when the first one comes. */
  async prepare(): Promise<void> {
    await (this.#chunk ??= this.#openChunk())
  }

  get context(): number {
    return this.#model.context
  }

  /** Tokens in a slot. */
  length(slot: number): number {
    const length = this.#lengths[slot]
    if (length === undefined) throw new InternalError(`slot ${slot} of ${this.slots}`)
    return length
  }

  /** Empties a slot, or goes back to its first `length` tokens: what lies beyond them is never read. */
  reset(slot: number, length = 0): void {
    if (!(length >= 0 && length <= this.length(slot)))
      throw new InternalError(`slot ${slot} has ${this.length(slot)} tokens, not ${length}`)
    this.#lengths[slot] = length
  }

  /** Appends tokens to a slot, a chunk at a time, or few of them one by one. Returns the logits [vocab] after the last: a view, until the next call. */
  async prefill(slot: number, tokens: ArrayLike<number>): Promise<Float32Array> {
    const start = this.length(slot)
    this.#demandRoom(slot, tokens.length)
    if (tokens.length === 0) throw new InternalError('no tokens to append')
    if (tokens.length <= this.chunk / 8) {
      let logits: Float32Array | undefined
      for (const token of Array.from(tokens)) logits = (await this.step(new Map([[slot, token]]))).get(slot)
      return logits!
    }
    const program = await (this.#chunk ??= this.#openChunk())
    for (let done = 0; done < tokens.length; done += this.chunk) {
      const count = Math.min(this.chunk, tokens.length - done)
      const row = (value: (i: number) => number, padding: number): number[] =>
        Array.from({ length: this.chunk }, (_, i) => (i < count ? value(i) : padding))
      await program.run({
        token: row((i) => tokens[done + i]!, 0),
        slot: row(() => slot, 0),
        position: row((i) => start + done + i, -1),
        last: [count - 1],
      })
    }
    this.#lengths[slot] = start + tokens.length
    return program.view('logits') as Float32Array
  }

  /** Appends one token to each given slot. Returns each one's logits [vocab]: views, until the next call. */
  async step(tokens: ReadonlyMap<number, number>): Promise<ReadonlyMap<number, Float32Array>> {
    for (const slot of tokens.keys()) this.#demandRoom(slot, 1)
    const slots = Array.from({ length: this.slots }, (_, slot) => slot)
    await this.#step.run({
      token: slots.map((slot) => tokens.get(slot) ?? 0),
      slot: slots,
      position: slots.map((slot) => (tokens.has(slot) ? this.length(slot) : -1)),
    })
    for (const slot of tokens.keys()) this.#lengths[slot]!++
    const { vocab } = this.#model
    const logits = this.#step.view('logits') as Float32Array
    return new Map(tokens.keys().map((slot) => [slot, logits.subarray(slot * vocab, (slot + 1) * vocab)]))
  }

  #demandRoom(slot: number, count: number): void {
    if (this.length(slot) + count > this.context) {
      throw new InternalError(
        `slot ${slot}: ${this.length(slot)} and ${count} tokens exceed the context of ${this.context}`,
      )
    }
  }

  async close(): Promise<void> {
    if (this.#chunk) (await this.#chunk).close()
    this.#step.close()
  }
}

interface StepInputs {
  readonly params: Tree<ValueType>
  readonly state: { readonly cache: Tree<ValueType> }
  readonly token: ValueType
  readonly slot: ValueType
  readonly position: ValueType
  /** The rows to give logits of; absent: all. */
  readonly last?: ValueType
}

function inputsOf(model: Decodable, slots: number, rows: number): Omit<StepInputs, 'last'> {
  const index = valueType('i32', [rows], ['time'])
  const state = { cache: model.cache(slots, model.context) }
  return { params: model.weights, state, token: index, slot: index, position: index }
}

/** Compiles the step of a decoder: `token`, `slot` and `position` [slots] to logits [slots, vocab]. */
export const compileDecode = (model: Decodable, slots: number, options: CompileOptions): Promise<Program> =>
  compile(stepOf(model), inputsOf(model, slots, slots), { name: 'decode', ...options })

/** Compiles what reads prompts: the same for `chunk` tokens, with logits [1, vocab] of row `last` [1] only. */
export function compilePrefill(
  model: Decodable,
  slots: number,
  chunk: number,
  options: CompileOptions,
): Promise<Program> {
  const inputs = { ...inputsOf(model, slots, chunk), last: valueType('i32', [1], ['time']) }
  return compile(stepOf(model), inputs, { name: 'prefill', ...options })
}

const stepOf =
  (model: Decodable) =>
  (given: Tensorised<StepInputs>): Tensors => {
    const {
      params,
      state,
      last: wanted,
      slot,
      ...rest
    } = given as unknown as Omit<CachedRows, 'pages'> & {
      readonly slot: Tensor
      readonly params: Tensors
      readonly state: { readonly cache: Tensors }
      readonly last?: Tensor
    }
    // A slot is one page as long as the context.
    const rows = { ...rest, pages: slot.reshape([slot.size(0), 1]) }
    const { last, cache } = model.decode(params, state.cache, rows)
    return { logits: model.readout(params, wanted ? last.take(wanted) : last), state: { cache } }
  }
