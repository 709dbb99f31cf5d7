/**
 * The training step of a mixture of experts: the same bits for any team, FLOPs counted as declared, load of every layer
 * all there, bias moved by the rule alone, microbatches and recomputation as for any model.
 */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { isDeepStrictEqual } from 'node:util'
import type { Program } from '../compiler/index.ts'
import { worstError } from '../compiler/testing.ts'
import { resolveConfig, type LanguageOverrides } from '../models/language/config.ts'
import { initialise } from './programs.ts'
import { compileStep } from './step.ts'

const vocab = 23
const settings = (more: LanguageOverrides = {}): LanguageOverrides => ({
  batch: 4,
  steps: 20,
  ...more,
  model: {
    layers: 2,
    width: 32,
    heads: 2,
    context: 24,
    experts: 4,
    topK: 2,
    sharedExperts: 1,
    ...more.model,
  },
})

/** A few steps; everything that is state afterwards, and the metrics of each step. */
async function train(
  overrides: LanguageOverrides,
  options: Parameters<typeof compileStep>[2],
  use: (program: Program) => void = () => {},
): Promise<{ readonly state: Map<string, number[]>; readonly metrics: number[][] }> {
  const config = resolveConfig({ seed: 3, ...overrides })
  const program = await compileStep(config, vocab, options)
  initialise(program, config, vocab)
  const metrics: number[][] = []
  for (let step = 0; step < 5; step++) {
    const tokens = Array.from({ length: 4 * 25 }, (_, i) => (i * i + step * 5 + (i >> 3)) % vocab)
    await program.run({ tokens, seed: [3] })
    metrics.push(['loss', 'gradNorm', 'imbalance'].map((path) => program.view(path)[0]!))
  }
  use(program)
  const state = new Map(
    [...program.outputs.keys()]
      .filter((path) => path.startsWith('state.'))
      .map((path) => [path, Array.from(program.view(path))]),
  )
  program.close()
  return { state, metrics }
}

test('a step has the same bits on 1, 2 and 3 threads, and does the FLOPs it declares', async () => {
  const one = await train(settings(), { threads: 1 })
  assert.ok(one.metrics[0]![0]! > one.metrics[4]![0]!, 'it learns')
  for (const threads of [2, 3])
    assert.ok(isDeepStrictEqual(await train(settings(), { threads }), one), `${threads} threads`)
  let declared = 0
  let counted = 0
  await train(settings(), { threads: 2, checking: true }, (program) => {
    declared = 5 * program.flops
    counted = program.countedFlops()
  })
  assert.equal(counted, declared)
})

test('the bias moves by its rate against the load, and has no optimizer', async () => {
  const { state, metrics } = await train(settings({ model: { balanceRate: 0.25 } }), { threads: 2 })
  const bias = state.get('state.params.layers.mlp.bias')!
  assert.equal(bias.length, 2 * 4)
  assert.ok(bias.every((b) => Number.isInteger(b / 0.25) && Math.abs(b) <= 1.25))
  assert.ok(bias.some((b) => b !== 0))
  assert.deepEqual(
    [...state.keys()].filter((path) => path.includes('optim') && path.includes('bias')),
    [],
  )
  for (const [, , uneven] of metrics) assert.ok(uneven! >= 1 && uneven! <= 2)
})

test('microbatches, recomputation and the other ways to balance train the same model', async () => {
  const whole = await train(settings(), { threads: 2 })
  const again = await train(settings({ recompute: true }), { threads: 2 })
  const parts = await train(settings({ accumulate: 2 }), { threads: 2 })
  for (const other of [again, parts]) assert.ok(worstError(other.metrics.flat(), whole.metrics.flat()) < 1e-4)
  for (const model of [
    { balance: 'loss' },
    { balance: 'none', routing: 'sigmoid' },
    { capacity: 1 },
  ] as const) {
    const other = await train(settings({ model }), { threads: 2 })
    assert.ok(other.metrics[0]![0]! > other.metrics[4]![0]!, JSON.stringify(model))
    assert.ok(!isDeepStrictEqual(other.metrics, whole.metrics))
  }
})
