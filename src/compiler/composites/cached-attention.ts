/**
 * Attention of single tokens over a key/value cache: what generation runs. Every row is a token of its own, with the
 * slot of the cache that holds its sequence and its position there; it sees keys 0 … position of that slot. One call
 * therefore serves a chunk of one prompt (rows of one slot), a step of many sequences of different lengths (a row a
 * slot), or both at once. Slots and positions are data, so nothing is recompiled while a text grows.
 *
 * Shapes: q [N, H, D]; k, v [slots, K, S, D] with H a multiple of K; slot, position [N]. A position outside [0, S) marks
 * padding: the row sees nothing and its result is zero.
 */
import type { Attrs } from '../graph/node.ts'
import { sameShape, typeError, valueType, type ValueType } from '../graph/types.ts'
import { iota, Tensor, where } from '../trace/tensor.ts'
import { invoke, type Composite } from './composite.ts'

/**
 * Operations of rows that see `pairs` keys together, each by `heads` query heads. A pair: 2 dim for the score, compare,
 * subtract, exp and sum, 2 dim for its value. A row: dim to scale the query, reciprocal, dim to normalise.
 */
export const cachedAttentionFlops = (
  pairs: number,
  rows: number,
  { heads, dim }: { readonly heads: number; readonly dim: number },
): number => heads * (pairs * (4 * dim + 4) + rows * (2 * dim + 1))

export const cachedAttentionComposite: Composite = {
  name: 'cachedAttention',
  doc: 'attention of tokens [N, H, D] over cached keys and values, each up to its own position in its own slot',
  body([q, k, v, slot, position], options) {
    const [rows, heads, dim] = q!.shape as [number, number, number]
    const [, kvHeads, keys] = k!.shape as [number, number, number]
    const axes = ['n', 'k', 's', 'd']
    const grouped = q!.reshape([rows, kvHeads, heads / kvHeads, dim], ['n', 'k', 'g', 'd'])
    const scores = grouped.dot(k!.take(slot!).named(axes), 'd').mul(options['scale'] as number)
    const end = where(position!.less(keys), position!.add(1), 0).reshape([rows, 1, 1, 1])
    const shape = { shape: scores.shape, axes: scores.axes }
    const visible = iota(keys).reshape([1, 1, 1, keys]).broadcastTo(shape).less(end.broadcastTo(shape))
    const masked = where(visible, scores, -1e30)
    const weights = where(visible, masked.sub(masked.maxOver('s', true)).exp(), 0)
    // The largest weight is 1: a total below that means that nothing is visible.
    const total = weights.sum('s', true).max(0.5)
    return [weights.dot(v!.take(slot!).named(axes), 's').div(total).reshape(q!.shape, q!.axes)]
  },
  flops([q, k], options) {
    void options
    const [rows, heads, dim] = q!.shape as [number, number, number]
    return cachedAttentionFlops(rows * k!.shape[2]!, rows, { heads, dim })
  },
  samples: () => [
    sample({ rows: 3, heads: 2, kvHeads: 2, slots: 2, keys: 5, dim: 4 }, [4, 5]),
    sample({ rows: 4, heads: 6, kvHeads: 2, slots: 3, keys: 37, dim: 24 }, [36, 37]),
    sample({ rows: 1, heads: 3, kvHeads: 3, slots: 1, keys: 70, dim: 67 }, [69, 70]),
  ],
}

interface Sizes {
  readonly rows: number
  readonly heads: number
  readonly kvHeads: number
  readonly slots: number
  readonly keys: number
  readonly dim: number
}

/** Rows at the last position, where a kernel does all that is declared. */
function sample(
  { rows, heads, kvHeads, slots, keys, dim }: Sizes,
  positions: readonly [number, number],
): { inputs: ValueType[]; options: Attrs; ranges: (readonly [number, number])[] } {
  const cache = valueType('f64', [slots, kvHeads, keys, dim])
  const index = valueType('i32', [rows])
  return {
    inputs: [valueType('f64', [rows, heads, dim]), cache, cache, index, index],
    options: { scale: 1 / Math.sqrt(dim) },
    ranges: [[-1, 1], [-1, 1], [-1, 1], [0, slots], positions],
  }
}

/** Which rows of a cache tokens belong to. */
export interface CachePlaces {
  /** Slot of each token, i32 [N]. */
  readonly slot: Tensor
  /** Position of each token in its sequence, i32 [N]; outside the cache: padding. */
  readonly position: Tensor
}

/** q: [N, H, D]; k, v: [slots, K, S, D]. Result: [N, H, D]. */
export function cachedAttention(
  q: Tensor,
  k: Tensor,
  v: Tensor,
  { slot, position }: CachePlaces,
  scale: number = 1 / Math.sqrt(q.size(-1)),
): Tensor {
  const fits =
    q.rank === 3 &&
    k.rank === 4 &&
    sameShape(k.shape, v.shape) &&
    k.size(-1) === q.size(-1) &&
    q.size(1) % k.size(1) === 0
  const placed = [slot, position].every((x) => x.dtype === 'i32' && sameShape(x.shape, [q.shape[0]!]))
  if (!fits || !placed) {
    throw typeError(
      'cachedAttention',
      `q ${q}, k ${k}, v ${v}, slot ${slot}, position ${position}`,
      'q [N, H, D], k and v [slots, K, S, D] with H a multiple of K, slot and position i32 [N]',
      'check heads, head size and the number of rows',
    )
  }
  return invoke(cachedAttentionComposite, [q, k, v, slot, position], { scale })[0]!
}

/**
 * A cache [slots, K, S, D] with rows [N, K, D] written at their places; those outside are left out. In place when the
 * cache is state.
 */
export function writeCache(cache: Tensor, rows: Tensor, { slot, position }: CachePlaces): Tensor {
  const [slots, heads, keys, dim] = cache.shape as [number, number, number, number]
  const count = rows.shape[0]!
  const shape = { shape: [count, heads], axes: [null, null] }
  const column = (x: Tensor): Tensor => x.reshape([count, 1]).broadcastTo(shape)
  const head = column(slot.mul(heads)).add(iota(heads).reshape([1, heads]).broadcastTo(shape))
  const inside = column(position).add(1).greater(0).mul(column(position).less(keys))
  const index = where(inside, head.mul(keys).add(column(position)), -1)
  return cache
    .reshape([slots * heads * keys, dim])
    .put(index, rows.reshape([count, heads, dim]))
    .reshape(cache.shape, cache.axes)
}
