/**
 * Reads a Hugging Face `config.json` into the few numbers a forward pass needs. Two shapes come out: GPT-2, and the
 * Llama shape that SmolLM2, Llama 3 and Qwen2 share. A setting that would change the result and that we do not compute
 * is refused, never ignored. Subtle: releases before 5 of transformers write `rope_theta` and `rope_scaling`, later
 * ones `rope_parameters`; both are read.
 */
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { z } from 'zod'
import { explainRead } from '../../data/files.ts'
import { didYouMean, failure, type UserError } from '../../errors.ts'
import type { RopeScaling } from '../../nn/layers.ts'
import { describeExpected } from '../check.ts'

/** What every language model has. Sizes count elements; `context` is the most positions of one window. */
interface CommonConfig {
  readonly modelType: string
  readonly layers: number
  readonly width: number
  readonly heads: number
  /** Width of the hidden layer of the MLP. */
  readonly inner: number
  readonly vocab: number
  readonly context: number
  /** Added to the variance (or mean square) inside the norms. */
  readonly epsilon: number
  /** The head is the embedding table. */
  readonly tied: boolean
}

export interface Gpt2Config extends CommonConfig {
  readonly family: 'gpt2'
  readonly gelu: 'tanh' | 'erf'
}

export interface LlamaConfig extends CommonConfig {
  readonly family: 'llama'
  readonly kvHeads: number
  readonly headSize: number
  /** Base of the rotary wavelengths. */
  readonly theta: number
  readonly scaling?: RopeScaling
  readonly bias: { readonly qkv: boolean; readonly out: boolean; readonly mlp: boolean }
}

export type PublicConfig = Gpt2Config | LlamaConfig

/**
 * Reads and checks `config.json` of a checkpoint folder.
 * @throws UserError for a missing or damaged file, an unknown `model_type`, a missing field or an unsupported value.
 */
export function readPublicConfig(folder: string): PublicConfig {
  const path = join(folder, 'config.json')
  return parsePublicConfig(readJson(path), path)
}

/** Checks the content of a `config.json`; `path` names it in errors. */
export function parsePublicConfig(json: unknown, path: string): PublicConfig {
  const { model_type: type } = check(z.looseObject({ model_type: z.string() }), json, path)
  const parse = Object.hasOwn(parsers, type) ? parsers[type as keyof typeof parsers] : undefined
  if (parse) return parse(json, path)
  const known = Object.keys(parsers)
  const near = didYouMean(type, known)
  throw failure({
    where: `${path}: model_type`,
    got: `'${type}'`,
    expected: `one of ${known.join(', ')}`,
    fix: near ? `did you mean '${near}'?` : 'use a checkpoint of one of these families',
  })
}

const count = z.int().min(1)
const off = z.literal(false).optional()

const gpt2Schema = z.looseObject({
  n_layer: count,
  n_embd: count,
  n_head: count,
  n_inner: count.nullish(),
  n_positions: count,
  vocab_size: count,
  layer_norm_epsilon: z.number().gt(0).default(1e-5),
  activation_function: z.enum(['gelu_new', 'gelu_pytorch_tanh', 'gelu']).default('gelu_new'),
  tie_word_embeddings: z.boolean().default(true),
  scale_attn_weights: z.literal(true).optional(),
  scale_attn_by_inverse_layer_idx: off,
  add_cross_attention: off,
})

function parseGpt2(json: unknown, path: string): Gpt2Config {
  const c = check(gpt2Schema, json, path)
  demandDivisor(path, 'n_head', c.n_head, 'n_embd', c.n_embd)
  return {
    family: 'gpt2',
    modelType: 'gpt2',
    layers: c.n_layer,
    width: c.n_embd,
    heads: c.n_head,
    inner: c.n_inner ?? 4 * c.n_embd,
    vocab: c.vocab_size,
    context: c.n_positions,
    epsilon: c.layer_norm_epsilon,
    gelu: c.activation_function === 'gelu' ? 'erf' : 'tanh',
    tied: c.tie_word_embeddings,
  }
}

const llamaFields = {
  num_hidden_layers: count,
  hidden_size: count,
  num_attention_heads: count,
  num_key_value_heads: count.nullish(),
  head_dim: z.int().min(2).multipleOf(2, 'an even number').nullish(),
  intermediate_size: count,
  vocab_size: count,
  max_position_embeddings: count,
  rms_norm_eps: z.number().gt(0),
  hidden_act: z.literal('silu').default('silu'),
  tie_word_embeddings: z.boolean().default(false),
  rope_theta: z.number().gt(0).nullish(),
  rope_parameters: z.looseObject({}).nullish(),
  rope_scaling: z.looseObject({}).nullish(),
}
const llamaSchema = z.looseObject({
  ...llamaFields,
  attention_bias: z.boolean().default(false),
  mlp_bias: z.boolean().default(false),
})
const qwen2Schema = z.looseObject({
  ...llamaFields,
  use_sliding_window: off,
  layer_types: z.array(z.literal('full_attention')).nullish(),
})

