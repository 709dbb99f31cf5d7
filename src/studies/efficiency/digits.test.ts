/** Networks for digits: gradients, batch norm against its definition, what counts as recognised, and a short training. */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { crossEntropy, leaves, valueType, type Tensor, type Tree } from '../../compiler/index.ts'
import { draw, gradientError, runCases, withFloat, worstError, type Case } from '../../compiler/testing.ts'
import type { ParameterSpec } from '../../models/language/model.ts'
import { recognised, trainDigits } from './image-trainer.ts'
import { imageModels } from './models/image.ts'
import { phases, withSettings, type Measurement, type Recipe } from './task.ts'
import { digits } from './tasks/digits.ts'

const settings = { pixels: 8, classes: 3, width: 2 }
const batch = 3

/** Mean loss of a network of `kind` on images and labels of its own. */
function lossCase(kind: string): Case {
  const model = imageModels[kind]!(settings)
  const specs = leaves<ParameterSpec>(model.specs as Tree<ParameterSpec>)
  const images = valueType('f64', [batch, 8, 8, 1], ['batch', 'rows', 'columns', 'channels'])
  const types = [
    ...specs.map(([, { shape, axes }]) => withFloat(valueType('f32', shape, axes), 'f64')),
    images,
    valueType('i32', [batch], ['batch']),
  ]
  return {
    name: kind,
    types,
    data: types.map((type, i) => draw(type, 40 + i, type.dtype === 'i32' ? [0, 3] : [-1, 1])),
    build(inputs) {
      const params = Object.fromEntries(specs.map(([path], i) => [path, inputs[i]!]))
      const [x, labels] = inputs.slice(specs.length) as [Tensor, Tensor]
      return [crossEntropy(model.logits(params, x, batch), labels)]
    },
  }
}

for (const kind of Object.keys(imageModels))
  test(`the gradient of ${kind} is that of finite differences`, () => {
    const error = gradientError(lossCase(kind))
    assert.ok(error < 1e-6, String(error))
  })

test('statistics of batch norm are those of the images that count, and no others', async () => {
  const model = imageModels['norm-2015']!(settings)
  const specs = leaves<ParameterSpec>(model.specs as Tree<ParameterSpec>)
  const parameters = specs.map(([, { shape, axes }]) => valueType('f64', shape, axes))
  const images = (rows: number) => valueType('f64', [rows, 8, 8, 1], ['batch', 'rows', 'columns', 'channels'])
  const values = parameters.map((type, i) => draw(type, 60 + i, [-1, 1]))
  const pictures = draw(images(5), 80)
  const given = (name: string, rows: number, seen: number): Case => ({
    name,
    types: [...parameters, images(rows)],
    data: [...values, pictures.slice(0, rows * 64)],
    build: (inputs) => [
      model.logits(
        Object.fromEntries(specs.map(([path], i) => [path, inputs[i]!])),
        inputs[specs.length]!,
        seen,
      ),
    ],
  })
  const { results } = await runCases([given('three', 3, 3), given('five', 5, 3), given('all', 5, 5)], {
    target: 'reference',
  })
  const logits = (name: string): Float64Array => results.get(name)![0] as Float64Array
  const three = logits('three')
  assert.ok(worstError(logits('five').slice(0, 9), three) < 1e-12)
  assert.ok(worstError(logits('all').slice(0, 9), three) > 1e-3)
})

test('a digit is recognised where its logit is the largest alone', async () => {
  const logits = [
    [0, 2, 1],
    [0, 2, 1],
    [2, 2, 1],
    [0, 0, 0],
    [Number.NaN, 1, 0],
    [-3, -2, -1],
  ]
  const { results } = await runCases(
    [
      {
        name: 'made',
        types: [valueType('f32', [6, 3], ['batch', 'classes']), valueType('i32', [6], ['batch'])],
        data: [Float64Array.from(logits.flat()), Float64Array.of(1, 2, 0, 0, 0, 2)],
        build: ([x, labels]) => [recognised(x!, labels!)],
      },
    ],
    { target: 'reference' },
  )
  assert.deepEqual([...(results.get('made')![0] as Float32Array)], [1, 0, 0, 0, 0, 1])
})

const short = (id: string, steps: number): Recipe =>
  withSettings(digits.baselines.find((one) => one.id === id)!.recipe, { steps, 'model.width': 4 })

async function trained(recipe: Recipe, threads = 1): Promise<{ measured: Measurement[]; test?: number }> {
  const measured: Measurement[] = []
  const training = trainDigits({ recipe, seed: 7, evalEvery: 20 }, threads)
  for (;;) {
    // oxlint-disable-next-line no-await-in-loop -- a generator
    const next = await training.next()
    if (next.done) return { measured, ...next.value }
    measured.push(next.value)
  }
}

test('a short training learns to read digits, with the same bits on one thread and on two', async () => {
  const one = await trained(short('muon-2024', 60))
  assert.deepEqual(await trained(short('muon-2024', 60), 2), one)
  assert.deepEqual(
    one.measured.map(({ step, samples }) => [step, samples]),
    [20, 40, 60].map((step) => [step, 50 * step]),
  )
  const [first, , last] = one.measured
  assert.ok(last!.metric > 85 && last!.metric > first!.metric, String(last!.metric))
  assert.ok(Math.abs(one.test! - last!.metric) < 5, String(one.test))
  for (const phase of phases) assert.equal(last!.phases[phase], 3 * first!.phases[phase], phase)
})

test('a rate far too large ends as diverged, not as an accuracy', async () => {
  const recipe = withSettings(short('relu-2012', 20), { 'optimizer.rate': 1e20 })
  const { measured } = await trained(recipe)
  assert.ok(Number.isNaN(measured[0]!.metric))
})
