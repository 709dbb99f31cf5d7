/**
 * The language model: a decoder-only transformer as a plain function of a parameter tree, in two blocks.
 *
 * `modern`: rotary positions, RMS norm without weights (also over q and k), squared ReLU, untied head, zero-initialised
 * output projections; what the nanoGPT speedruns arrived at. `gpt2`: learned positions, layer norm, tanh GELU, tied head
 * (Radford et al., Language Models are Unsupervised Multitask Learners), without biases as in nanoGPT's small recipes.
 *
 * With `model.experts` the MLP is a mixture of experts (experts.ts).
 *
 * Layers are stacked along a leading axis and looped with `scan`: the graph holds one layer. Axis names: batch, time,
 * embed, heads, dim, hidden, vocab, layer, expert,
 * choice.
 */
import {
  attention,
  checkpoint,
  crossEntropy,
  gelu,
  iota,
  layerNorm,
  leaves,
  mapTree,
  rmsNorm,
  scan,
  sizeOf,
  valueType,
  where,
  type RandomKey,
  type Tensor,
  type ValueType,
} from '../../compiler/index.ts'
import { dropout, linear, ropeFrequencies, ropeTablesAt, rotate, type RopeTables } from '../../nn/layers.ts'
import type { LanguageConfig } from './config.ts'
import { balanceLoss, mixture, type ExpertWeights, type Routing } from './experts.ts'

export type ModelConfig = LanguageConfig['model'] & { readonly vocab: number }

/** How one parameter starts: normal with a standard deviation (0: zeros), or ones. */
export interface ParameterSpec extends ValueType {
  readonly std: number | 'ones'
  /** Hidden matrices are what Muon orthogonalises; embeddings, heads and norms are not. */
  readonly hidden: boolean
  /** The step moves it by a rule of its own: no gradient, no optimizer, no parameter of the count. */
  readonly ruled?: true
}

const rmsEps = 1e-6
const ropeTheta = 10_000

type Dim = readonly [name: string, size: number]

