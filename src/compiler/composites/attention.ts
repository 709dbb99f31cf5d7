/**
 * Scaled dot-product attention with grouped-query heads, causal mask and sliding window (Vaswani et al.; Ainslie et al.,
 * GQA). The body writes the score matrix out and is the meaning; targets run tiled kernels that never hold it (Dao,
 * FlashAttention-2), so FLOPs are declared for the pairs a causal kernel visits. The backward composite recomputes the
 * probabilities from the saved log-sum-exp.
 *
 * Shapes: q [B, T, H, D], k and v [B, S, K, D] with H a multiple of K; query i sits at position i + S - T.
 */
import type { Attrs } from '../graph/node.ts'
import { sameShape, typeError, valueType, type ValueType } from '../graph/types.ts'
import { get } from '../ops/get.ts'
import { iota, Tensor, where } from '../trace/tensor.ts'
import { invoke, type Composite } from './composite.ts'

export interface AttentionOptions {
  readonly causal?: boolean
  /** Each query sees this many keys up to its own position; 0: all. */
  readonly window?: number
  /** Default 1 / sqrt(D). */
  readonly scale?: number
}

/** How many (query, key) pairs of one head are not masked. */
export function visiblePairs(queries: number, keys: number, causal: boolean, window: number): number {
  let pairs = 0
  for (let i = 0; i < queries; i++) {
    const position = i + keys - queries
    const end = causal ? position + 1 : keys
    const start = window > 0 ? Math.max(0, position - window + 1) : 0
    pairs += Math.max(0, end - start)
  }
  return pairs
}

/** What the cost of attention depends on. */
export interface AttentionSize {
  readonly batch: number
  readonly queries: number
  readonly keys: number
  readonly heads: number
  readonly dim: number
  readonly causal: boolean
  readonly window: number
}

/**
 * Operations of the forward pass. A visible pair: 2 dim for the score, compare, subtract, exp and sum for the softmax,
 * 2 dim for its value. A query: dim to scale it, reciprocal, logarithm and addition for its sum, dim to normalise.
 */
export function attentionFlops({ batch, queries, keys, heads, dim, causal, window }: AttentionSize): number {
  const pairs = visiblePairs(queries, keys, causal, window)
  return batch * heads * (pairs * (4 * dim + 4) + queries * (2 * dim + 3))
}

/**
 * Operations of the backward pass. A visible pair: five products of 2 dim (score, dP, dV, dK, dQ), subtract and exp for
 * P, subtract and multiply for dS. A query: dim to scale it, 2 dim for delta = dO . o, dim to scale dQ.
 */
export function attentionBackwardFlops({
  batch,
  queries,
  keys,
  heads,
  dim,
  causal,
  window,
}: AttentionSize): number {
  const pairs = visiblePairs(queries, keys, causal, window)
  return batch * heads * (pairs * (10 * dim + 4) + queries * 4 * dim)
}

function sizeOfCall([q, k]: readonly ValueType[], options: Attrs): AttentionSize {
  const [batch, queries, heads, dim] = q!.shape as [number, number, number, number]
  const window = options['window'] as number
  return { batch, queries, keys: k!.shape[1]!, heads, dim, causal: options['causal'] === true, window }
}

/** Scaled, masked scores [B, K, G, T, S] in f-type of q, and the grouped query. */
function scores(q: Tensor, k: Tensor, options: Attrs): { grouped: Tensor; masked: Tensor } {
  const [batch, queries, heads, dim] = q.shape as [number, number, number, number]
  const [, keys, kvHeads] = k.shape as [number, number, number]
  const grouped = q.reshape([batch, queries, kvHeads, heads / kvHeads, dim], ['b', 't', 'k', 'g', 'd'])
  const raw = grouped.dot(k.named(['b', 's', 'k', 'd']), 'd').mul(options['scale'] as number)
  const ordered = raw.transpose(['b', 'k', 'g', 't', 's'])
  const shape = { shape: [queries, keys], axes: ['t', 's'] }
  const position = iota(queries, 't')
    .add(keys - queries)
    .broadcastTo(shape)
  const source = iota(keys, 's').broadcastTo(shape)
  const window = options['window'] as number
  let visible: Tensor | undefined
  if (options['causal'] === true) visible = source.less(position.add(1))
  if (window > 0) {
    const recent = position.sub(window).less(source)
    visible = visible ? visible.mul(recent) : recent
  }
  return { grouped, masked: visible ? where(visible, ordered, -Infinity) : ordered }
}