function parseLlama(json: unknown, path: string): LlamaConfig {
  const c = check(llamaSchema, json, path)
  return llamaShape('llama', c, { qkv: c.attention_bias, out: c.attention_bias, mlp: c.mlp_bias }, path)
}

function parseQwen2(json: unknown, path: string): LlamaConfig {
  return llamaShape('qwen2', check(qwen2Schema, json, path), { qkv: true, out: false, mlp: false }, path)
}

const parsers = { gpt2: parseGpt2, llama: parseLlama, qwen2: parseQwen2 } as const

type LlamaFields = z.output<z.ZodObject<typeof llamaFields>>

function llamaShape(modelType: string, c: LlamaFields, bias: LlamaConfig['bias'], path: string): LlamaConfig {
  const heads = c.num_attention_heads
  const kvHeads = c.num_key_value_heads ?? heads
  demandDivisor(path, 'num_key_value_heads', kvHeads, 'num_attention_heads', heads)
  if (!c.head_dim) demandDivisor(path, 'num_attention_heads', heads, 'hidden_size', c.hidden_size)
  const headSize = c.head_dim ?? c.hidden_size / heads
  if (headSize % 2 !== 0) {
    throw invalid(path, 'hidden_size', `${c.hidden_size} with ${heads} heads`, 'an even head size (RoPE)')
  }
  return {
    family: 'llama',
    modelType,
    layers: c.num_hidden_layers,
    width: c.hidden_size,
    heads,
    kvHeads,
    headSize,
    inner: c.intermediate_size,
    vocab: c.vocab_size,
    context: c.max_position_embeddings,
    epsilon: c.rms_norm_eps,
    tied: c.tie_word_embeddings,
    bias,
    ...ropeOf(c, path),
  }
}

const ropeSchema = z.looseObject({
  rope_type: z.string().optional(),
  type: z.string().optional(),
  rope_theta: z.number().gt(0).optional(),
})
const llama3Schema = z.looseObject({
  factor: z.number().gt(0),
  low_freq_factor: z.number().gt(0),
  high_freq_factor: z.number().gt(0),
  original_max_position_embeddings: count,
})

function ropeOf(c: LlamaFields, path: string): Pick<LlamaConfig, 'theta' | 'scaling'> {
  const key = c.rope_parameters ? 'rope_parameters' : 'rope_scaling'
  const given = c[key] ?? {}
  const { rope_type, type = 'default', rope_theta } = check(ropeSchema, given, path, `${key}.`)
  const kind = rope_type ?? type
  const theta = rope_theta ?? c.rope_theta ?? 10_000
  if (kind === 'default') return { theta }
  if (kind !== 'llama3') throw invalid(path, `${key}.rope_type`, `'${kind}'`, 'default or llama3')
  const scaling = check(llama3Schema, given, path, `${key}.`)
  const { low_freq_factor: low, high_freq_factor: high } = scaling
  if (!(low < high)) {
    throw invalid(path, `${key}.low_freq_factor`, `${low}`, `less than high_freq_factor (${high})`)
  }
  return {
    theta,
    scaling: {
      factor: scaling.factor,
      lowFrequencyFactor: low,
      highFrequencyFactor: high,
      originalContext: scaling.original_max_position_embeddings,
    },
  }
}

function demandDivisor(path: string, key: string, value: number, ofKey: string, of: number): void {
  if (of % value !== 0) throw invalid(path, key, `${value}`, `a divisor of ${ofKey} (${of})`)
}

/** Parses with zod; the first issue becomes one line that names the file and the field. */
function check<S extends z.ZodObject>(schema: S, json: unknown, path: string, prefix = ''): z.output<S> {
  const result = schema.safeParse(json)
  if (result.success) return result.data
  const issue = result.error.issues[0]!
  const value = issue.path.reduce<unknown>((v, key) => (v as Record<PropertyKey, unknown>)[key], json)
  const field = prefix + issue.path.join('.')
  const got = value === undefined ? 'no such field' : JSON.stringify(value)
  throw invalid(path, field || 'content', got, describeExpected(issue))
}

const invalid = (path: string, field: string, got: string, expected: string): UserError =>
  failure({
    where: `${path}: ${field}`,
    got,
    expected,
    fix: 'take config.json from the same place as the weights, or use a checkpoint with this setting',
  })

function readJson(path: string): unknown {
  let text: string
  try {
    text = readFileSync(path, 'utf8')
  } catch (error) {
    throw explainRead(error, path)
  }
  try {
    return JSON.parse(text)
  } catch (error) {
    throw failure({
      where: path,
      got: `text that is not JSON (${(error as Error).message})`,
      expected: 'the config.json of a Hugging Face checkpoint',
      fix: 'download the file again',
    })
  }
}
