/**
 * The language model: a decoder-only transformer as a plain function of a parameter tree, in two blocks.
 *
 * `modern`: rotary positions, RMS norm without weights (also over q and k), squared ReLU, untied head, zero-initialised
 * output projections; what the nanoGPT speedruns arrived at. `gpt2`: learned positions, layer norm, tanh GELU, tied head
 * (Radford et al., Language Models are Unsupervised Multitask Learners), without biases as in nanoGPT's small recipes.
 *
 * Layers are stacked along a leading axis and looped with `scan`: the graph holds one layer. Axis names: batch, time,
 * embed, heads, dim, hidden, vocab, layer.
 */
import {
  attention,
  checkpoint,
  crossEntropy,
  gelu,
  iota,
  layerNorm,
  mapTree,
  rmsNorm,
  scan,
  valueType,
  where,
  type RandomKey,
  type Tensor,
  type ValueType,
} from '../../compiler/index.ts'
import { dropout, linear, ropeFrequencies, ropeTables, rotate } from '../../nn/layers.ts'
import type { LanguageConfig } from './config.ts'

export type ModelConfig = LanguageConfig['model'] & { readonly vocab: number }

/** How one parameter starts: normal with a standard deviation (0: zeros), or ones. */
export interface ParameterSpec extends ValueType {
  readonly std: number | 'ones'
  /** Hidden matrices are what Muon orthogonalises; embeddings, heads and norms are not. */
  readonly hidden: boolean
}

const rmsEps = 1e-6
const ropeTheta = 10_000

/** Every parameter of the model, by path, with shape and initial distribution. */
export function parameterSpecs(config: ModelConfig): ParameterTree<ParameterSpec> {
  const { layers, width, heads, kvHeads, context, vocab, block } = config
  const dim = width / heads
  const matrix = (rows: [string, number], columns: [string, number], std: number): ParameterSpec => ({
    ...valueType('f32', [layers, rows[1], columns[1]], ['layer', rows[0], columns[0]]),
    std,
    hidden: true,
  })
  const table = (rows: [string, number], columns: [string, number], std: number): ParameterSpec => ({
    ...valueType('f32', [rows[1], columns[1]], [rows[0], columns[0]]),
    std,
    hidden: false,
  })
  const norm = (stacked: boolean): ParameterSpec => ({
    ...(stacked
      ? valueType('f32', [layers, width], ['layer', 'embed'])
      : valueType('f32', [width], ['embed'])),
    std: 'ones',
    hidden: false,
  })
  const modern = block === 'modern'
  const std = modern ? 0.5 / Math.sqrt(width) : 0.02
  const outStd = modern ? 0 : 0.02 / Math.sqrt(2 * layers)
  const embed: [string, number] = ['embed', width]
  const attn = {
    q: matrix(embed, ['q', heads * dim], std),
    k: matrix(embed, ['k', kvHeads * dim], std),
    v: matrix(embed, ['v', kvHeads * dim], std),
    o: matrix(['q', heads * dim], embed, outStd),
  }
  const mlp = {
    up: matrix(embed, ['hidden', 4 * width], std),
    down: matrix(['hidden', 4 * width], embed, outStd),
  }
  const tokens = table(['vocab', vocab], embed, modern ? 1 : 0.02)
  if (modern) return { tokens, layers: { attn, mlp }, head: table(embed, ['vocab', vocab], 0) }
  return {
    tokens,
    positions: table(['time', context], embed, 0.02),
    layers: { norm1: norm(true), attn, norm2: norm(true), mlp },
    norm: norm(false),
  }
}

/** The parameter tree: weights of one layer are stacked along a leading axis. */
export type ParameterTree<T> = {
  readonly tokens: T
  readonly positions?: T
  readonly layers: {
    readonly norm1?: T
    readonly attn: { readonly q: T; readonly k: T; readonly v: T; readonly o: T }
    readonly norm2?: T
    readonly mlp: { readonly up: T; readonly down: T }
  }
  readonly norm?: T
  readonly head?: T
}
export type ModelWeights = ParameterTree<Tensor>
type LayerWeights = ModelWeights['layers']