/** Every parameter of the model, by path, with shape and initial distribution. */
export function parameterSpecs(config: ModelConfig): ParameterTree<ParameterSpec> {
  const { layers, width, heads, kvHeads, context, vocab, block, experts } = config
  const dim = width / heads
  const stacked = (dims: readonly Dim[], std: number, hidden = true): ParameterSpec => ({
    ...valueType('f32', [layers, ...dims.map(([, size]) => size)], ['layer', ...dims.map(([name]) => name)]),
    std,
    hidden,
  })
  const table = (rows: Dim, columns: Dim, std: number): ParameterSpec => ({
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
  const embed: Dim = ['embed', width]
  const attn = {
    q: stacked([embed, ['q', heads * dim]], std),
    k: stacked([embed, ['k', kvHeads * dim]], std),
    v: stacked([embed, ['v', kvHeads * dim]], std),
    o: stacked([['q', heads * dim], embed], outStd),
  }
  const mlpOf = (hidden: number, ...of: Dim[]): { up: ParameterSpec; down: ParameterSpec } => ({
    up: stacked([...of, embed, ['hidden', hidden]], std),
    down: stacked([...of, ['hidden', hidden], embed], outStd),
  })
  const mlp = experts === 0 ? mlpOf(4 * width) : mixtureSpecs()
  function mixtureSpecs(): ExpertWeights<ParameterSpec> {
    const { expertHidden, sharedExperts, balance } = config
    return {
      ...mlpOf(expertHidden, ['expert', experts]),
      router: stacked([embed, ['router', experts]], std, false),
      ...(balance === 'bias' ? { bias: { ...stacked([['router', experts]], 0, false), ruled: true } } : {}),
      ...(sharedExperts > 0 ? { shared: mlpOf(sharedExperts * expertHidden) } : {}),
    }
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
    readonly mlp: ExpertWeights<T>
  }
  readonly norm?: T
  readonly head?: T
}
export type ModelWeights = ParameterTree<Tensor>
export type LayerWeights = ModelWeights['layers']

/** Element type, shape and axes of every parameter. */
export const parameterTypes = (config: ModelConfig): ParameterTree<ValueType> =>
  mapTree<ParameterSpec, ValueType>(parameterSpecs(config), ({ dtype, shape, axes }) => ({
    dtype,
    shape,
    axes,
  })) as ParameterTree<ValueType>

/** How many parameters there are, and how many of them one token uses. */
export function countParameters(config: ModelConfig): {
  readonly parameters: number
  readonly activeParameters: number
} {
  let [parameters, activeParameters] = [0, 0]
  for (const [, { shape, axes, ruled }] of leaves<ParameterSpec>(parameterSpecs(config))) {
    if (ruled) continue
    const size = sizeOf(shape)
    const perExpert = axes[1] === 'expert'
    parameters += size
    activeParameters += perExpert ? (size / config.experts) * config.topK : size
  }
  return { parameters, activeParameters }
}

/** How a pass differs from another: where its tokens stand, how they look at one another, what is dropped. */
export interface Pass {
  readonly tables: RopeTables | undefined
  /** q [batch, time, heads, dim], k and v [batch, time, kvHeads, dim] to [batch, time, heads, dim]. */
  readonly attend: (q: Tensor, k: Tensor, v: Tensor) => Tensor
  /** Dropout of a use (`stream`) of its own. */
  readonly drop: (x: Tensor, stream: number) => Tensor
  /** Whether experts have no room for more tokens than their capacity. */
  readonly limited: boolean
}

const norm = (x: Tensor, { block }: ModelConfig, weight?: Tensor): Tensor =>
  block === 'modern' ? rmsNorm(x, undefined, rmsEps) : layerNorm(x, weight)

/** Rotary tables for positions [time], where the block has any. */
export const tablesAt = (positions: Tensor, { block, width, heads }: ModelConfig): Pass['tables'] =>
  block === 'modern' ? ropeTablesAt(positions, ropeFrequencies(width / heads, ropeTheta)) : undefined

/** tokens [batch, time] at learned positions [time, embed] (or none) to [batch, time, embed]. */
export function embed(
  weights: ModelWeights,
  tokens: Tensor,
  positions: Tensor | undefined,
  { block }: ModelConfig,
): Tensor {
  const x = weights.tokens.take(tokens)
  const placed = positions ? x.add(positions) : x
  return block === 'modern' ? rmsNorm(placed, undefined, rmsEps) : placed
}

/** One block: x [batch, time, embed] plus what attention and the MLP add, and how tokens were routed if they were. */
export function layer(
  x: Tensor,
  w: LayerWeights,
  config: ModelConfig,
  { tables, attend, drop, limited }: Pass,
): { readonly x: Tensor; readonly routing?: Routing } {
  const { width, heads, kvHeads, block } = config
  const dim = width / heads
  const normed = norm(x, config, w.norm1)
  const head = (weight: Tensor, axis: string, count: number): Tensor =>
    linear(normed, weight).split(axis, { heads: count, dim })
  let q = head(w.attn.q, 'q', heads)
  let k = head(w.attn.k, 'k', kvHeads)
  const v = head(w.attn.v, 'v', kvHeads)
  if (tables) {
    q = rotate(rmsNorm(q, undefined, rmsEps), tables)
    k = rotate(rmsNorm(k, undefined, rmsEps), tables)
  }
  const mixed = attend(q, k, v).merge(['heads', 'dim'], 'q')
  const attended = x.add(drop(linear(mixed, w.attn.o), 2))
  const second = norm(attended, config, w.norm2)
  const activation = (hidden: Tensor): Tensor => (block === 'modern' ? hidden.max(0).square() : gelu(hidden))
  if (config.experts === 0) {
    const y = linear(activation(linear(second, w.mlp.up)), w.mlp.down)
    return { x: attended.add(drop(y, 3)) }
  }
  const { y, routing } = mixture(second, w.mlp, config, activation, limited)
  return { x: attended.add(drop(y, 3)), routing }
}

/** What the last block returns, [batch, time, embed], to logits [batch, time, vocab]. */
export function readout(weights: ModelWeights, last: Tensor, config: ModelConfig): Tensor {
  const final = norm(last, config, weights.norm)
  return weights.head ? linear(final, weights.head) : final.dot(weights.tokens, 'embed')
}

/** tokens [batch, time] i32 to logits [batch, time, vocab]. */
export const forward = (weights: ModelWeights, tokens: Tensor, config: ModelConfig): Tensor =>
  pass(weights, tokens, config).logits

/** A whole pass. `key` makes it one of training: with dropout, with the experts' capacity, and with what routing did. */
function pass(
  weights: ModelWeights,
  tokens: Tensor,
  config: ModelConfig,
  key?: Omit<RandomKey, 'salt'>,
): { readonly logits: Tensor; readonly routing?: Routing } {
  const time = tokens.size('time')
  const rate = key ? config.dropout : 0
  const drop = (x: Tensor, salt: Tensor, stream: number): Tensor =>
    rate > 0 && key ? dropout(x, rate, { ...key, salt }, stream) : x
  const embedded = embed(weights, tokens, weights.positions?.slice(0, 0, time), config)
  const x = drop(embedded, iota(1).reshape([]), 1)
  const tables = tablesAt(iota(time, 'time'), config)
  const limited = key !== undefined
  const [last, routing] = scan(
    x,
    { weights: weights.layers, index: iota(config.layers, 'layer') },
    (x, slice) => {
      const { x: next, routing } = checkpoint(
        (args) => {
          const attend = attention
          const ownDrop = (y: Tensor, stream: number): Tensor => drop(y, args.index, stream)
          const done = layer(args.x, args.weights, config, { tables, attend, drop: ownDrop, limited })
          return limited ? done : { x: done.x }
        },
        { x, ...slice },
      )
      return [next, { ...routing }]
    },
    { name: 'layers' },
  )
  const logits = readout(weights, last, config)
  return isRouting(routing) ? { logits, routing } : { logits }
}

const isRouting = (tree: Partial<Routing>): tree is Routing => tree.load !== undefined

export interface Objective {
  /** Nats of all tokens together: each position predicts the next. */
  readonly loss: Tensor
  /** What is minimised: the mean of that, and the weight of uneven experts where that is how they are balanced. */
  readonly total: Tensor
  /** Of a mixture: choices that fell on each expert, [layer, expert]. */
  readonly load?: Tensor
}

/** Nats of every token [batch, time] of tokens [batch, time + 1], and what routing did. */
function lossesOf(
  weights: ModelWeights,
  tokens: Tensor,
  config: ModelConfig,
  key?: Omit<RandomKey, 'salt'>,
): { readonly losses: Tensor; readonly routing?: Routing } {
  const time = tokens.size('time') - 1
  const { logits, ...rest } = pass(weights, tokens.slice('time', 0, time), config, key)
  return { losses: crossEntropy(logits, tokens.slice('time', 1, time)), ...rest }
}

/** Nats of every token [batch, time] of tokens [batch, time + 1]: each position predicts the next. */
export const tokenLosses = (weights: ModelWeights, tokens: Tensor, config: ModelConfig): Tensor =>
  lossesOf(weights, tokens, config).losses

/** What training minimises on tokens [batch, time + 1]. */
export function objective(
  weights: ModelWeights,
  tokens: Tensor,
  config: ModelConfig,
  key: Omit<RandomKey, 'salt'>,
): Objective {
  const { losses, routing } = lossesOf(weights, tokens, config, key)
  const [loss, mean] = [losses.sum(), losses.mean()]
  if (!routing) return { loss, total: mean }
  const { load } = routing
  const { balance, balanceRate } = config
  const total = balance === 'loss' ? mean.add(balanceLoss(routing, config).mul(balanceRate)) : mean
  return { loss, total, load }
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
