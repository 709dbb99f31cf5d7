/** A public checkpoint a token at a time: what a decoder needs to know of it, and its weights put into a program. */
import type { Program, Tensor } from '../../compiler/index.ts'
import type { Cache } from '../cached-layers.ts'
import { cacheTypes } from '../cached-layers.ts'
import type { Decodable } from '../decoder.ts'
import type { PublicConfig } from './config.ts'
import { architectureOf, loadPublic } from './load.ts'

/** @param context positions of a text; at most the model's own. */
export function publicDecodable(config: PublicConfig, context = config.context): Decodable {
  const { weights, cached, decode, readout } = architectureOf(config)
  return {
    context: Math.min(context, config.context),
    vocab: config.vocab,
    weights,
    cache: (pages, size) => cacheTypes(cached, pages, size),
    decode: (parameters, cache, rows) => decode(parameters, cache as Cache<Tensor>, rows),
    readout: (parameters, last) => readout(parameters, last).logits,
  }
}

/**
 * Reads a folder's weights to where a decoder's program has them.
 * @throws UserError for a folder that is incomplete, damaged or of another kind.
 */
export function writePublicWeights(folder: string, program: Program): void {
  loadPublic(folder, (path) => program.view(`params.${path}`) as Float32Array)
}
