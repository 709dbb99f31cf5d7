/**
 * What a mixture sends whose experts are shared out: tokens, gathered before their first product, and results, summed after
 * the last. Nothing of what lies between, and no gradient of an expert's weights. Bytes counted are those predicted.
 */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { resolveConfig } from '../src/models/language/config.ts'
import { sentBytes, trafficOfCut } from '../src/parallel/traffic.ts'
import { comparePlan } from '../src/train/prove.ts'
import { compileStep } from '../src/train/step.ts'

const vocab = 16
const [layers, ranks] = [2, 2]

for (const balance of ['bias', 'loss'] as const) {
  test(`experts on ${ranks} ranks, balanced by a ${balance}: five times the tokens of a layer, as counted`, async () => {
    const config = resolveConfig({
      batch: 8,
      threads: 1,
      mesh: { expert: ranks },
      optim: { name: 'adamw' },
      model: { layers, width: 32, heads: 2, context: 24, experts: 4, topK: 2, sharedExperts: 1, balance },
    })
    const { cut } = await compileStep(config, vocab, { target: 'text' })
    const [{ traffic }] = trafficOfCut(cut!) as [ReturnType<typeof trafficOfCut>[number]]
    // Of a layer: tokens to the experts, results back, both for gradients, and tokens once more for those of weights.
    const tokens = 4 * config.batch * config.model.context * config.model.width
    const large = traffic.filter(({ bytes }) => bytes >= tokens)
    const kinds = large.map(({ kind, bytes, calls }) => `${kind} ${bytes / tokens} x ${calls}`).toSorted()
    const [gather, scatter] = [`allGather 1 x ${layers}`, `reduceScatter 1 x ${layers}`]
    assert.deepEqual(kinds, [gather, gather, gather, scatter, scatter])
    assert.equal(sentBytes(large), (5 * layers * tokens * (ranks - 1)) / ranks)

    const steps = 3
    const { losses, traffic: counted } = await comparePlan(config, vocab, { steps, target: 'c' })
    for (const loss of losses) assert.ok(loss <= 1e-5, `${loss}`)
    const sum = counted.reduce((all, { bytesSent }) => all + bytesSent.flat().reduce((a, b) => a + b, 0), 0)
    assert.equal(sum / steps, ranks * sentBytes(traffic))
  })
}
