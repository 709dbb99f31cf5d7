/** The language model a token at a time: the same layers as the forward pass (model.ts), over a cache (cached-layers.ts). */
import type { Tensor } from '../../compiler/index.ts'
import { asTime, cacheTypes, layerAt, throughLayers, type Cache } from '../cached-layers.ts'
import type { CachedRows, Decodable } from '../decoder.ts'
import { embed, layer, parameterTypes, readout, tablesAt } from './model.ts'
import type { ModelConfig, ModelWeights } from './model.ts'

/** Tokens through all layers, into the cache and out: [rows, embed], before the last norm. */
function decode(
  weights: ModelWeights,
  cache: Cache<Tensor>,
  rows: CachedRows,
  config: ModelConfig,
): { readonly last: Tensor; readonly cache: Cache<Tensor> } {
  const { token, position } = rows
  const tables = tablesAt(position.named(['time']), config)
  const positions = weights.positions && asTime(weights.positions.take(position))
  const embedded = embed(weights, asTime(token), positions, config)
  return throughLayers(embedded, cache, rows, (x, index, attend) => {
    const pass = { tables, attend, drop: (y: Tensor) => y, limited: false }
    return layer(x, layerAt(weights.layers, index), config, pass).x
  })
}

/** What a Decoder needs to know of a language model. */
export const decodable = (config: ModelConfig): Decodable => ({
  context: config.context,
  vocab: config.vocab,
  weights: parameterTypes(config),
  cache: (pages, size) => cacheTypes({ ...config, dim: config.width / config.heads }, pages, size),
  decode: (weights, cache, rows) => decode(weights as ModelWeights, cache as Cache<Tensor>, rows, config),
  readout: (weights, last) => readout(weights as ModelWeights, last, config),
})
