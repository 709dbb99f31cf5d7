/** For tests and benchmarks: an engine for a model with drawn weights, which knows nothing but always says the same. */
import { leaves, philoxUniform, type Program, type ValueType } from '../compiler/index.ts'
import { bytesTokenizer } from '../data/tokenizers/bytes.ts'
import { dense } from '../models/language/config.ts'
import { decodable } from '../models/language/decode.ts'
import { parameterTypes, type ModelConfig } from '../models/language/model.ts'
import { plainTemplate, type ChatTemplate } from './chat-template.ts'
import { Engine, type EngineOptions } from './engine.ts'

export const smallModel: ModelConfig = {
  size: 'nano',
  block: 'modern',
  layers: 2,
  width: 64,
  heads: 4,
  kvHeads: 2,
  context: 1024,
  dropout: 0,
  vocab: 256,
  ...dense,
}

/** Writes weights drawn from a seed. */
export const drawWeights =
  (model: ModelConfig, seed: number) =>
  async (program: Program): Promise<void> => {
    leaves<ValueType>(parameterTypes(model)).forEach(([path, type], stream) => {
      const values = program.view(`params.${path}`)
      const isNorm = type.shape.length < 2 || path.includes('norm')
      const scale = path === 'head' ? 0.6 : 0.3
      for (let i = 0; i < values.length; i++)
        values[i] = isNorm
          ? 1
          : (philoxUniform({ seed, step: i >> 16, stream, salt: 0 }, i & 0xffff) - 0.5) * scale
    })
  }

/** An engine with bytes as tokens. */
export async function randomEngine(
  model: ModelConfig = smallModel,
  options: EngineOptions & { readonly template?: ChatTemplate } = {},
): Promise<Engine> {
  const { template = plainTemplate, ...rest } = options
  const engine = await Engine.open(
    {
      name: 'random',
      model: decodable(model),
      tokenizer: bytesTokenizer(),
      template,
      stopIds: new Set(),
      created: 1_700_000_000,
    },
    { threads: 2, slots: 8, ...rest },
  )
  await engine.load('seed-1', drawWeights(model, 1))
  return engine
}
