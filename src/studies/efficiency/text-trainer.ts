/**
 * Characters as a problem for the study's trainer: any model of models/ on the bundled text.
 *
 * The last tenth of the text is held out. Windows spread over its first half are the validation set; its second half is
 * the test set, read once at the end.
 */
import { readFileSync } from 'node:fs'
import { z } from 'zod'
import { valueType, where, type ValueType } from '../../compiler/index.ts'
import { batchStarts, evaluationWindows } from '../../data/order.ts'
import { charsTokenizer, distinctCharacters } from '../../data/tokenizers/chars.ts'
import { checkConfig } from '../../models/check.ts'
import { dataPath } from '../../models/language/config.ts'
import { textModels } from './models/index.ts'
import {
  count,
  optimizerSchema,
  scheduleSchema,
  trainSupervised,
  type EvaluationBatch,
  type Problem,
} from './supervised.ts'
import type { Trainer } from './task.ts'

export const textRecipeSchema = z.strictObject({
  steps: count.describe('where the run ends'),
  batch: count.describe('windows a step'),
  context: z.int().min(2).describe('characters a window'),
  model: z.strictObject({
    kind: z.enum(Object.keys(textModels)),
    width: count,
    layers: count,
    heads: count,
  }),
  optimizer: optimizerSchema,
  schedule: scheduleSchema,
})
export type TextRecipe = z.output<typeof textRecipeSchema>

/** Characters of the validation set that are predicted. */
const validationCharacters = 4096

export const bundledText = {
  file: 'data/text/tinyshakespeare.txt',
  sha256: '86c4e6aa9db7c042ec79f339dcb96d42b0075e16b8fc2e86bf0ca57e2dc565ed',
}

export const trainText: Trainer = async function* (job) {
  const recipe = checkConfig(textRecipeSchema, job.recipe)
  return yield* trainSupervised(recipe, textProblem(recipe, job.seed), job)
}

function textProblem({ batch, context, model: settings }: TextRecipe, seed: number): Problem {
  const text = readText()
  const model = textModels[settings.kind]!({ ...settings, context, vocab: text.vocab })
  return {
    specs: model.specs,
    inputs: { tokens: tokensType(batch, context) },
    samples: batch * context,
    at: (step) => ({
      tokens: windowsAt(
        text.train,
        batchStarts({ tokens: text.train.length, context, batch, seed, step }),
        context,
      ),
    }),
    loss: (params, { tokens }) => model.losses(params, tokens!).mean(),
    evaluation: {
      inputs: {
        tokens: tokensType(evaluationRows, context),
        counted: valueType('f32', [evaluationRows, context], ['batch', 'time']),
      },
      sums: (params, { tokens, counted }) => ({
        nats: where(counted!.greater(0), model.losses(params, tokens!), 0).sum(),
      }),
      metric: ({ nats }, predictions) => nats! / predictions,
      validation: () => validationWindows(text.validation, context),
      test: () => testWindows(text.test, context),
    },
  }
}

const tokensType = (rows: number, context: number): ValueType =>
  valueType('i32', [rows, context + 1], ['batch', 'time'])

interface Text {
  readonly vocab: number
  readonly train: Int32Array
  readonly validation: Int32Array
  readonly test: Int32Array
}

let known: Text | undefined

/** The bundled text as characters; read once. */
function readText(): Text {
  if (known) return known
  const text = readFileSync(dataPath({ data: 'shakespeare' }), 'utf8')
  const tokenizer = charsTokenizer(distinctCharacters([text]))
  const all = Int32Array.from(tokenizer.encode(text))
  const [held, last] = [Math.floor(0.9 * all.length), Math.floor(0.95 * all.length)]
  known = {
    vocab: tokenizer.vocabSize,
    train: all.subarray(0, held),
    validation: all.subarray(held, last),
    test: all.subarray(last),
  }
  return known
}

function windowsAt(from: Int32Array, starts: readonly number[], context: number): Int32Array {
  const tokens = new Int32Array(starts.length * (context + 1))
  starts.forEach((start, row) => tokens.set(from.subarray(start, start + context + 1), row * (context + 1)))
  return tokens
}

const evaluationRows = 64

/** Evenly spread over the validation part. */
function* validationWindows(from: Int32Array, context: number): Generator<EvaluationBatch> {
  const windows = Math.ceil(validationCharacters / context / evaluationRows) * evaluationRows
  const counted = new Float32Array(evaluationRows * context).fill(1)
  for (let first = 0; first < windows; first += evaluationRows) {
    const starts = Array.from({ length: evaluationRows }, (_, row) =>
      Math.floor(((first + row) * (from.length - context - 1)) / (windows - 1)),
    )
    yield { values: { tokens: windowsAt(from, starts, context), counted }, predictions: counted.length }
  }
}

/** Every character of the test part after the first, once. */
function* testWindows(from: Int32Array, context: number): Generator<EvaluationBatch> {
  for (const { starts, weights } of evaluationWindows({
    tokens: from.length,
    context,
    batch: evaluationRows,
  })) {
    let predictions = 0
    for (const weight of weights) predictions += weight
    yield { values: { tokens: windowsAt(from, starts, context), counted: weights }, predictions }
  }
}
