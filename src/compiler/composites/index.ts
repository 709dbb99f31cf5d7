/** The composites, in reading order. A new one is one file and one line here. */
import { adamwComposite } from './adamw.ts'
import {
  attentionBackwardComposite,
  attentionBiasGradientComposite,
  attentionComposite,
} from './attention.ts'
import { cachedAttentionComposite } from './cached-attention.ts'
import type { Composite } from './composite.ts'
import { crossEntropyComposite } from './cross-entropy.ts'
import { geluComposite } from './gelu.ts'
import { muonComposite } from './muon.ts'
import { layerNormComposite, rmsNormComposite } from './norm.ts'
import { averagePoolComposite, maxPoolComposite, resizeNearestComposite } from './pool.ts'
import { ropeComposite } from './rope.ts'
import { siluComposite } from './silu.ts'

export const composites: readonly Composite[] = [
  layerNormComposite,
  rmsNormComposite,
  geluComposite,
  siluComposite,
  ropeComposite,
  attentionComposite,
  attentionBackwardComposite,
  attentionBiasGradientComposite,
  maxPoolComposite,
  averagePoolComposite,
  resizeNearestComposite,
  cachedAttentionComposite,
  crossEntropyComposite,
  adamwComposite,
  muonComposite,
]

export const compositeByName: ReadonlyMap<string, Composite> = new Map(
  composites.map((composite) => [composite.name, composite]),
)
