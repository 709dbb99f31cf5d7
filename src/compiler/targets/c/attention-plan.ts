/**
 * What the attention kernels decide when a program is emitted: which keys a query sees, how queries and keys are cut
 * into tiles and blocks, and how large the scratch of a thread is. Nothing here depends on the number of threads, so
 * that results do not.
 */
import { cTypes, floatBytes, lanesOf, roundUp, type Float, type VectorTarget } from './prelude.ts'

/** Strides in elements; the last dimension is contiguous. */
export interface Strides {
  readonly batch: number
  readonly time: number
  readonly head: number
}

/** Strides in elements of an operand [batch, heads, queries, keys]; 0 where it is broadcast. */
export interface PairStrides {
  readonly batch: number
  readonly head: number
  readonly query: number
  readonly key: number
}

/** softmax(scale q kᵀ + bias + mask) v for each batch and query head; query i stands at position i + keys - queries. */
export interface AttentionSpec {
  readonly dtype: Float
  readonly batch: number
  readonly queries: number
  readonly keys: number
  readonly heads: number
  /** Query head h reads key/value head floor(h / (heads / kvHeads)). */
  readonly kvHeads: number
  readonly dim: number
  /** A query sees no key after its own position. */
  readonly causal: boolean
  /** With window w > 0 the query at position p sees keys p - w < j <= p; 0: no window. */
  readonly window: number
  readonly scale: number
  readonly q: Strides
  readonly k: Strides
  readonly v: Strides
  /** Added to the scaled scores. */
  readonly bias?: PairStrides
  /** Bytes: which pairs are visible, besides the rules above. */
  readonly mask?: PairStrides
  /** Backward: the log-sum-exp has a gradient, too. */
  readonly dLse?: boolean
}

/** Keys [first, end) that query i sees, as far as the rules tell. */
export function visibleKeys(spec: AttentionSpec, i: number): readonly [number, number] {
  const { queries, keys, window } = spec
  const at = i + keys - queries
  const end = isBounded(spec) ? Math.max(0, at + 1) : keys
  return [window > 0 ? Math.min(end, Math.max(0, at - window + 1)) : 0, end]
}

/** Whether the keys that a query sees end at its own position. */
export const isBounded = ({ causal, window }: AttentionSpec): boolean => causal || window > 0

export interface AttentionPlan {
  readonly lanes: number
  /** Vectors of queries in a block, one query a lane: scores lie as [key, query]. */
  readonly vectors: number
  /** Queries of a block: all its lanes. */
  readonly width: number
  /** Keys of a tile of scores, and rows of every tile that is as wide as a head. */
  readonly keyRows: number
  /** Rows of a tile of queries; they lie in one vector of scores. */
  readonly queryRows: number
  /** Keys whose scores are held at a time: they and what they meet stay in the first-level cache. */
  readonly keyBlock: number
  /** Head size and number of keys with padding, in elements. */
  readonly paddedDim: number
  readonly paddedKeys: number
  /** Blocks of queries of a head. */
  readonly blocks: number
}

export function planAttention(spec: AttentionSpec, target: VectorTarget): AttentionPlan {
  const lanes = lanesOf(spec.dtype, target)
  const vectors = spec.queries <= lanes ? 1 : 2
  const keyRows = target.registers === 32 ? 8 : 4
  const width = vectors * lanes
  return {
    lanes,
    vectors,
    width,
    keyRows,
    queryRows: Math.min(keyRows, lanes),
    keyBlock: 128,
    paddedDim: roundUp(spec.dim, lanes),
    paddedKeys: roundUp(spec.keys, keyRows),
    blocks: Math.ceil(spec.queries / width),
  }
}

/**
 * From one key to the next where a forward tile of scores reads them, and from one value to the next in a backward one:
 * where they are, or, when the last tile would run over their end, in a padded copy.
 */
export const keyStride = (spec: AttentionSpec, plan: AttentionPlan): number =>
  spec.keys === plan.paddedKeys ? spec.k.time : plan.paddedDim
export const valueStride = (spec: AttentionSpec, plan: AttentionPlan): number =>
  spec.keys === plan.paddedKeys ? spec.v.time : plan.paddedDim

/** Work before each block of queries of a head, in pairs that are computed: threads get equal shares of it. */
export function workBefore(spec: AttentionSpec, plan: AttentionPlan): number[] {
  const before = [0]
  for (let start = 0; start < spec.queries; start += plan.width) {
    const last = Math.min(start + plan.width, spec.queries) - 1
    const keys = visibleKeys(spec, last)[1] - visibleKeys(spec, start)[0]
    before.push(before.at(-1)! + plan.width * (1 + keys))
  }
  return before
}

/** Consecutive arrays in the scratch of one thread, each with its number of elements. */
export interface Layout {
  readonly bytes: number
  /** C text that declares a pointer for each. */
  readonly pointers: string
}

export function layoutOf(dtype: Float, arrays: Readonly<Record<string, number>>): Layout {
  let at = 0
  const declared = Object.entries(arrays).map(([name, elements]) => {
    const text = `*${name} = space + ${at}`
    at += roundUp(elements, 64 / floatBytes[dtype])
    return text
  })
  return { bytes: at * floatBytes[dtype], pointers: `${cTypes[dtype]} ${declared.join(', ')};` }
}
