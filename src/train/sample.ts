/**
 * Writing text with a model, token by token over a key/value cache: the prompt is read in chunks, then every token is one
 * step. Several texts can be written at once, each in a slot of the decoder; a text that ends frees its slot for the next.
 *
 * When a text has filled the model's context, it goes on from its last half: the slot is emptied and that half read again
 * from position 0. Positions a model has not seen in training never occur, which holds for learned and for rotary ones,
 * and the cost of reading again is spread over half a context of tokens.
 */
import { join } from 'node:path'
import type { Program } from '../compiler/index.ts'
import { openCheckpoint } from '../data/checkpoints.ts'
import { streamDecoder, type StreamDecoder } from '../data/tokenizers/decode.ts'
import { tokenizerFromJSON, type Tokenizer } from '../data/tokenizers/tokenizer.ts'
import { failure } from '../errors.ts'
import { Decoder } from '../models/decoder.ts'
import { parseStoredConfig } from '../models/language/config.ts'
import { decodable } from '../models/language/decode.ts'
import type { ModelConfig } from '../models/language/model.ts'
import { readRun } from '../runs/index.ts'
import { loadCheckpoint, useNewest } from './checkpoint.ts'
import { choose, type Choice } from './choose.ts'
import { specsOf } from './state.ts'

export interface SampleOptions extends Choice {
  readonly prompt: string
  readonly tokens: number
  readonly onToken?: (text: string) => void
}

export interface Written {
  readonly text: string
  readonly tokens: number
  readonly seconds: number
}

export interface SamplerOptions {
  readonly threads: number
  /** Texts written at once; default 1. */
  readonly slots?: number
}

export class Sampler {
  readonly #model: ModelConfig
  readonly #tokenizer: Tokenizer
  readonly #options: SamplerOptions
  #decoder: Promise<Decoder> | undefined

  constructor(model: ModelConfig, tokenizer: Tokenizer, options: SamplerOptions) {
    this.#model = { ...model, dropout: 0 }
    this.#tokenizer = tokenizer
    this.#options = options
  }

  #open(): Promise<Decoder> {
    this.#decoder ??= Decoder.open(decodable(this.#model), { slots: 1, ...this.#options })
    return this.#decoder
  }

  /** The program that holds the weights, under `params.`; compiled when first asked for. */
  async program(): Promise<Program> {
    return (await this.#open()).program
  }

  /** Writes with the parameters found in another program under `prefix`. */
  async run(source: Program, prefix: string, options: SampleOptions): Promise<Written> {
    const program = await this.program()
    for (const [path] of specsOf(this.#model))
      program.write(`params.${path}`, source.view(`${prefix}${path}`))
    return this.generate(options)
  }

  /** Writes one text with the parameters the program holds. */
  async generate(options: SampleOptions): Promise<Written> {
    const [written] = await this.generateAll([options])
    return written!
  }

  /** Writes several texts, as many at once as there are slots. Each is what it would be alone. */
  async generateAll(requests: readonly SampleOptions[]): Promise<Written[]> {
    const decoder = await this.#open()
    const texts = requests.map((request) => new Text(request, this.#tokenizer))
    const waiting = texts.filter((text) => !text.finished)
    const active = new Map<number, Text>()
    const take = (slot: number, text: Text, logits: ArrayLike<number>): void => {
      text.push(logits)
      if (text.finished) active.delete(slot)
    }
    while (waiting.length > 0 || active.size > 0) {
      for (let slot = 0; slot < decoder.slots && waiting.length > 0; slot++) {
        if (active.has(slot)) continue
        const text = waiting.shift()!
        active.set(slot, text)
        take(slot, text, await read(decoder, slot, text.ids.slice(-decoder.context)))
      }
      const [full, going] = [new Map<number, Text>(), new Map<number, Text>()]
      for (const [slot, text] of active)
        (decoder.length(slot) === decoder.context ? full : going).set(slot, text)
      for (const [slot, text] of full)
        take(slot, text, await read(decoder, slot, text.ids.slice(-Math.floor(decoder.context / 2))))
      if (going.size === 0) continue
      const logits = await decoder.step(
        new Map(going.entries().map(([slot, { ids }]) => [slot, ids.at(-1)!])),
      )
      for (const [slot, text] of going) take(slot, text, logits.get(slot)!)
    }
    return texts.map((text) => text.end())
  }

  async close(): Promise<void> {
    const opened = this.#decoder
    this.#decoder = undefined
    if (opened) (await opened).close()
  }
}

/** Starts a slot anew with these tokens. */
function read(decoder: Decoder, slot: number, ids: readonly number[]): Promise<Float32Array> {
  decoder.reset(slot)
  return decoder.prefill(slot, ids)
}

/** One text as it is written. */
class Text {
  readonly ids: number[]
  readonly #request: SampleOptions
  readonly #decoder: StreamDecoder
  readonly #started = performance.now()
  #count = 0
  #text = ''
  #seconds = 0

  constructor(request: SampleOptions, tokenizer: Tokenizer) {
    this.#request = request
    this.#decoder = streamDecoder(tokenizer)
    this.ids = [...tokenizer.encode(request.prompt)]
    if (this.ids.length === 0) {
      throw failure({
        where: 'prompt',
        got: 'no token',
        expected: 'at least one',
        fix: 'give a longer prompt',
      })
    }
  }

  get finished(): boolean {
    return this.#count >= this.#request.tokens
  }

  /** Draws the next token. */
  push(logits: ArrayLike<number>): void {
    const id = choose(logits, this.#request, this.#count++)
    this.ids.push(id)
    this.#say(this.#decoder.push(id))
    if (this.finished) this.#seconds = (performance.now() - this.#started) / 1000
  }

  end(): Written {
    this.#say(this.#decoder.flush())
    return { text: this.#text, tokens: this.#count, seconds: this.#seconds }
  }

  #say(piece: string): void {
    this.#text += piece
    if (piece !== '') this.#request.onToken?.(piece)
  }
}

/**
 * Writes text with the newest intact checkpoint of a run; `note` hears of damaged ones passed over.
 *
 * @throws UserError when the run has no checkpoint, or all are damaged.
 */
export async function sampleRun(
  runId: string,
  {
    runsDir,
    note,
    ...options
  }: SampleOptions & { readonly runsDir: string; readonly note?: (text: string) => void },
): Promise<Written> {
  const run = readRun(runsDir, runId)
  const newest = await useNewest(run.dir, readTokenizer, note ?? (() => {}))
  if (!newest) {
    throw failure({
      where: run.dir,
      got: 'no checkpoint',
      expected: 'at least one',
      fix: `let it train first: anneal resume ${runId}`,
    })
  }
  const path = join(run.dir, newest.checkpoint.file)
  const tokenizer = newest.value
  const config = parseStoredConfig(run.config, run.dir)
  const sampler = new Sampler({ ...config.model, vocab: tokenizer.vocabSize }, tokenizer, {
    threads: config.threads,
  })
  try {
    const isParameter = (name: string): boolean => name.startsWith('params.')
    const into = (name: string): string | undefined => (isParameter(name) ? name : undefined)
    await loadCheckpoint(path, await sampler.program(), into, isParameter)
    return await sampler.generate(options)
  } finally {
    await sampler.close()
  }
}

/** The tokenizer a checkpoint was trained with. Checks all of it. */
async function readTokenizer(path: string): Promise<Tokenizer> {
  const checkpoint = openCheckpoint(path)
  try {
    checkpoint.verify()
    return tokenizerFromJSON(JSON.parse(checkpoint.metadata['tokenizer'] ?? 'null'), path)
  } finally {
    checkpoint.close()
  }
}
