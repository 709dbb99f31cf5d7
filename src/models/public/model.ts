/**
 * A public checkpoint one can run: logits, hidden states, greedy continuation, loss and gradients under the file's own
 * tensor names. It is what shows that our forward and backward passes are those of the published model.
 */
import { badUsage, type UserError } from '../../errors.ts'
import type { CompileOptions } from '../../compiler/index.ts'
import type { PublicConfig } from './config.ts'
import { loadPublic, type Parameter } from './load.ts'
import { programsFor } from './programs.ts'

/** Rows of token ids, all of one length. */
export type TokenRows = readonly ArrayLike<number>[]

export interface Values {
  readonly shape: readonly number[]
  readonly values: Float32Array
}

export interface PublicModel {
  readonly config: PublicConfig
  /** By the name, in the order and in the layout of the file. */
  readonly parameters: ReadonlyMap<string, Parameter>
  /** [batch, time, vocab] */
  logits(tokens: TokenRows): Promise<Values>
  /** [layers + 1, batch, time, embed]: the embedding, then what each block returns; the last one normed. */
  hiddenStates(tokens: TokenRows): Promise<Values>
  /** The prompt and the `count` likeliest tokens after it. Keeps no cache: for checking, not for serving. */
  greedy(prompt: ArrayLike<number>, count: number): Promise<number[]>
  /** Mean next-token cross-entropy in nats, and its gradient for every parameter. */
  lossAndGradients(tokens: TokenRows): Promise<LossAndGradients>
  close(): void
}

export interface LossAndGradients {
  readonly loss: number
  readonly gradients: ReadonlyMap<string, Float32Array>
}

export type PublicModelOptions = Pick<CompileOptions, 'target' | 'threads' | 'precision' | 'recompute'>

/**
 * Loads a Hugging Face folder (model_type gpt2, llama or qwen2).
 * @throws UserError when the folder is incomplete, damaged or of another kind; its methods throw one for token ids
 *   outside the vocabulary and for more positions than the model has.
 * @example
 * const model = publicModel('SmolLM2-135M')
 * console.log(await model.greedy([504, 3575, 282], 20))
 */
export function publicModel(folder: string, options: PublicModelOptions = {}): PublicModel {
  const loaded = loadPublic(folder)
  const { config, parameters } = loaded
  const { layers, width, vocab, context } = config
  const programs = programsFor(loaded, options)
  return {
    config,
    parameters,
    async logits(tokens) {
      const [batch, time] = checkTokens(tokens, config, 1)
      const values = await programs.run('logits', tokens, (program) =>
        Float32Array.from(program.view('logits')),
      )
      return { shape: [batch, time, vocab], values }
    },
    async hiddenStates(tokens) {
      const [batch, time] = checkTokens(tokens, config, 1)
      const values = new Float32Array((layers + 1) * batch * time * width)
      await programs.run('hidden', tokens, (program) => {
        values.set(program.view('blockInputs'))
        values.set(program.view('final'), layers * batch * time * width)
      })
      return { shape: [layers + 1, batch, time, width], values }
    },
    async greedy(prompt, count) {
      const ids = Array.from(prompt)
      if (!Number.isInteger(count) || count < 0) throw usage('count', `${count}`, 'a whole number of tokens')
      checkTokens([ids], config, 1)
      if (ids.length + count > context) {
        throw usage('greedy', `${ids.length} + ${count} tokens`, `at most ${context} positions`)
      }
      // One program serves all lengths: attention is causal, so the zeros after the text change nothing before them.
      const padded = new Int32Array(Math.max(1, ids.length + count - 1))
      for (let i = 0; i < count; i++) {
        padded.set(ids)
        const last = ids.length - 1
        ids.push(
          await programs.run('logits', [padded], (program) =>
            indexOfMax(program.view('logits').subarray(last * vocab, (last + 1) * vocab)),
          ),
        )
      }
      return ids
    },
    async lossAndGradients(tokens) {
      checkTokens(tokens, config, 2)
      return programs.run('gradients', tokens, (program) => {
        const read = (path: string): Float32Array => Float32Array.from(program.view(path))
        const stacked = new Map(loaded.stacked.keys().map((path) => [path, read(`gradients.${path}`)]))
        const gradients = new Map(
          loaded
            .unstack(stacked)
            .entries()
            .map(([name, part]) => [name, part.values]),
        )
        return { loss: program.view('loss')[0]!, gradients }
      })
    },
    close: () => programs.close(),
  }
}

/** The first of the largest values, as every greedy decoder takes it. */
function indexOfMax(values: ArrayLike<number>): number {
  let best = 0
  for (let i = 1; i < values.length; i++) if (values[i]! > values[best]!) best = i
  return best
}

/** @returns [batch, time] */
function checkTokens(
  rows: TokenRows,
  { vocab, context }: PublicConfig,
  least: number,
): readonly [number, number] {
  const time = rows[0]?.length ?? 0
  const expected = `rows of one length, ${least} to ${context} tokens`
  if (rows.length === 0) throw usage('tokens', 'no rows', expected)
  for (const [i, row] of rows.entries()) {
    if (row.length !== time || time < least || time > context) {
      throw usage(`tokens, row ${i}`, `${row.length} tokens`, expected)
    }
    const bad = Array.from(row).find((id) => !(Number.isInteger(id) && id >= 0 && id < vocab))
    if (bad !== undefined) throw usage(`tokens, row ${i}`, `${bad}`, `token ids from 0 to ${vocab - 1}`)
  }
  return [rows.length, time]
}

const usage = (where: string, got: string, expected: string): UserError =>
  badUsage({
    where,
    got,
    expected,
    fix: 'encode the text with the tokenizer of this checkpoint, or shorten it',
  })
