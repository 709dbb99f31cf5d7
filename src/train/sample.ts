/**
 * Writing text with a model: one token at a time from the distribution over the next one. Draws are addressed by
 * (seed, position), so the same seed gives the same text. The window slides once the text is longer than the context.
 */
import { join } from 'node:path'
import {
  compile,
  philoxUniform,
  valueType,
  type CompileOptions,
  type Program,
  type Tensorised,
  type Tensors,
} from '../compiler/index.ts'
import { openSafetensors } from '../data/safetensors.ts'
import { streamDecoder } from '../data/tokenizers/decode.ts'
import { tokenizerFromJSON, type Tokenizer } from '../data/tokenizers/tokenizer.ts'
import { failure } from '../errors.ts'
import { parseStoredConfig } from '../models/language/config.ts'
import { forward, parameterTypes, type ModelConfig } from '../models/language/model.ts'
import { readRun } from '../runs/index.ts'
import { loadCheckpoint, useNewest } from './checkpoint.ts'
import { specsOf } from './programs.ts'

export interface SampleOptions {
  readonly prompt: string
  readonly tokens: number
  /** 0: always the likeliest token. */
  readonly temperature: number
  /** Choose among this many likeliest tokens; 0: all. */
  readonly topK: number
  readonly seed: number
  readonly onToken?: (text: string) => void
}

/** Compiles the program that writes. Inputs: params, tokens [1, context], position; output: logits [vocab] after it. */
export function compileSampler(model: ModelConfig, options: CompileOptions = {}): Promise<Program> {
  const inputs = {
    params: parameterTypes(model),
    tokens: valueType('i32', [1, model.context], ['batch', 'time']),
    position: valueType('i32', []),
  }
  const body = ({ params, tokens, position }: Tensorised<typeof inputs>): Tensors => ({
    logits: forward(params, tokens, model).reshape([model.context, model.vocab]).take(position),
  })
  return compile(body, inputs, { name: 'sample', ...options })
}

export class Sampler {
  readonly #model: ModelConfig
  readonly #tokenizer: Tokenizer
  readonly #threads: number
  #program: Program | undefined

  constructor(model: ModelConfig, tokenizer: Tokenizer, threads: number) {
    this.#model = { ...model, dropout: 0 }
    this.#tokenizer = tokenizer
    this.#threads = threads
  }

  async program(): Promise<Program> {
    this.#program ??= await compileSampler(this.#model, { threads: this.#threads })
    return this.#program
  }

  /** Writes with the parameters found in another program under `prefix`. */
  async run(
    source: Program,
    prefix: string,
    options: SampleOptions,
  ): Promise<{ text: string; tokens: number; seconds: number }> {
    const program = await this.program()
    for (const [path] of specsOf(this.#model))
      program.write(`params.${path}`, source.view(`${prefix}${path}`))
    return this.generate(options)
  }

  /** Writes with the parameters the program holds. */
  async generate({
    prompt,
    tokens,
    temperature,
    topK,
    seed,
    onToken,
  }: SampleOptions): Promise<{ text: string; tokens: number; seconds: number }> {
    const program = await this.program()
    const { context } = this.#model
    const started = performance.now()
    const ids = [...this.#tokenizer.encode(prompt)]
    if (ids.length === 0) {
      throw failure({
        where: 'prompt',
        got: 'no token',
        expected: 'at least one',
        fix: 'give a longer prompt',
      })
    }
    const decoder = streamDecoder(this.#tokenizer)
    let text = ''
    const window = new Int32Array(context)
    for (let i = 0; i < tokens; i++) {
      const recent = ids.slice(-context)
      window.fill(0)
      window.set(recent)
      await program.run({ tokens: window, position: [recent.length - 1] })
      const id = choose(program.view('logits') as Float32Array, temperature, topK, seed, i)
      ids.push(id)
      const piece = decoder.push(id)
      text += piece
      if (piece !== '') onToken?.(piece)
    }
    const rest = decoder.flush()
    text += rest
    if (rest !== '') onToken?.(rest)
    return { text, tokens, seconds: (performance.now() - started) / 1000 }
  }

  close(): void {
    this.#program?.close()
  }
}

/** Draws a token from logits; ties and order by id, so the result does not depend on sorting. */
export function choose(
  logits: Float32Array,
  temperature: number,
  topK: number,
  seed: number,
  index: number,
): number {
  const ids = Array.from(logits, (_, id) => id).toSorted((a, b) => logits[b]! - logits[a]! || a - b)
  if (temperature === 0) return ids[0]!
  const kept = topK > 0 ? ids.slice(0, topK) : ids
  const top = logits[ids[0]!]!
  const weights = kept.map((id) => Math.exp((logits[id]! - top) / temperature))
  let left =
    philoxUniform({ seed, step: index, stream: 0x5a, salt: 0 }, 0) * weights.reduce((a, b) => a + b, 0)
  for (let i = 0; i < kept.length; i++) {
    left -= weights[i]!
    if (left < 0) return kept[i]!
  }
  return kept.at(-1)!
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
): Promise<{ text: string; tokens: number; seconds: number }> {
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
  const sampler = new Sampler({ ...config.model, vocab: tokenizer.vocabSize }, tokenizer, config.threads)
  try {
    await loadCheckpoint(path, await sampler.program(), (name) =>
      name.startsWith('params.') ? name : undefined,
    )
    return await sampler.generate(options)
  } finally {
    sampler.close()
  }
}

/** The tokenizer a checkpoint was trained with. Checks the whole file. */
async function readTokenizer(path: string): Promise<Tokenizer> {
  const file = openSafetensors(path)
  try {
    file.verify()
    return tokenizerFromJSON(JSON.parse(file.metadata['tokenizer'] ?? 'null'), path)
  } finally {
    file.close()
  }
}
