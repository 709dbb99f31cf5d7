/**
 * The Llama shape (Touvron et al., LLaMA: Open and Efficient Foundation Language Models; Grattafiori et al., The Llama 3
 * Herd of Models), also that of SmolLM2, and with query, key and value biases of Qwen2 (Yang et al., Qwen2 Technical
 * Report). Weights are [out, in]. RoPE is the half-split form, in which Hugging Face files store query and key rows.
 *
 * Axes: batch, time, embed (width), q and kv (heads x dim of queries, of keys and values), inner (MLP), vocab.
 */
import {
  attention,
  rmsNorm,
  scan,
  silu,
  type Tensor,
  type Tensorised,
  type ValueType,
} from '../../compiler/index.ts'
import { ropeFrequencies, ropeTables, rotate, type RopeTables } from '../../nn/layers.ts'
import { weight, type Architecture, type Forward, type ForwardOptions } from './architecture.ts'
import type { LlamaConfig } from './config.ts'

// A type alias, not an interface: only aliases fit the index signature of a tree.
type Projection = { readonly weight: ValueType; readonly bias?: ValueType }

function weightsOf(config: LlamaConfig) {
  const { layers, width: embed, inner, vocab, heads, kvHeads, headSize, bias, tied } = config
  const [q, kv] = [heads * headSize, kvHeads * headSize]
  const projection = (
    out: Record<string, number>,
    into: Record<string, number>,
    biased: boolean,
  ): Projection => ({
    weight: weight({ layers, ...out, ...into }),
    ...(biased ? { bias: weight({ layers, ...out }) } : {}),
  })
  return {
    embed_tokens: { weight: weight({ vocab, embed }) },
    layers: {
      input_layernorm: { weight: weight({ layers, embed }) },
      self_attn: {
        q_proj: projection({ q }, { embed }, bias.qkv),
        k_proj: projection({ kv }, { embed }, bias.qkv),
        v_proj: projection({ kv }, { embed }, bias.qkv),
        o_proj: projection({ embed }, { q }, bias.out),
      },
      post_attention_layernorm: { weight: weight({ layers, embed }) },
      mlp: {
        gate_proj: projection({ inner }, { embed }, bias.mlp),
        up_proj: projection({ inner }, { embed }, bias.mlp),
        down_proj: projection({ embed }, { inner }, bias.mlp),
      },
    },
    norm: { weight: weight({ embed }) },
    ...(tied ? {} : { lm_head: { weight: weight({ vocab, embed }) } }),
  }
}

type Weights = Tensorised<ReturnType<typeof weightsOf>>
type Layer = Weights['layers']

/** x wᵀ (+ b), contracting the named axis. */
function project(x: Tensor, { weight: w, bias }: Tensorised<Projection>, axis: string): Tensor {
  const y = x.dot(w, axis)
  return bias ? y.add(bias) : y
}

function attend(
  config: LlamaConfig,
  x: Tensor,
  { q_proj, k_proj, v_proj, o_proj }: Layer['self_attn'],
  rope: RopeTables,
): Tensor {
  const { heads, kvHeads, headSize: dim } = config
  const q = project(x, q_proj, 'embed').split('q', { heads, dim })
  const k = project(x, k_proj, 'embed').split('kv', { kvHeads, dim })
  const v = project(x, v_proj, 'embed').split('kv', { kvHeads, dim })
  const mixed = attention(rotate(q, rope), rotate(k, rope), v)
  return project(mixed.merge(['heads', 'dim'], 'q'), o_proj, 'q')
}

function block(config: LlamaConfig, x: Tensor, layer: Layer, rope: RopeTables): Tensor {
  const { input_layernorm, self_attn, post_attention_layernorm, mlp } = layer
  const h = x.add(attend(config, rmsNorm(x, input_layernorm.weight, config.epsilon), self_attn, rope))
  const normed = rmsNorm(h, post_attention_layernorm.weight, config.epsilon)
  const gated = silu(project(normed, mlp.gate_proj, 'embed')).mul(project(normed, mlp.up_proj, 'embed'))
  return h.add(project(gated, mlp.down_proj, 'inner'))
}

function forward(config: LlamaConfig, p: Weights, tokens: Tensor, options: ForwardOptions = {}): Forward {
  const { headSize, theta, scaling, epsilon } = config
  const rope = ropeTables(tokens.size('time'), ropeFrequencies(headSize, theta, scaling))
  const [last, { blockInputs }] = scan(p.embed_tokens.weight.take(tokens), p.layers, (x, layer) => [
    block(config, x, layer, rope),
    options.blockInputs ? { blockInputs: x } : {},
  ])
  const final = rmsNorm(last, p.norm.weight, epsilon)
  const head = p.lm_head ?? p.embed_tokens
  return { logits: final.dot(head.weight, 'embed'), final, ...(blockInputs && { blockInputs }) }
}

export const llama = (config: LlamaConfig): Architecture => ({
  prefix: 'model.',
  weights: weightsOf(config),
  notWeights: /^layers\.\d+\.self_attn\.rotary_emb\.inv_freq$/,
  forward: (parameters, tokens, options) => forward(config, parameters as Weights, tokens, options),
})
