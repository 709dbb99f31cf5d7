/** The two blocks of the project's own language model as models of the study: GPT of 2019, and the speedruns' of 2024. */
import type { LanguageConfig } from '../../../models/language/config.ts'
import { dense } from '../../../models/language/config.ts'
import { parameterSpecs, tokenLosses, type ModelWeights } from '../../../models/language/model.ts'
import type { ParameterSpecs } from './parameters.ts'
import type { TextModelKind } from './text-model.ts'

const ofBlock =
  (block: LanguageConfig['model']['block']): TextModelKind =>
  ({ heads, ...settings }) => {
    const config = { size: 'nano', block, heads, kvHeads: heads, dropout: 0, ...dense, ...settings } as const
    return {
      specs: parameterSpecs(config) as unknown as ParameterSpecs,
      losses: (params, tokens) => tokenLosses(params as unknown as ModelWeights, tokens, config),
    }
  }

/** Pre-norm, learned positions, GELU, tied head. */
export const gpt2019 = ofBlock('gpt2')
/** RMS norm without weights, RoPE, norm of queries and keys, squared ReLU, zero-initialised outputs, untied head. */
export const modern2024 = ofBlock('modern')
