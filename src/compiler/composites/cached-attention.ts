/**
 * Attention of single tokens over a key/value cache: what generation runs. The cache is cut into pages of S positions,
 * and every row is a token of its own, with the list of pages its sequence lies in and its position in the sequence; it
 * sees keys 0 … position of those pages, one after the other. One call therefore serves a chunk of one prompt (rows with
 * the same pages), a step of many sequences of different lengths, or both at once, and sequences that begin alike can
 * share pages. Pages and positions are data, so nothing is recompiled while a text grows. A cache with a slot for each
 * sequence is the case of one long page each.
 *
 * Shapes: q [N, H, D]; k, v [all pages, K, S, D] with H a multiple of K; pages [N, M]; position [N]. A position outside
 * [0, M S) marks padding: the row sees nothing and its result is zero.
 */
import { sameShape, typeError, valueType } from '../graph/types.ts'
import { iota, Tensor, where } from '../trace/tensor.ts'
import { invoke, type Composite, type CompositeSample } from './composite.ts'

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
  body([q, k, v, pages, position], options) {
    const [rows, heads, dim] = q!.shape as [number, number, number]
    const [, kvHeads, size] = k!.shape as [number, number, number]
    const numPages = pages!.shape[1]!
    const keys = numPages * size
    // [N, M, K, S, D] of the pages in order, to the keys of each row.
    const held = (cache: Tensor): Tensor =>
      cache.take(pages!).transpose([0, 2, 1, 3, 4]).reshape([rows, kvHeads, keys, dim], ['n', 'k', 's', 'd'])
    const grouped = q!.reshape([rows, kvHeads, heads / kvHeads, dim], ['n', 'k', 'g', 'd'])
    const scores = grouped.dot(held(k!), 'd').mul(options['scale'] as number)
    const end = where(position!.less(keys), position!.add(1), 0).reshape([rows, 1, 1, 1])
    const shape = { shape: scores.shape, axes: scores.axes }
    const visible = iota(keys).reshape([1, 1, 1, keys]).broadcastTo(shape).less(end.broadcastTo(shape))
    const masked = where(visible, scores, -1e30)
    const weights = where(visible, masked.sub(masked.maxOver('s', true)).exp(), 0)
    // The largest weight is 1: a total below that means that nothing is visible.
    const total = weights.sum('s', true).max(0.5)
    return [weights.dot(held(v!), 's').div(total).reshape(q!.shape, q!.axes)]
  },
  flops([q, k, , pages]) {
    const [rows, heads, dim] = q!.shape as [number, number, number]
    return cachedAttentionFlops(rows * pages!.shape[1]! * k!.shape[2]!, rows, { heads, dim })
  },
  products([q, k, , pages]) {
    const [rows, heads, dim] = q!.shape as [number, number, number]
    return heads * rows * pages!.shape[1]! * k!.shape[2]! * 4 * dim
  },
  samples: () => [
    sample({ rows: 3, heads: 2, kvHeads: 2, held: 2, pages: 1, size: 5, dim: 4 }),
    sample({ rows: 4, heads: 6, kvHeads: 2, held: 3, pages: 1, size: 37, dim: 24 }),
    sample({ rows: 1, heads: 3, kvHeads: 3, held: 1, pages: 1, size: 70, dim: 67 }),
    sample({ rows: 3, heads: 4, kvHeads: 2, held: 7, pages: 3, size: 8, dim: 24 }),
    sample({ rows: 2, heads: 2, kvHeads: 1, held: 4, pages: 5, size: 3, dim: 9 }),
  ],
}

interface Sizes {
  readonly rows: number
  readonly heads: number
  readonly kvHeads: number
  /** Pages of the cache. */
  readonly held: number
  /** Pages of a sequence. */
  readonly pages: number
  readonly size: number
  readonly dim: number
}

/** Rows at the last position, where a kernel does all that is declared. */
function sample({ rows, heads, kvHeads, held, pages, size, dim }: Sizes): CompositeSample {
  const cache = valueType('f64', [held, kvHeads, size, dim])
  const last = pages * size - 1
  return {
    inputs: [
      valueType('f64', [rows, heads, dim]),
      cache,
      cache,
      valueType('i32', [rows, pages]),
      valueType('i32', [rows]),
    ],
    options: { scale: 1 / Math.sqrt(dim) },
    ranges: [
      [-1, 1],
      [-1, 1],
      [-1, 1],
      [0, held],
      [last, last + 1],
    ],
  }
}

/** Which places of a cache tokens belong to. */
export interface CachePlaces {
  /** Pages that hold the sequence of each token, in order, i32 [N, M]; those past its end are not looked at. */
  readonly pages: Tensor
  /** Position of each token in its sequence, i32 [N]; outside the pages: padding. */
  readonly position: Tensor
}

/** q: [N, H, D]; k, v: [all pages, K, S, D]. Result: [N, H, D]. */
export function cachedAttention(
  q: Tensor,
  k: Tensor,
  v: Tensor,
  { pages, position }: CachePlaces,
  scale: number = 1 / Math.sqrt(q.size(-1)),
): Tensor {
  const fits =
    q.rank === 3 &&
    k.rank === 4 &&
    sameShape(k.shape, v.shape) &&
    k.size(-1) === q.size(-1) &&
    q.size(1) % k.size(1) === 0
  const placed =
    pages.dtype === 'i32' &&
    position.dtype === 'i32' &&
    pages.rank === 2 &&
    pages.shape[0] === q.shape[0] &&
    sameShape(position.shape, [q.shape[0]!])
  if (!fits || !placed) {
    throw typeError(
      'cachedAttention',
      `q ${q}, k ${k}, v ${v}, pages ${pages}, position ${position}`,
      'q [N, H, D], k and v [all pages, K, S, D] with H a multiple of K, pages i32 [N, M], position i32 [N]',
      'check heads, head size and the number of rows',
    )
  }
  return invoke(cachedAttentionComposite, [q, k, v, pages, position], { scale })[0]!
}

/**
 * A cache [all pages, K, S, D] with rows [N, K, D] written at their places; those outside are left out. In place when the
 * cache is state.
 */
export function writeCache(cache: Tensor, rows: Tensor, { pages, position }: CachePlaces): Tensor {
  const [held, heads, size, dim] = cache.shape as [number, number, number, number]
  const [count, numPages] = pages.shape as [number, number]
  const shape = { shape: [count, heads], axes: [null, null] }
  const column = (x: Tensor): Tensor => x.reshape([count, 1]).broadcastTo(shape)
  const of = iota(count)
    .mul(numPages)
    .add(position.named([null]).div(size))
  const page = pages.reshape([count * numPages]).take(of)
  const head = column(page.mul(heads)).add(iota(heads).reshape([1, heads]).broadcastTo(shape))
  const inside = column(position)
    .add(1)
    .greater(0)
    .mul(column(position).less(numPages * size))
  const index = where(inside, head.mul(size).add(column(position.mod(size))), -1)
  return cache
    .reshape([held * heads * size, dim])
    .put(index, rows.reshape([count, heads, dim]))
    .reshape(cache.shape, cache.axes)
}