export const attentionComposite: Composite = {
  name: 'attention',
  doc: 'softmax(scale q kᵀ + mask) v with grouped-query heads, and its log-sum-exp',
  body([q, k, v], options) {
    const { masked } = scores(q!, k!, options)
    const top = masked.maxOver('s', true)
    const weights = masked.sub(top).exp()
    const total = weights.sum('s', true)
    const mixed = weights.div(total).dot(v!.named(['b', 's', 'k', 'd']), 's')
    const [batch, queries, heads] = q!.shape as [number, number, number]
    const logSum = total
      .log()
      .add(top)
      .reshape([batch, heads, queries], [q!.axes[0]!, q!.axes[2]!, q!.axes[1]!])
    return [mixed.transpose(['b', 't', 'k', 'g', 'd']).reshape(q!.shape, q!.axes), logSum]
  },
  flops: (inputs, options) => attentionFlops(sizeOfCall(inputs, options)),
  gradient(node, [g]) {
    if (!g) return [null, null, null]
    const inputs = [...node.inputs, get(node, 0), get(node, 1), g].map((x) => new Tensor(x))
    return invoke(attentionBackwardComposite, inputs, node.attrs['options'] as Attrs).map((x) => x.node)
  },
  samples: () => [
    { inputs: qkv([2, 5, 2, 4], [2, 5, 2, 4]), options: { causal: true, window: 0, scale: 0.5 } },
    { inputs: qkv([1, 6, 4, 4], [1, 6, 2, 4]), options: { causal: true, window: 3, scale: 0.5 } },
    { inputs: qkv([2, 3, 2, 4], [2, 7, 1, 4]), options: { causal: true, window: 0, scale: 0.5 } },
    { inputs: qkv([1, 4, 2, 8], [1, 6, 2, 8]), options: { causal: false, window: 0, scale: 0.35 } },
  ],
}

export const attentionBackwardComposite: Composite = {
  name: 'attentionBackward',
  doc: 'gradients of attention for q, k and v from its saved results',
  body([q, k, v, out, logSum, g], options) {
    const [batch, queries, heads, dim] = q!.shape as [number, number, number, number]
    const kvHeads = k!.shape[2]!
    const group = heads / kvHeads
    const split = (x: Tensor): Tensor =>
      x.reshape([batch, queries, kvHeads, group, dim], ['b', 't', 'k', 'g', 'd'])
    const rows = { shape: [batch, kvHeads, group, queries, 1], axes: ['b', 'k', 'g', 't', null] }
    const { grouped, masked } = scores(q!, k!, options)
    const probabilities = masked.sub(logSum!.reshape(rows.shape, rows.axes)).exp()
    const dOut = split(g!)
    const delta = dOut
      .mul(split(out!))
      .sum('d')
      .transpose(['b', 'k', 'g', 't'])
      .reshape(rows.shape, rows.axes)
    const dWeights = dOut.dot(v!.named(['b', 's', 'k', 'd']), 'd').transpose(['b', 'k', 'g', 't', 's'])
    const dScores = dWeights
      .sub(delta)
      .mul(probabilities)
      .mul(options['scale'] as number)
    const dq = dScores.dot(k!.named(['b', 's', 'k', 'd']), 's').transpose(['b', 't', 'k', 'g', 'd'])
    const dk = dScores.dot(grouped, ['g', 't']).transpose(['b', 's', 'k', 'd'])
    const dv = probabilities.dot(dOut, ['g', 't']).transpose(['b', 's', 'k', 'd'])
    return [dq.reshape(q!.shape, q!.axes), dk.named(k!.axes), dv.named(v!.axes)]
  },
  flops: (inputs, options) => attentionBackwardFlops(sizeOfCall(inputs, options)),
  samples: () => [
    {
      inputs: [...qkv([2, 5, 2, 4], [2, 5, 1, 4]), f64(2, 5, 2, 4), f64(2, 2, 5), f64(2, 5, 2, 4)],
      options: { causal: true, window: 0, scale: 0.5 },
      ranges: [
        [-1, 1],
        [-1, 1],
        [-1, 1],
        [-1, 1],
        [2, 3],
        [-1, 1],
      ],
    },
  ],
}

const f64 = (...shape: number[]): ValueType => valueType('f64', shape)
const qkv = (q: number[], k: number[]): ValueType[] => [f64(...q), f64(...k), f64(...k)]

/** q: [B, T, H, D]; k, v: [B, S, K, D]. Result: [B, T, H, D]. */
export function attention(q: Tensor, k: Tensor, v: Tensor, options: AttentionOptions = {}): Tensor {
  const { causal = true, window = 0, scale = 1 / Math.sqrt(q.size(-1)) } = options
  const [[batch, , heads, dim], [kBatch, keys, kvHeads, kDim]] = [q.shape, k.shape]
  const fits = q.rank === 4 && k.rank === 4 && batch === kBatch && dim === kDim && sameShape(k.shape, v.shape)
  if (!fits || heads! % kvHeads! !== 0) {
    throw typeError(
      'attention',
      `q ${q}, k ${k}, v ${v}`,
      'q [B, T, H, D] and k, v [B, S, K, D] with H a multiple of K',
      'check heads and head size',
    )
  }
  if (!Number.isInteger(window) || window < 0 || (causal && q.shape[1]! > keys!)) {
    throw typeError(
      'attention',
      `window ${window}, ${q.shape[1]} queries, ${keys} keys`,
      'a window of 0 (all keys) or more, and under a causal mask no more queries than keys',
      'check the options',
    )
  }
  return invoke(attentionComposite, [q, k, v], { causal, window, scale })[0]!
}
