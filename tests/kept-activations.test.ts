/**
 * What a layer keeps for its backward pass, byte for byte: a closed form, the loop over the layers in the compiled step,
 * and what a layer more takes in its memory plan. The published form (Korthikanti et al., Reducing Activation
 * Recomputation in Large Transformer Models) counts bytes in units of s b h, tokens times width, with 2 bytes a value:
 *
 *     one rank 34 + 5as/h        tensor 10 + 24/t + 5as/(ht)        and sequence (34 + 5as/h)/t        recomputed 2
 *
 * 34 is 16 values and the masks of two dropouts, a byte each; 10 is 4 of the values (both norms' inputs and outputs) and
 * the masks; 24/t is the other 12 (q, k, v, what attention gives, the MLP's hidden values before and after GELU); 5as/h is
 * the scores, their softmax and its dropout. Of the same block we keep the same 16 values, without dropout no masks; of
 * the scores one log-sum-exp a query, a/h; and of each norm one factor a token, 2/h. In f32 a value has 4 bytes.
 */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { bytesOf } from '../src/compiler/graph/types.ts'
import type { Program } from '../src/compiler/index.ts'
import { scanAttrs } from '../src/compiler/ops/scan.ts'
import { loopPairs } from '../src/compiler/passes/keep.ts'
import { resolveConfig, type LanguageOverrides } from '../src/models/language/config.ts'
import { compileStep } from '../src/train/step.ts'

// Many tokens for the width, so that nothing in the step takes more than the backward pass.
const [batch, context, width, heads] = [8, 128, 64, 4]
const tokens = batch * context

type Block = 'gpt2' | 'modern'

interface Plan {
  readonly tensor: number
  readonly sequence: boolean
}

/**
 * What one layer keeps on one rank, in f32 values a token and width: `everywhere` on every rank of a tensor axis unless the
 * sequence is cut, `cut` divided among them. In the modern block norms have no weights, so that what they give is what
 * their gradients need, kept once. Besides it keeps for ReLU's gradient which values are positive, a byte for each of 4h,
 * and of the norms of q and k their results before the rotation and one factor a head.
 */
const kept: Readonly<Record<Block, { readonly everywhere: number; readonly cut: number }>> = {
  gpt2: { everywhere: 4 + 2 / width, cut: 12 + heads / width },
  modern: { everywhere: 2 + 2 / width, cut: 12 + heads / width + 4 / 4 + 2 * (1 + heads / width) },
}

function keptBytes(block: Block, { tensor, sequence }: Plan): number {
  const { everywhere, cut } = kept[block]
  return 4 * tokens * width * (everywhere / (sequence ? tensor : 1) + cut / tensor)
}

/** Recomputed, the layer's input. */
const inputBytes = ({ tensor, sequence }: Plan): number => (4 * tokens * width) / (sequence ? tensor : 1)

/**
 * Gradients of a layer's weights, which wait for the optimizer: matrices, and weights of norms where there are any. Of the
 * modern block with its sequence cut, those of q, k and v are whole on each rank until they are added up: each multiplies
 * the tokens it has instead of gathering all of them again.
 */
function gradientBytes(block: Block, { tensor, sequence }: Plan): number {
  const whole = block === 'modern' && sequence ? 3 : 0
  const matrices = width * width * (whole + (12 - whole) / tensor)
  return 4 * (matrices + (block === 'gpt2' ? 2 * width : 0))
}

function step(
  block: Block,
  layers: number,
  { tensor, sequence }: Plan,
  recompute: boolean,
): Promise<Program> {
  const config = resolveConfig({
    batch,
    threads: 1,
    recompute: recompute ? 'full' : 'none',
    ...(tensor > 1 ? { mesh: { tensor }, parallel: { sequence } } : {}),
    optim: { name: 'sgd' },
    model: { block, layers, width, heads, kvHeads: heads, context },
  } as LanguageOverrides)
  return compileStep(config, 64, { target: 'text' })
}

const plans: readonly Plan[] = [
  { tensor: 1, sequence: false },
  { tensor: 2, sequence: false },
  { tensor: 4, sequence: false },
  { tensor: 2, sequence: true },
  { tensor: 4, sequence: true },
]

for (const block of ['gpt2', 'modern'] as const) {
  for (const recompute of [false, true]) {
    test(`activations of a layer, ${block}${recompute ? ', recomputed' : ''}: the closed form`, async () => {
      for (const plan of plans) {
        const what = JSON.stringify(plan)
        const wanted = recompute ? inputBytes(plan) : keptBytes(block, plan)
        const [few, many] = [await step(block, 4, plan, recompute), await step(block, 8, plan, recompute)]
        const [pair, ...others] = loopPairs(few.func)
        assert.equal(others.length, 0, what)
        const { body, numCarries } = scanAttrs(pair!.forward)
        const stacked = body.results.slice(numCarries)
        assert.equal(
          stacked.reduce((sum, value) => sum + bytesOf(value.type), 0),
          wanted,
          what,
        )
        const grown = (many.memory.temporaryBytes - few.memory.temporaryBytes) / 4
        assert.equal(grown, wanted + gradientBytes(block, plan), what)
      }
    })
  }
}

test('activations of a layer: sixteen values a token and width are the published ones', () => {
  // What only one of the two counts, over s b h: masks and scores here, log-sum-exps and norms' factors there.
  const [a, s, h] = [heads, context, width]
  const scores = (5 * a * s) / h
  for (const plan of plans) {
    const t = plan.tensor
    const shared = plan.sequence ? t : 1
    const published = plan.sequence ? (34 + scores) / t : 10 + 24 / t + scores / t
    const without = published - scores / t - 2 / shared
    const ours = keptBytes('gpt2', plan) / (4 * tokens * width) - a / h / t - 2 / h / shared
    assert.equal(2 * ours, without, JSON.stringify(plan))
  }
})
