/**
 * Scaled dot-product attention with grouped-query heads, causal mask and sliding window (Vaswani et al.; Ainslie et al.,
 * GQA). The body writes the score matrix out and is the meaning; targets run tiled kernels that never hold it (Dao,
 * FlashAttention-2), so FLOPs are declared for the pairs a causal kernel visits. The backward composite recomputes the
 * probabilities from the saved log-sum-exp.
 *
 * Shapes: q [B, T, H, D], k and v [B, S, K, D] with H a multiple of K; query i sits at position i + S - T. Bias and mask,
 * where there are any, are [B, H, T, S] with extent 1 where they are shared; a query that sees no key gives 0.
 */
import type { Attrs } from '../graph/node.ts'
import { sameShape, typeError, valueType, type DType, type ValueType } from '../graph/types.ts'
import { get } from '../ops/get.ts'
import { iota, Tensor, where, zerosLike } from '../trace/tensor.ts'
import { invoke, type Composite, type CompositeSample } from './composite.ts'

export interface AttentionOptions {
  readonly causal?: boolean
  /** Each query sees this many keys up to its own position; 0: all. */
  readonly window?: number
  /** Default 1 / sqrt(D). */
  readonly scale?: number
  /** Added to the scaled scores; any shape that broadcasts to [B, H, T, S]. Has a gradient. */
  readonly bias?: Tensor
  /** Where false, a query does not see a key, whatever the rules above say; broadcasts to [B, H, T, S]. */
  readonly mask?: Tensor
}

