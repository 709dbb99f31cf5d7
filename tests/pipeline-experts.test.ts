/**
 * Mixtures of experts in a pipeline: stages hand on the load of their layers, so that the last one knows the auxiliary loss
 * and every one the load that moves its biases. Against gradient accumulation on one device, in float64 and on threads.
 */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { compile } from '../src/compiler/index.ts'
import { resolveConfig, type LanguageOverrides } from '../src/models/language/config.ts'
import { comparePlan } from '../src/train/prove.ts'
import { stepSource } from '../src/train/programs.ts'
import { assertAgree, configOf, fillInputs, pipelined, ran, vocab } from './plans.ts'

const cases = [
  ['pipe=2', 'gpipe', 1],
  ['pipe=4', '1f1b', 1],
  ['pipe=2', 'interleaved', 2],
  ['pipe=2', 'dualpipe-v', 1],
  ['pipe=2 data=2 zero=1', 'zb-h1', 1],
  ['pipe=2 expert=2', '1f1b', 1],
  ['pipe=2 expert=2 tensor=2', 'zb-h2', 1],
  ['pipe=2 data=2 context=2 attention=ring', '1f1b', 1],
] as const

const mixtures = {
  'balanced by a bias': { balance: 'bias', sharedExperts: 1 },
  'balanced by a loss': { balance: 'loss', routing: 'sigmoid' },
  'balanced by a loss, with a capacity': { balance: 'loss', capacity: 1.25 },
} as const

for (const [name, settings] of Object.entries(mixtures)) {
  test(`experts ${name}: pipelines equal accumulation on one device`, async () => {
    const config = configOf({
      batch: 8,
      accumulate: 4,
      model: { layers: 4, experts: 4, topK: 2, ...settings },
    } as LanguageOverrides)
    const source = stepSource(config, vocab)
    const one = await ran(source, {})
    const before = await compile(source.body, source.inputs, { target: 'reference' })
    fillInputs(before)
    if (settings.balance === 'bias') {
      // Every layer's bias moves, or there would be nothing to hand on.
      const bias = 'state.params.layers.mlp.bias'
      const moved = one.view(bias).map((x, i) => Math.abs(x - before.view(bias)[i]!))
      for (let layer = 0; layer < 4; layer++)
        assert.ok(
          moved.slice(4 * layer, 4 * layer + 4).some((x) => x > 1e-3),
          `layer ${layer}`,
        )
    }
    for (const [plan, schedule, stages] of cases) {
      // A rank drops what its own tokens have too much of.
      if ('capacity' in settings && plan !== 'pipe=2' && plan !== 'pipe=4') continue
      const many = await ran(source, { parallel: pipelined(config, plan, schedule, stages) })
      assertAgree(`${plan} ${schedule}`, one, many, 1e-11)
    }
  })
}

test('a pipeline of experts on threads: the losses of one device', async () => {
  const config = resolveConfig({
    batch: 8,
    accumulate: 4,
    threads: 1,
    mesh: { pipe: 2 },
    model: { layers: 2, width: 32, heads: 2, context: 16, experts: 4 },
  })
  const { losses } = await comparePlan(config, vocab, { steps: 4, target: 'c' })
  for (const loss of losses) assert.ok(loss <= 1e-5, `${loss}`)
})
