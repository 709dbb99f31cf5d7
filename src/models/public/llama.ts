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
import { ropeFrequencies, ropeTables, ropeTablesAt, rotate, type RopeTables } from '../../nn/layers.ts'
import { asTime, layerAt, throughLayers, type Attend } from '../cached-layers.ts'
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

/** How a pass differs from another: where its tokens stand, and how they look at one another. */
interface Pass {
  readonly rope: RopeTables
  readonly attend: Attend
}

function mix(
  config: LlamaConfig,
  x: Tensor,
  { q_proj, k_proj, v_proj, o_proj }: Layer['self_attn'],
  { rope, attend }: Pass,
): Tensor {
  const { heads, kvHeads, headSize: dim } = config
  const q = project(x, q_proj, 'embed').split('q', { heads, dim })
  const k = project(x, k_proj, 'embed').split('kv', { kvHeads, dim })
  const v = project(x, v_proj, 'embed').split('kv', { kvHeads, dim })
  const mixed = attend(rotate(q, rope), rotate(k, rope), v)
  return project(mixed.merge(['heads', 'dim'], 'q'), o_proj, 'q')
}

function block(config: LlamaConfig, x: Tensor, layer: Layer, pass: Pass): Tensor {
  const { input_layernorm, self_attn, post_attention_layernorm, mlp } = layer
  const h = x.add(mix(config, rmsNorm(x, input_layernorm.weight, config.epsilon), self_attn, pass))
  const normed = rmsNorm(h, post_attention_layernorm.weight, config.epsilon)
  const gated = silu(project(normed, mlp.gate_proj, 'embed')).mul(project(normed, mlp.up_proj, 'embed'))
  return h.add(project(gated, mlp.down_proj, 'inner'))
}

function readout({ epsilon }: LlamaConfig, p: Weights, last: Tensor): Pick<Forward, 'final' | 'logits'> {
  const final = rmsNorm(last, p.norm.weight, epsilon)
  return { final, logits: final.dot((p.lm_head ?? p.embed_tokens).weight, 'embed') }
}

const frequenciesOf = ({ headSize, theta, scaling }: LlamaConfig): number[] =>
  ropeFrequencies(headSize, theta, scaling)

function forward(config: LlamaConfig, p: Weights, tokens: Tensor, options: ForwardOptions = {}): Forward {
  const rope = ropeTables(tokens.size('time'), frequenciesOf(config))
  const pass = { rope, attend: attention }
  const [last, { blockInputs }] = scan(p.embed_tokens.weight.take(tokens), p.layers, (x, layer) => [
    block(config, x, layer, pass),
    options.blockInputs ? { blockInputs: x } : {},
  ])
  return { ...readout(config, p, last), ...(blockInputs && { blockInputs }) }
}

const decode =
  (config: LlamaConfig): Architecture['decode'] =>
  (parameters, cache, rows) => {
    const p = parameters as Weights
    const rope = ropeTablesAt(rows.position.named(['time']), frequenciesOf(config))
    const embedded = p.embed_tokens.weight.take(asTime(rows.token))
    return throughLayers(embedded, cache, rows, (x, index, attend) =>
      block(config, x, layerAt(p.layers, index), { rope, attend }),
    )
  }

export const llama = (config: LlamaConfig): Architecture => ({
  prefix: 'model.',
  weights: weightsOf(config),
  notWeights: /^layers\.\d+\.self_attn\.rotary_emb\.inv_freq$/,
  forward: (parameters, tokens, options) => forward(config, parameters as Weights, tokens, options),
  cached: { layers: config.layers, kvHeads: config.kvHeads, dim: config.headSize },
  decode: decode(config),
  readout: (parameters, last) => readout(config, parameters as Weights, last),
})
