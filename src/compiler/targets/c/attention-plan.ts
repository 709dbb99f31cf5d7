/**
 * What the attention kernels decide when a program is emitted: which keys a query sees, how many operations that is,
 * how rows and keys are cut into register tiles, and how large the scratch of a thread is. Nothing here depends on the
 * number of threads, so that results do not.
 */
import { floatBytes, lanesOf, roundUp, type Float, type VectorTarget } from './prelude.ts'
import { maxRows, maxVectors, type Tile } from './tile.ts'

/** Strides in elements; the last dimension is contiguous. */
export interface Strides {
  readonly batch: number
  readonly time: number
  readonly head: number
}

/** softmax(scale q kᵀ + mask) v for each batch and query head; query i stands at position i + keys - queries. */
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
}

/** Keys [first, end) that query i sees. */
export function visibleKeys(spec: AttentionSpec, i: number): readonly [number, number] {
  const { queries, keys, causal, window } = spec
  const at = i + keys - queries
  const end = causal || window > 0 ? Math.max(0, at + 1) : keys
  return [window > 0 ? Math.min(end, Math.max(0, at - window + 1)) : 0, end]
}

export interface AttentionPlan {
  /** Tile of scores (queries x keys) and its half for the last keys. */
  readonly score: Tile
  readonly halfScore: Tile
  /** Tile of everything that is as wide as a head. */
  readonly wide: Tile
  /** Keys of a panel of transposed keys. */
  readonly panel: number
  /** Head size and number of keys with padding, in elements. */
  readonly paddedDim: number
  readonly paddedKeys: number
  /** Queries handled at a time: their scores against 256 keys fit the first-level cache. */
  readonly blockRows: number
}

export function planAttention(spec: AttentionSpec, target: VectorTarget): AttentionPlan {
  const { dtype, dim, keys } = spec
  const lanes = lanesOf(dtype, target)
  const rowsFor = (vectors: number): number =>
    2 ** Math.floor(Math.log2(Math.min(8, maxRows(vectors, target))))
  const tile = (vectors: number): Tile => ({ dtype, vectors, rows: rowsFor(vectors), prefetch: false })
  // Panels are narrow, because half a panel is computed in vain at the diagonal; and whole tiles of keys.
  const scoreVectors = Math.max(2, 8 / lanes)
  const dimVectors = Math.ceil(dim / lanes)
  const wideVectors = Math.ceil(dimVectors / Math.ceil(dimVectors / maxVectors))
  const panel = scoreVectors * lanes
  return {
    score: tile(scoreVectors),
    halfScore: { ...tile(scoreVectors), vectors: scoreVectors / 2 },
    wide: tile(wideVectors),
    panel,
    paddedDim: roundUp(dim, wideVectors * lanes),
    paddedKeys: roundUp(keys, panel),
    blockRows: 32,
  }
}

/** Columns that the scores of any block of queries need, counted from the panel of its first visible key. */
export function scoreColumns(spec: AttentionSpec, plan: AttentionPlan): number {
  const { blockRows: rows } = plan
  let most = plan.panel
  for (let i = 0; i < spec.queries; i += rows) {
    const [first] = visibleKeys(spec, i)
    const [, end] = visibleKeys(spec, Math.min(i + rows, spec.queries) - 1)
    most = Math.max(most, roundUp(end, plan.panel) - Math.floor(first / plan.panel) * plan.panel)
  }
  return most
}

/** Scratch of one thread, in elements: the order is that of the pointers in the kernels. */
export function forwardScratch(spec: AttentionSpec, plan: AttentionPlan): number {
  const { paddedKeys, paddedDim, blockRows: rows } = plan
  return paddedKeys * (spec.dim + paddedDim) + rows * (2 * paddedDim + scoreColumns(spec, plan))
}

export function backwardScratch(spec: AttentionSpec, plan: AttentionPlan): number {
  const { paddedKeys, paddedDim, blockRows: rows } = plan
  return paddedKeys * (2 * spec.dim + 3 * paddedDim) + rows * (3 * paddedDim + 2 * scoreColumns(spec, plan))
}

export const scratchBytes = (elements: number, dtype: Float): number =>
  roundUp(elements * floatBytes[dtype], 64)
