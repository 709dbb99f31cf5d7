/**
 * Handwritten digits as a problem for the study's trainer: networks of models/image.ts on the bundled 10,000.
 *
 * Of the training file, the last 1,000 images are the validation set; the test file is the test set, read once at the end.
 * Pixels are standardised once, by mean and deviation of the images trained on; as with tokens, that is not charged.
 */
import { z } from 'zod'
import { crossEntropy, pick, valueType, where, type Tensor } from '../../compiler/index.ts'
import { readDigits } from '../../data/digits.ts'
import { permuteIndex } from '../../data/order.ts'
import { checkConfig } from '../../models/check.ts'
import { imageModels } from './models/image.ts'
import {
  count,
  optimizerSchema,
  scheduleSchema,
  trainSupervised,
  type EvaluationBatch,
  type Problem,
} from './supervised.ts'
import type { Ending, Job, Measurement } from './task.ts'

export const imageRecipeSchema = z.strictObject({
  steps: count.describe('where the run ends'),
  batch: count.describe('images a step'),
  model: z.strictObject({ kind: z.enum(Object.keys(imageModels)), width: count }),
  optimizer: optimizerSchema,
  schedule: scheduleSchema,
})
export type ImageRecipe = z.output<typeof imageRecipeSchema>

/** The list of hashes, by which every file is checked. */
export const bundledDigits = {
  file: 'data/images/mnist-10k/SHA256SUMS',
  sha256: 'af11d81e3ba3214d0673a105e7d07c45394cb79603a12358d89378f5e407c58e',
}

export async function* trainDigits(job: Job, threads = 1): AsyncGenerator<Measurement, Ending, void> {
  const recipe = checkConfig(imageRecipeSchema, job.recipe)
  return yield* trainSupervised(recipe, imageProblem(recipe, job.seed), job, threads)
}

const pixels = 28
const classes = 10
/** Images judged by one run of the evaluation program, and training images before them where there is batch norm. */
const evaluationRows = 1000
const reference = 256
const validationImages = 1000

function imageProblem({ batch, model: { kind, width } }: ImageRecipe, seed: number): Problem {
  const { train, validation, test } = readSets()
  const model = imageModels[kind]!({ pixels, classes, width })
  const before = model.normalised ? reference : 0
  const inputs = (images: number, labels: number) => ({
    images: valueType('f32', [images, pixels, pixels, 1], ['batch', 'rows', 'columns', 'channels']),
    labels: valueType('i32', [labels], ['batch']),
  })
  return {
    specs: model.specs,
    inputs: inputs(batch, batch),
    samples: batch,
    at(step) {
      const rows = Array.from({ length: batch }, (_, row) => {
        const index = step * batch + row
        return permuteIndex(index % train.count, train.count, seed, Math.floor(index / train.count))
      })
      return { images: chosen(train, rows), labels: Int32Array.from(rows, (row) => train.labels[row]!) }
    },
    loss: (params, { images, labels }) => crossEntropy(model.logits(params, images!, batch), labels!).mean(),
    evaluation: {
      inputs: inputs(before + evaluationRows, evaluationRows),
      sums(params, { images, labels }) {
        const logits = model.logits(params, images!, before).slice(0, before, evaluationRows)
        return { nats: crossEntropy(logits, labels!).sum(), right: recognised(logits, labels!).sum() }
      },
      // Logits that are not numbers recognise nothing; that is no accuracy of 0, the run has diverged.
      metric: ({ nats, right }, predictions) =>
        Number.isFinite(nats) ? (100 * right!) / predictions : Number.NaN,
      validation: () => batches(validation, chosen(train, range(before))),
      test: () => batches(test, chosen(train, range(before))),
    },
  }
}

/** 1 where the logit of the label is larger than every other, else 0: a tie recognises nothing. */
export function recognised(logits: Tensor, labels: Tensor): Tensor {
  const rows = labels.size(0)
  const own = pick(logits, labels.reshape([rows, 1], ['batch', null]))
  const notLess = where(logits.less(own), 0, 1).sum(-1)
  return where(notLess.equal(1), 1, 0)
}

const range = (n: number): number[] => Array.from({ length: n }, (_, i) => i)

interface ImageSet {
  readonly count: number
  readonly images: Float32Array
  readonly labels: Int32Array
}

const size = pixels * pixels

function chosen({ images }: ImageSet, rows: readonly number[]): Float32Array {
  const out = new Float32Array(rows.length * size)
  rows.forEach((row, i) => out.set(images.subarray(row * size, (row + 1) * size), i * size))
  return out
}

function* batches(set: ImageSet, before: Float32Array): Generator<EvaluationBatch> {
  for (let first = 0; first < set.count; first += evaluationRows) {
    const images = new Float32Array(before.length + evaluationRows * size)
    images.set(before)
    images.set(set.images.subarray(first * size, (first + evaluationRows) * size), before.length)
    const labels = set.labels.subarray(first, first + evaluationRows)
    yield { values: { images, labels }, predictions: labels.length }
  }
}

let known: Readonly<Record<'train' | 'validation' | 'test', ImageSet>> | undefined

/** Read once. */
function readSets() {
  if (known) return known
  const [all, test] = [readDigits('train'), readDigits('test')]
  const trained = all.count - validationImages
  const { mean, deviation } = momentsOf(all.images.subarray(0, trained * size))
  const part = ({ images, labels }: typeof all, from: number, to: number): ImageSet => ({
    count: to - from,
    images: Float32Array.from(images.subarray(from * size, to * size), (pixel) => (pixel - mean) / deviation),
    labels: Int32Array.from(labels.subarray(from, to)),
  })
  known = {
    train: part(all, 0, trained),
    validation: part(all, trained, all.count),
    test: part(test, 0, test.count),
  }
  return known
}

function momentsOf(bytes: Uint8Array): { mean: number; deviation: number } {
  let [sum, squares] = [0, 0]
  for (const byte of bytes) {
    sum += byte
    squares += byte * byte
  }
  const mean = sum / bytes.length
  return { mean, deviation: Math.sqrt(squares / bytes.length - mean * mean) }
}