/** How many (query, key) pairs of one head are not masked. */
export function visiblePairs(queries: number, keys: number, causal: boolean, window: number): number {
  let pairs = 0
  for (let i = 0; i < queries; i++) {
    const position = i + keys - queries
    const end = causal || window > 0 ? position + 1 : keys
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
  /** There is a bias. */
  readonly bias?: unknown
  /** Backward: the log-sum-exp has a gradient, too. */
  readonly dLse?: unknown
}

/**
 * Operations of the forward pass. A visible pair: 2 dim for the score, compare, subtract, exp and sum for the softmax,
 * 2 dim for its value, one more for a bias. A query: dim to scale it, reciprocal, logarithm and addition for its sum, dim
 * to normalise. A mask that is data hides nothing here: what it holds is not known.
 */
export function attentionFlops(size: AttentionSize): number {
  const { batch, queries, keys, heads, dim, causal, window, bias } = size
  const pairs = visiblePairs(queries, keys, causal, window)
  return batch * heads * (pairs * (4 * dim + 4 + (bias ? 1 : 0)) + queries * (2 * dim + 3))
}

/**
 * Operations of the backward pass. A visible pair: five products of 2 dim (score, dP, dV, dK, dQ), subtract and exp for
 * P, subtract and multiply for dS, one more for a bias. A query: dim to scale it, 2 dim for delta = dO . o, one more for
 * the gradient of its log-sum-exp, dim to scale dQ.
 */
export function attentionBackwardFlops(size: AttentionSize): number {
  const { batch, queries, keys, heads, dim, causal, window, bias, dLse } = size
  const pairs = visiblePairs(queries, keys, causal, window)
  return batch * heads * (pairs * (10 * dim + 4 + (bias ? 1 : 0)) + queries * (4 * dim + (dLse ? 1 : 0)))
}

/**
 * Operations of the gradient of a bias. A visible pair: two products of 2 dim (score, dP), the bias, subtract and exp for
 * P, subtract and multiply for dS, add. A query: as backward, without dQ.
 */
export function attentionBiasGradientFlops(size: AttentionSize): number {
  const { batch, queries, keys, heads, dim, causal, window, dLse } = size
  const pairs = visiblePairs(queries, keys, causal, window)
  return batch * heads * (pairs * (4 * dim + 6) + queries * (3 * dim + (dLse ? 1 : 0)))
}

/** So many products of every visible pair. */
function productFlops({ batch, queries, keys, heads, dim, causal, window }: AttentionSize, products: number) {
  return batch * heads * visiblePairs(queries, keys, causal, window) * products * 2 * dim
}

function sizeOfCall([q, k]: readonly ValueType[], options: Attrs): AttentionSize {
  const [batch, queries, heads, dim] = q!.shape as [number, number, number, number]
  const [bias, dLse] = [options['bias'], options['dLse']]
  const window = options['window'] as number
  return {
    batch,
    queries,
    keys: k!.shape[1]!,
    heads,
    dim,
    causal: options['causal'] === true,
    window,
    bias,
    dLse,
  }
}

/** The optional operands that follow the others, by the options that announce them. */
function optional(
  tensors: readonly Tensor[],
  options: Attrs,
  names: readonly string[],
): Record<string, Tensor | undefined> {
  let at = 0
  return Object.fromEntries(names.map((name) => [name, options[name] ? tensors[at++] : undefined]))
}

/** Scaled, biased and masked scores [B, K, G, T, S], and the grouped query. */
function scores(
  q: Tensor,
  k: Tensor,
  { bias, mask }: Record<string, Tensor | undefined>,
  options: Attrs,
): { grouped: Tensor; masked: Tensor } {
  const [batch, queries, heads, dim] = q.shape as [number, number, number, number]
  const [, keys, kvHeads] = k.shape as [number, number, number]
  const grouped = q.reshape([batch, queries, kvHeads, heads / kvHeads, dim], ['b', 't', 'k', 'g', 'd'])
  const raw = grouped.dot(k.named(['b', 's', 'k', 'd']), 'd').mul(options['scale'] as number)
  const axes = ['b', 'k', 'g', 't', 's']
  let ordered = raw.transpose(axes)
  const pairs = (x: Tensor): Tensor =>
    x
      .named([null, null, null, null])
      .broadcastTo({ shape: [batch, heads, queries, keys], axes: [null, null, null, null] })
      .reshape(ordered.shape, axes)
  if (bias) ordered = ordered.add(pairs(bias))
  const shape = { shape: [queries, keys], axes: ['t', 's'] }
  const position = iota(queries, 't')
    .add(keys - queries)
    .broadcastTo(shape)
  const source = iota(keys, 's').broadcastTo(shape)
  const window = options['window'] as number
  let visible: Tensor | undefined
  if (options['causal'] === true || window > 0) visible = source.less(position.add(1))
  if (visible && window > 0) visible = visible.mul(position.sub(window).less(source))
  const ruled = visible ? where(visible, ordered, -Infinity) : ordered
  return { grouped, masked: mask ? where(pairs(mask), ruled, -Infinity) : ruled }
}

/** P from the saved log-sum-exp, and dS, both [B, K, G, T, S]; and what the gradients are made of. */
function weights(
  inputs: readonly Tensor[],
  options: Attrs,
): Record<'probabilities' | 'dScores' | 'grouped' | 'dOut', Tensor> {
  const [q, k, v, out, logSum, g] = inputs as [Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]
  const extra = optional(inputs.slice(6), options, ['bias', 'mask', 'dLse'])
  const [batch, queries, heads, dim] = q.shape as [number, number, number, number]
  const kvHeads = k.shape[2]!
  const group = heads / kvHeads
  const split = (x: Tensor): Tensor =>
    x.reshape([batch, queries, kvHeads, group, dim], ['b', 't', 'k', 'g', 'd'])
  const rows = { shape: [batch, kvHeads, group, queries, 1], axes: ['b', 'k', 'g', 't', null] }
  const { grouped, masked } = scores(q, k, extra, options)
  const exponentials = masked.sub(logSum.reshape(rows.shape, rows.axes)).exp()
  // A query that sees nothing has a log-sum-exp of -infinity.
  const probabilities = extra['mask'] ? where(masked.greater(-Infinity), exponentials, 0) : exponentials
  const dOut = split(g)
  const product = dOut.mul(split(out)).sum('d').transpose(['b', 'k', 'g', 't']).reshape(rows.shape, rows.axes)
  const dLse = extra['dLse']
  const delta = dLse ? product.sub(dLse.reshape(rows.shape, rows.axes)) : product
  const dWeights = dOut.dot(v.named(['b', 's', 'k', 'd']), 'd').transpose(['b', 'k', 'g', 't', 's'])
  return { probabilities, dScores: dWeights.sub(delta).mul(probabilities), grouped, dOut }
}

export const attentionComposite: Composite = {
  name: 'attention',
  doc: 'softmax(scale q kᵀ + bias + mask) v with grouped-query heads, and its log-sum-exp',
  body([q, k, v, ...rest], options) {
    const extra = optional(rest, options, ['bias', 'mask'])
    const { masked } = scores(q!, k!, extra, options)
    const most = masked.maxOver('s', true)
    // Finite, so that hidden scores have a distance to it where there are no others.
    const top = extra['mask'] ? most.max(-1e38) : most
    const weights = masked.sub(top).exp()
    const total = weights.sum('s', true)
    const divisor = extra['mask'] ? where(total.greater(0), total, 1) : total
    const mixed = weights.div(divisor).dot(v!.named(['b', 's', 'k', 'd']), 's')
    const [batch, queries, heads] = q!.shape as [number, number, number]
    const logSum = total
      .log()
      .add(top)
      .reshape([batch, heads, queries], [q!.axes[0]!, q!.axes[2]!, q!.axes[1]!])
    return [mixed.transpose(['b', 't', 'k', 'g', 'd']).reshape(q!.shape, q!.axes), logSum]
  },
  flops: (inputs, options) => attentionFlops(sizeOfCall(inputs, options)),
  // Scores and the mixing of values.
  products: (inputs, options) => productFlops(sizeOfCall(inputs, options), 2),
  gradient(node, [g, dLse]) {
    const options = node.attrs['options'] as Attrs
    if (!g && !dLse) return node.inputs.map(() => null)
    const [q, k, v, ...rest] = node.inputs.map((x) => new Tensor(x)) as [Tensor, Tensor, Tensor, ...Tensor[]]
    const [out, logSum] = [0, 1].map((i) => new Tensor(get(node, i))) as [Tensor, Tensor]
    const inputs = [q, k, v, out, logSum, g ? new Tensor(g) : zerosLike(out), ...rest]
    if (dLse) inputs.push(new Tensor(dLse))
    const all = { ...options, ...(dLse ? { dLse: true } : {}) }
    const gradients = invoke(attentionBackwardComposite, inputs, all).map((x) => x.node)
    // A call of its own, so that it is dropped where nobody asks for it.
    const dBias = options['bias'] ? [invoke(attentionBiasGradientComposite, inputs, all)[0]!.node] : []
    return [...gradients, ...dBias, ...(options['mask'] ? [null] : [])]
  },
  samples: () => [
    { inputs: qkv([2, 5, 2, 4], [2, 5, 2, 4]), options: { causal: true, window: 0, scale: 0.5 } },
    { inputs: qkv([1, 6, 4, 4], [1, 6, 2, 4]), options: { causal: true, window: 3, scale: 0.5 } },
    { inputs: qkv([2, 3, 2, 4], [2, 7, 1, 4]), options: { causal: true, window: 0, scale: 0.5 } },
    { inputs: qkv([1, 4, 2, 8], [1, 6, 2, 8]), options: { causal: false, window: 0, scale: 0.35 } },
    {
      inputs: [...qkv([2, 5, 4, 4], [2, 5, 2, 4]), f64(1, 4, 5, 5)],
      options: { causal: true, window: 0, scale: 0.5, bias: true },
    },
    {
      inputs: [...qkv([2, 3, 2, 4], [2, 9, 2, 4]), valueType('bool', [2, 1, 3, 9])],
      options: { causal: false, window: 0, scale: 0.5, mask: true },
    },
    {
      inputs: [...qkv([2, 6, 2, 4], [2, 12, 2, 4]), f64(2, 1, 1, 12), valueType('bool', [1, 1, 6, 12])],
      options: { causal: true, window: 7, scale: 0.5, bias: true, mask: true },
    },
  ],
}

export const attentionBackwardComposite: Composite = {
  name: 'attentionBackward',
  doc: 'gradients of attention for q, k and v from its saved results',
  body(inputs, options) {
    const [q, k, v] = inputs as [Tensor, Tensor, Tensor]
    const { probabilities, dScores, grouped, dOut } = weights(inputs, options)
    const scaled = dScores.mul(options['scale'] as number)
    const dq = scaled.dot(k.named(['b', 's', 'k', 'd']), 's').transpose(['b', 't', 'k', 'g', 'd'])
    const dk = scaled.dot(grouped, ['g', 't']).transpose(['b', 's', 'k', 'd'])
    const dv = probabilities.dot(dOut, ['g', 't']).transpose(['b', 's', 'k', 'd'])
    return [dq.reshape(q.shape, q.axes), dk.named(k.axes), dv.named(v.axes)]
  },
  flops: (inputs, options) => attentionBackwardFlops(sizeOfCall(inputs, options)),
  // dP, dV, dK and dQ; the scores were known.
  products: (inputs, options) => productFlops(sizeOfCall(inputs, options), 4),
  samples: () => [
    { ...saved([2, 5, 2, 4], [2, 5, 1, 4]), options: { causal: true, window: 0, scale: 0.5 } },
    {
      ...saved([1, 5, 2, 4], [1, 7, 2, 4], f64(1, 1, 5, 7), valueType('bool', [1, 1, 5, 7]), f64(1, 2, 5)),
      options: { causal: true, window: 0, scale: 0.5, bias: true, mask: true, dLse: true },
    },
  ],
}

export const attentionBiasGradientComposite: Composite = {
  name: 'attentionBiasGradient',
  doc: 'gradient of attention for its bias from its saved results',
  body(inputs, options) {
    const [q, k] = inputs as [Tensor, Tensor]
    const bias = inputs[6]!
    const [batch, queries, heads] = q.shape as [number, number, number]
    const full = weights(inputs, options).dScores.reshape(
      [batch, heads, queries, k.shape[1]!],
      [null, null, null, null],
    )
    const shared = full.shape.flatMap((extent, axis) => (bias.shape[axis] === extent ? [] : [axis]))
    return [(shared.length > 0 ? full.sum(shared, true) : full).named(bias.axes)]
  },
  flops: (inputs, options) => attentionBiasGradientFlops(sizeOfCall(inputs, options)),
  // Both of its products are done again.
  products: () => 0,
  samples: () => [
    {
      ...saved([2, 5, 4, 4], [2, 5, 2, 4], f64(1, 4, 5, 5)),
      options: { causal: true, window: 0, scale: 0.5, bias: true },
    },
    {
      ...saved([2, 3, 2, 4], [2, 7, 2, 4], f64(2, 1, 1, 7), valueType('bool', [1, 1, 3, 7]), f64(2, 2, 3)),
      options: { causal: false, window: 3, scale: 0.5, bias: true, mask: true, dLse: true },
    },
  ],
}

/** Inputs of a backward sample: a log-sum-exp in the range it may have, and anything else. */
function saved(q: number[], k: number[], ...rest: readonly ValueType[]): CompositeSample {
  const [batch, queries, heads] = q as [number, number, number]
  const inputs = [...qkv(q, k), f64(...q), f64(batch, heads, queries), f64(...q), ...rest]
  return { inputs, ranges: inputs.map((_, i) => (i === 4 ? [2, 3] : [-1, 1])) }
}

const f64 = (...shape: number[]): ValueType => valueType('f64', shape)
const qkv = (q: number[], k: number[]): ValueType[] => [f64(...q), f64(...k), f64(...k)]

/** q: [B, T, H, D]; k, v: [B, S, K, D]. Result: [B, T, H, D]. */
export const attention = (q: Tensor, k: Tensor, v: Tensor, options: AttentionOptions = {}): Tensor =>
  attentionWithLse(q, k, v, options).out

/**
 * Attention and the logarithm of the sum of exponentials of each query's scores, [B, H, T]: what is needed to merge the
 * results for parts of the keys. Both have gradients.
 */
export function attentionWithLse(
  q: Tensor,
  k: Tensor,
  v: Tensor,
  options: AttentionOptions = {},
): { readonly out: Tensor; readonly lse: Tensor } {
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
  const full = [batch!, heads!, q.shape[1]!, keys!]
  const inputs = [q, k, v]
  if (options.bias) inputs.push(perPair('bias', options.bias, q.dtype, full))
  if (options.mask) inputs.push(perPair('mask', options.mask, 'bool', full))
  const given = { ...(options.bias ? { bias: true } : {}), ...(options.mask ? { mask: true } : {}) }
  const [out, lse] = invoke(attentionComposite, inputs, { causal, window, scale, ...given })
  return { out: out!, lse: lse! }
}

/** A bias or mask with all four axes: those it lacks have extent 1. */
function perPair(name: string, x: Tensor, dtype: DType, full: readonly number[]): Tensor {
  const shape = [...full.slice(0, Math.max(0, 4 - x.rank)).map(() => 1), ...x.shape]
  const fits = shape.length === 4 && shape.every((extent, axis) => extent === 1 || extent === full[axis])
  if (!fits || x.dtype !== dtype) {
    throw typeError(
      'attention',
      `${name} ${x}`,
      `${dtype} that broadcasts to [B, H, T, S] = [${full.join(', ')}]`,
      'check its shape and type',
    )
  }
  return x.reshape(shape, [null, null, null, null])
}
