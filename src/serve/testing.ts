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

/** For `scriptWeights`: positions are all it knows. */
export const scriptModel = (vocab: number): ModelConfig => ({
  ...smallModel,
  block: 'gpt2',
  layers: 1,
  kvHeads: smallModel.heads,
  vocab,
})

/**
 * Weights with which `scriptModel` writes a script after a prompt of so many tokens, whatever it says: no layer adds
 * anything, tokens are directions, and each position points to the token after it.
 */
export const scriptWeights =
  (model: ModelConfig, promptTokens: number, script: readonly number[]) =>
  async (program: Program): Promise<void> => {
    const view = (path: string): ReturnType<Program['view']> => program.view(`params.${path}`)
    for (const [path] of leaves<ValueType>(parameterTypes(model)))
      view(path).fill(path === 'norm' ? 8 : path.includes('norm') ? 1 : 0)
    const { width, vocab } = model
    const [tokens, positions] = [view('tokens'), view('positions')]
    for (let id = 0; id < vocab; id++) {
      const row = Array.from(
        { length: width },
        (_, i) => philoxUniform({ seed: 1, step: id, stream: 0, salt: 0 }, i) - 0.5,
      )
      row.forEach((x, i) => (tokens[id * width + i] = x / Math.hypot(...row)))
    }
    for (const [i, id] of script.entries()) {
      for (let j = 0; j < width; j++)
        positions[(promptTokens - 1 + i) * width + j] = 10 * tokens[id * width + j]!
    }
  }

/** A chat template in the manner of models that speak ChatML and call tools. */
export const chatmlSource = String.raw`{%- set first = messages[0] if messages[0].role == 'system' else none -%}
{%- if first or tools -%}
  {{- '<|im_start|>system\n' + (first.content if first else '') -}}
  {%- if tools -%}
    {{- '\n\nYou can call these:\n<tools>\n' -}}
    {%- for tool in tools -%}{{- (tool | tojson) + '\n' -}}{%- endfor -%}
    {{- '</tools>\nAnswer with JSON inside <tool_call></tool_call>.' -}}
  {%- endif -%}
  {{- '<|im_end|>\n' -}}
{%- endif -%}
{%- for message in messages -%}
  {%- if message.role == 'tool' -%}
    {{- '<|im_start|>user\n<tool_response>\n' + message.content + '\n</tool_response><|im_end|>\n' -}}
  {%- elif message.role != 'system' -%}
    {{- '<|im_start|>' + message.role + '\n' + message.content -}}
    {%- if message.tool_calls -%}
      {%- for call in message.tool_calls -%}
        {{- '\n<tool_call>\n{"name": "' + call.function.name + '", "arguments": ' -}}
        {{- (call.function.arguments | tojson) + '}\n</tool_call>' -}}
      {%- endfor -%}
    {%- endif -%}
    {{- '<|im_end|>\n' -}}
  {%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}{{- '<|im_start|>assistant\n' -}}{%- endif -%}`
