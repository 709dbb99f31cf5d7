/** config.json in the forms public checkpoints have, and every way one can be wrong. */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { UserError } from '../../errors.ts'
import { parsePublicConfig, readPublicConfig } from './config.ts'
import { fixture } from './testing.ts'

/** As published: transformers 4 wrote these, with fields left to their defaults. */
const gpt2 = {
  model_type: 'gpt2',
  n_ctx: 1024,
  n_embd: 768,
  n_head: 12,
  n_layer: 12,
  n_positions: 1024,
  vocab_size: 50257,
}
const llama32 = {
  model_type: 'llama',
  head_dim: 64,
  hidden_act: 'silu',
  hidden_size: 2048,
  intermediate_size: 8192,
  max_position_embeddings: 131072,
  num_attention_heads: 32,
  num_hidden_layers: 16,
  num_key_value_heads: 8,
  rms_norm_eps: 1e-5,
  rope_theta: 500000,
  rope_scaling: {
    factor: 32,
    high_freq_factor: 4,
    low_freq_factor: 1,
    original_max_position_embeddings: 8192,
    rope_type: 'llama3',
  },
  tie_word_embeddings: true,
  vocab_size: 128256,
}

test('GPT-2 as published: the fields it leaves out have their defaults', () => {
  assert.deepEqual(parsePublicConfig(gpt2, 'config.json'), {
    family: 'gpt2',
    modelType: 'gpt2',
    layers: 12,
    width: 768,
    heads: 12,
    inner: 3072,
    vocab: 50257,
    context: 1024,
    epsilon: 1e-5,
    gelu: 'tanh',
    tied: true,
  })
})

test('Llama 3.2 as published: rope_theta and rope_scaling at the top', () => {
  assert.deepEqual(parsePublicConfig(llama32, 'config.json'), {
    family: 'llama',
    modelType: 'llama',
    layers: 16,
    width: 2048,
    heads: 32,
    kvHeads: 8,
    headSize: 64,
    inner: 8192,
    vocab: 128256,
    context: 131072,
    epsilon: 1e-5,
    tied: true,
    theta: 500000,
    scaling: { factor: 32, lowFrequencyFactor: 1, highFrequencyFactor: 4, originalContext: 8192 },
    bias: { qkv: false, out: false, mlp: false },
  })
})

test('what a Llama config may leave out', () => {
  const { head_dim: _h, num_key_value_heads: _k, rope_scaling: _s, rope_theta: _t, ...older } = llama32
  const config = parsePublicConfig({ ...older, attention_bias: true, rope_scaling: null }, 'config.json')
  assert.ok(config.family === 'llama')
  assert.deepEqual(
    [config.headSize, config.kvHeads, config.theta, config.scaling],
    [64, 32, 10000, undefined],
  )
  assert.deepEqual(config.bias, { qkv: true, out: true, mlp: false })
})

test('rope_parameters of transformers 5; Qwen2 has query, key and value biases', () => {
  const config = readPublicConfig(fixture('qwen2-tiny'))
  assert.ok(config.family === 'llama')
  assert.deepEqual(
    [config.modelType, config.theta, config.bias],
    ['qwen2', 1e6, { qkv: true, out: false, mlp: false }],
  )
})

const wrong: readonly [string, object, RegExp][] = [
  [
    'unknown model_type',
    { ...gpt2, model_type: 'mamba' },
    /model_type: got 'mamba'; expected one of gpt2, llama, qwen2/,
  ],
  ['misspelt model_type', { ...llama32, model_type: 'lama' }, /did you mean 'llama'\?/],
  ['an inherited name as model_type', { ...gpt2, model_type: 'toString' }, /model_type: got 'toString'/],
  ['no model_type', {}, /model_type: got no such field; expected a string/],
  ['not an object', [1], /config\.json: content: got \[1\]/],
  ['missing field', { ...gpt2, n_layer: undefined }, /n_layer: got no such field; expected a number/],
  ['fraction', { ...gpt2, n_head: 1.5 }, /n_head: got 1\.5; expected a whole number/],
  ['zero layers', { ...gpt2, n_layer: 0 }, /n_layer: got 0; expected at least 1/],
  ['heads do not divide', { ...gpt2, n_head: 5 }, /n_head: got 5; expected a divisor of n_embd \(768\)/],
  [
    'other activation',
    { ...gpt2, activation_function: 'relu' },
    /activation_function: got "relu"; expected one of gelu_new/,
  ],
  [
    'other attention scale',
    { ...gpt2, scale_attn_by_inverse_layer_idx: true },
    /inverse_layer_idx: got true/,
  ],
  ['kv heads do not divide', { ...llama32, num_key_value_heads: 7 }, /num_key_value_heads: got 7/],
  ['odd head size', { ...llama32, head_dim: 63 }, /head_dim: got 63; expected an even number/],
  [
    'other rope',
    { ...llama32, rope_scaling: { type: 'yarn', factor: 4 } },
    /rope_type: got 'yarn'; expected default or llama3/,
  ],
  [
    'incomplete rope',
    { ...llama32, rope_scaling: { rope_type: 'llama3' } },
    /rope_scaling\.factor: got no such field/,
  ],
  [
    'sliding window',
    { ...llama32, model_type: 'qwen2', use_sliding_window: true },
    /use_sliding_window: got true/,
  ],
]

for (const [what, json, message] of wrong) {
  test(`refused: ${what}`, () => {
    assert.throws(
      () => parsePublicConfig(json, 'folder/config.json'),
      (error) =>
        error instanceof UserError &&
        error.message.startsWith('folder/config.json: ') &&
        message.test(error.message),
    )
  })
}