/** Element type, shape and axes of every parameter. */
export const parameterTypes = (config: ModelConfig): ParameterTree<ValueType> =>
  mapTree<ParameterSpec, ValueType>(parameterSpecs(config), ({ dtype, shape, axes }) => ({
    dtype,
    shape,
    axes,
  })) as ParameterTree<ValueType>

/** tokens [batch, time] i32 to logits [batch, time, vocab]. `key` switches dropout on. */
export function forward(
  weights: ModelWeights,
  tokens: Tensor,
  config: ModelConfig,
  key?: Omit<RandomKey, 'salt'>,
): Tensor {
  const { width, heads, kvHeads, block } = config
  const dim = width / heads
  const modern = block === 'modern'
  const time = tokens.size('time')
  const rate = key ? config.dropout : 0
  const drop = (x: Tensor, layer: Tensor, stream: number): Tensor =>
    rate > 0 && key ? dropout(x, rate, { ...key, salt: layer }, stream) : x

  let x = weights.tokens.take(tokens)
  if (weights.positions) x = x.add(weights.positions.slice(0, 0, time))
  x = modern ? rmsNorm(x, undefined, rmsEps) : x
  x = drop(x, iota(1).reshape([]), 1)
  const tables = modern ? ropeTables(time, ropeFrequencies(dim, ropeTheta)) : undefined

  const layer = (x: Tensor, w: LayerWeights, index: Tensor): Tensor => {
    const normed = modern ? rmsNorm(x, undefined, rmsEps) : layerNorm(x, w.norm1)
    const head = (weight: Tensor, axis: string, count: number): Tensor =>
      linear(normed, weight).split(axis, { heads: count, dim })
    let q = head(w.attn.q, 'q', heads)
    let k = head(w.attn.k, 'k', kvHeads)
    const v = head(w.attn.v, 'v', kvHeads)
    if (tables) {
      q = rotate(rmsNorm(q, undefined, rmsEps), tables)
      k = rotate(rmsNorm(k, undefined, rmsEps), tables)
    }
    const mixed = attention(q, k, v).merge(['heads', 'dim'], 'q')
    const attended = x.add(drop(linear(mixed, w.attn.o), index, 2))
    const hidden = linear(
      modern ? rmsNorm(attended, undefined, rmsEps) : layerNorm(attended, w.norm2),
      w.mlp.up,
    )
    const active = modern ? hidden.max(0).square() : gelu(hidden)
    return attended.add(drop(linear(active, w.mlp.down), index, 3))
  }
  const [last] = scan(
    x,
    { weights: weights.layers, index: iota(config.layers, 'layer') },
    (x, slice) => [checkpoint((args) => layer(args.x, args.weights, args.index), { x, ...slice }), {}],
    { name: 'layers' },
  )
  const final = modern ? rmsNorm(last, undefined, rmsEps) : layerNorm(last, weights.norm)
  return weights.head ? linear(final, weights.head) : final.dot(weights.tokens, 'embed')
}

/** Mean nats per token of tokens [batch, time + 1]: each position predicts the next. */
export function loss(
  weights: ModelWeights,
  tokens: Tensor,
  config: ModelConfig,
  key?: Omit<RandomKey, 'salt'>,
): Tensor {
  const time = tokens.size('time') - 1
  const logits = forward(weights, tokens.slice('time', 0, time), config, key)
  return crossEntropy(logits, tokens.slice('time', 1, time)).mean()
}

/** Summed nats of tokens [batch, time + 1] where weights [batch, time] are not zero, for exact evaluation. */
export function weightedLoss(
  weights: ModelWeights,
  tokens: Tensor,
  counted: Tensor,
  config: ModelConfig,
): Tensor {
  const time = tokens.size('time') - 1
  const logits = forward(weights, tokens.slice('time', 0, time), config)
  const nats = crossEntropy(logits, tokens.slice('time', 1, time))
  return where(counted.greater(0), nats, 0).sum()
}
