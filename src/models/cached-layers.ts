/**
 * A stack of layers a token at a time: what models share when keys and values go into a cache and attention reads them
 * from there. Tokens are rows with their pages and a position each, so one function serves a chunk of a prompt and a step
 * of many sequences; see decoder.ts and paged-decoder.ts for how it is run.
 *
 * Layers are unrolled instead of looped over: each has a cache of its own, which is state and written in place.
 */
import {
  cachedAttention,
  mapTree,
  valueType,
  writeCache,
  type Tensor,
  type Tree,
  type ValueType,
} from '../compiler/index.ts'
import type { CachedRows } from './decoder.ts'

// Type aliases, not interfaces: only aliases fit the index signature of a tree.
type LayerCache<T> = { readonly k: T; readonly v: T }
export type Cache<T> = Readonly<Record<string, LayerCache<T>>>

/** q [batch, time, heads, dim], k and v [batch, time, kvHeads, dim] to [batch, time, heads, dim]. */
export type Attend = (q: Tensor, k: Tensor, v: Tensor) => Tensor

/** Keys and values of every layer: [page, heads, time, dim], so that what one head reads of a page is contiguous. */
export function cacheTypes(
  { layers, kvHeads, dim }: { readonly layers: number; readonly kvHeads: number; readonly dim: number },
  pages: number,
  size: number,
): Cache<ValueType> {
  const type = valueType('f32', [pages, kvHeads, size, dim], ['page', 'heads', 'time', 'dim'])
  return Object.fromEntries(Array.from({ length: layers }, (_, i) => [`${i}`, { k: type, v: type }]))
}

/** [rows, …] as a batch of one window: [batch 1, time rows, …]. */
export const asTime = (x: Tensor): Tensor => x.reshape([1, ...x.shape], ['batch', 'time', ...x.axes.slice(1)])

/** Embedded rows [batch 1, time rows, embed] through all layers, into the cache and out: [time rows, embed]. */
export function throughLayers(
  embedded: Tensor,
  cache: Cache<Tensor>,
  { pages, position }: CachedRows,
  layer: (x: Tensor, index: number, attend: Attend) => Tensor,
): { readonly last: Tensor; readonly cache: Cache<Tensor> } {
  const flat = (t: Tensor): Tensor => t.reshape(t.shape.slice(1), t.axes.slice(1))
  const places = { pages, position }
  const written: Record<string, LayerCache<Tensor>> = {}
  let x = embedded
  for (const [index, { k: oldK, v: oldV }] of Object.entries(cache)) {
    const attend: Attend = (q, k, v) => {
      const next = { k: writeCache(oldK, flat(k), places), v: writeCache(oldV, flat(v), places) }
      written[index] = next
      return asTime(cachedAttention(flat(q), next.k, next.v, places))
    }
    x = layer(x, Number(index), attend)
  }
  return { last: x.reshape([position.size(0), x.size(-1)], ['time', 'embed']), cache: written }
}

/** The weights of one layer out of a tree of stacked ones. */
export const layerAt = <Layer extends Tree<Tensor>>(stacked: Layer, index: number): Layer =>
  mapTree<Tensor, Tensor>(stacked, (w) =>
    w.slice(0, index, 1).reshape(w.shape.slice(1), w.axes.slice(1)),
  ) as Layer
