/**
 * The training step's promise about spread batches: with the setting `leaves`, the number of microbatches changes no bit
 * of a step, and neither does the number of devices that share the batch (here: runs for a part of it, whose gradients
 * are added pairwise).
 */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { compile, grad, leaves, valueType, type Tensor } from '../compiler/index.ts'
import { draw, readValues } from '../compiler/testing.ts'
import { resolveConfig, type LanguageConfig } from '../models/language/config.ts'
import { parameterTypes, tokenLosses } from '../models/language/model.ts'
import { initialise } from './programs.ts'
import { compileStep } from './step.ts'

const vocab = 17
const batch = 8
const devices = [2, 4, 8] as const

const configOf = (block: 'modern' | 'gpt2', precision: 'f32' | 'bf16', accumulate = 1): LanguageConfig =>
  resolveConfig({
    batch,
    accumulate,
    precision,
    leaves: 8,
    steps: 10,
    model: { layers: 2, width: 32, heads: 2, context: 12, block },
    optim: { name: 'adamw' },
  })

const tokensOf = (context: number, step: number): Float64Array =>
  draw(valueType('i32', [batch, context + 1]), 7 + step, [0, vocab])

type Results = Record<string, Float32Array>

const bitsOf = (values: Float32Array): Buffer =>
  Buffer.from(values.buffer, values.byteOffset, values.byteLength)

function assertSame(got: Results, want: Results, what: string): void {
  assert.deepEqual(Object.keys(got), Object.keys(want))
  const wrong = Object.keys(want).filter((path) => !bitsOf(got[path]!).equals(bitsOf(want[path]!)))
  assert.deepEqual(wrong, [], `${what}: other bits in ${wrong.join(', ')}`)
}

/** Parameters, loss and gradient norm after a few steps. */
async function afterSteps(config: LanguageConfig): Promise<Results> {
  const program = await compileStep(config, vocab)
  try {
    initialise(program, { ...config, seed: 3 }, vocab)
    for (let step = 0; step < 3; step++)
      await program.run({ tokens: tokensOf(config.model.context, step), seed: [1] })
    const paths = [...program.outputs.keys()].filter((path) => path !== 'state.step')
    return Object.fromEntries(paths.map((path) => [path, readValues(program, path) as Float32Array]))
  } finally {
    program.close()
  }
}

/** Summed loss and mean gradients of a batch that several devices share. */
async function gradients(config: LanguageConfig, count: number): Promise<Results> {
  const model = { ...config.model, vocab }
  const own = batch / count
  const types = {
    // With a head of its own: where one table is used twice, each use has a sum over the batch, and they are added last.
    params: { ...parameterTypes(model), head: valueType('f32', [32, vocab], ['embed', 'vocab']) },
    tokens: valueType('i32', [own, model.context + 1], ['batch', 'time']),
  }
  const program = await compile(
    ({ params, tokens }) => {
      const losses = tokenLosses(params as never, tokens, model)
      return { loss: losses.sum(), grads: grad(losses.mean(), params as never) as Record<string, Tensor> }
    },
    types,
    { precision: config.precision, leaves: config.leaves / count, threads: (count % 3) + 1 },
  )
  try {
    leaves(types.params).forEach(([path, type], i) =>
      program.write(`params.${path}`, draw(type as never, i, [-0.3, 0.3])),
    )
    const tokens = tokensOf(model.context, 0)
    const parts: Results[] = []
    for (let device = 0; device < count; device++) {
      const length = tokens.length / count
      await program.run({ tokens: tokens.subarray(length * device, length * (device + 1)) })
      parts.push(
        Object.fromEntries(
          [...program.outputs.keys()].map((path) => [path, readValues(program, path) as Float32Array]),
        ),
      )
    }
    const sum = pairwise(parts)
    return Object.fromEntries(
      Object.entries(sum).map(([path, x]) => [path, path === 'loss' ? x : x.map((value) => value / count)]),
    )
  } finally {
    program.close()
  }
}

function pairwise(parts: readonly Results[]): Results {
  if (parts.length === 1) return parts[0]!
  const half = parts.length / 2
  const [left, right] = [pairwise(parts.slice(0, half)), pairwise(parts.slice(half))]
  return Object.fromEntries(
    Object.entries(left).map(([path, x]) => [path, x.map((value, i) => value + right[path]![i]!)]),
  )
}

for (const block of ['modern', 'gpt2'] as const) {
  for (const precision of ['f32', 'bf16'] as const) {
    test(`${block}, ${precision}: gradients have the same bits however many devices share the batch`, async () => {
      const config = configOf(block, precision)
      const whole = await gradients(config, 1)
      for (const count of devices) assertSame(await gradients(config, count), whole, `${count} devices`)
    })
  }
}

test('steps have the same bits however many microbatches the batch is split into', async () => {
  for (const precision of ['f32', 'bf16'] as const) {
    const whole = await afterSteps(configOf('modern', precision))
    for (const count of devices)
      assertSame(await afterSteps(configOf('modern', precision, count)), whole, `${count} microbatches`)
  }
})
