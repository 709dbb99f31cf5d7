/** The composites, in reading order. A new one is one file and one line here. */
import { adafactorComposite } from './adafactor.ts'
import { adamwComposite } from './adamw.ts'
import { adamw8bitComposite } from './adamw8bit.ts'
import {
  attentionBackwardComposite,
  attentionBiasGradientComposite,
  attentionComposite,
} from './attention.ts'
import { cachedAttentionComposite } from './cached-attention.ts'
import type { Composite } from './composite.ts'
import { crossEntropyComposite } from './cross-entropy.ts'
import { dotFp8Composite } from './dot-fp8.ts'
import { geluComposite } from './gelu.ts'
import { muonComposite } from './muon.ts'
import { layerNormComposite, rmsNormComposite } from './norm.ts'
import { averagePoolComposite, maxPoolComposite, resizeNearestComposite } from './pool.ts'
import { quantiseComposite } from './quantise.ts'
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
  quantiseComposite,
  dotFp8Composite,
  adamwComposite,
  adamw8bitComposite,
  adafactorComposite,
  muonComposite,
]

export const compositeByName: ReadonlyMap<string, Composite> = new Map(
  composites.map((composite) => [composite.name, composite]),
)
