/**
 * The language model a token at a time: the same layers as the forward pass (model.ts), but keys and values go into a
 * cache and attention reads them from there. Tokens are rows with their pages and a position each, so one function serves a
 * chunk of a prompt and a step of many sequences; see models/decoder.ts for how it is run.
 *
 * Layers are unrolled instead of looped over: each has a cache of its own, which is state and written in place.
 */
import {
  cachedAttention,
  mapTree,
  valueType,
  writeCache,
  type Tensor,
  type ValueType,
} from '../../compiler/index.ts'
import type { CachedRows, Decodable } from '../decoder.ts'
import { embed, layer, parameterTypes, readout, tablesAt } from './model.ts'
import type { LayerWeights, ModelConfig, ModelWeights } from './model.ts'

// Type aliases, not interfaces: only aliases fit the index signature of a tree.
type LayerCache<T> = { readonly k: T; readonly v: T }
type Cache<T> = Readonly<Record<string, LayerCache<T>>>

/** Keys and values of every layer: [page, heads, time, dim], so that what one head reads of a page is contiguous. */
function cacheTypes(
  { layers, width, heads, kvHeads }: ModelConfig,
  pages: number,
  size: number,
): Cache<ValueType> {
  const type = valueType('f32', [pages, kvHeads, size, width / heads], ['page', 'heads', 'time', 'dim'])
  return Object.fromEntries(Array.from({ length: layers }, (_, i) => [`${i}`, { k: type, v: type }]))
}

/** Tokens through all layers, into the cache and out: [batch 1, time rows, embed], before the last norm. */
function decode(
  weights: ModelWeights,
  cache: Cache<Tensor>,
  { token, pages, position }: CachedRows,
  config: ModelConfig,
): { readonly last: Tensor; readonly cache: Cache<Tensor> } {
  const rows = token.size(0)
  const asTime = (x: Tensor): Tensor => x.reshape([1, ...x.shape], ['batch', 'time', ...x.axes.slice(1)])
  const tables = tablesAt(position.named(['time']), config)
  let x = embed(weights, asTime(token), weights.positions && asTime(weights.positions.take(position)), config)
  const written: Record<string, LayerCache<Tensor>> = {}
  for (const [index, { k: oldK, v: oldV }] of Object.entries(cache)) {
    const attend = (q: Tensor, k: Tensor, v: Tensor): Tensor => {
      const flat = (t: Tensor): Tensor => t.reshape(t.shape.slice(1), t.axes.slice(1))
      const places = { pages, position }
      const next = { k: writeCache(oldK, flat(k), places), v: writeCache(oldV, flat(v), places) }
      written[index] = next
      return asTime(cachedAttention(flat(q), next.k, next.v, places))
    }
    const pass = { tables, attend, drop: (y: Tensor) => y, limited: false }
    x = layer(x, layerAt(weights, Number(index)), config, pass).x
  }
  return { last: x.reshape([rows, x.size(-1)], ['time', 'embed']), cache: written }
}

const layerAt = (weights: ModelWeights, index: number): LayerWeights =>
  mapTree<Tensor, Tensor>(weights.layers, (w) =>
    w.slice('layer', index, 1).reshape(w.shape.slice(1), w.axes.slice(1)),
  ) as LayerWeights

/** What a Decoder needs to know of a language model. */
export const decodable = (config: ModelConfig): Decodable => ({
  context: config.context,
  vocab: config.vocab,
  weights: parameterTypes(config),
  cache: (pages, size) => cacheTypes(config, pages, size),
  decode: (weights, cache, rows) => decode(weights as ModelWeights, cache as Cache<Tensor>, rows, config),
  readout: (weights, last) => readout(weights as ModelWeights, last, config),
})
