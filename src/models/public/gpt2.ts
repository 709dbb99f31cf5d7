/**
 * GPT-2 (Radford et al., Language Models are Unsupervised Multitask Learners) in the layout of its published files.
 * Weights are [in, out]; query, key and value are thirds of one projection. Axes of each weight are named, so the code
 * says what is contracted and never where it lies.
 *
 * Axes: batch, time, embed (width), heads, dim (width / heads), inner (MLP), vocab.
 */
import { attention, gelu, layerNorm, scan, type Tensor, type Tensorised } from '../../compiler/index.ts'
import { asTime, layerAt, throughLayers, type Attend } from '../cached-layers.ts'
import { weight, type Architecture, type Forward, type ForwardOptions } from './architecture.ts'
import type { Gpt2Config } from './config.ts'

function weightsOf({ layers, width: embed, inner, vocab, context, tied }: Gpt2Config) {
  const norm = { weight: weight({ layers, embed }), bias: weight({ layers, embed }) }
  return {
    wte: { weight: weight({ vocab, embed }) },
    wpe: { weight: weight({ time: context, embed }) },
    h: {
      ln_1: norm,
      attn: {
        c_attn: {
          weight: weight({ layers, embed, qkv: 3 * embed }),
          bias: weight({ layers, qkv: 3 * embed }),
        },
        c_proj: { weight: weight({ layers, mixed: embed, embed }), bias: weight({ layers, embed }) },
      },
      ln_2: norm,
      mlp: {
        c_fc: { weight: weight({ layers, embed, inner }), bias: weight({ layers, inner }) },
        c_proj: { weight: weight({ layers, inner, embed }), bias: weight({ layers, embed }) },
      },
    },
    ln_f: { weight: weight({ embed }), bias: weight({ embed }) },
    ...(tied ? {} : { lm_head: { weight: weight({ vocab, embed }) } }),
  }
}

type Weights = Tensorised<ReturnType<typeof weightsOf>>
type Layer = Weights['h']
interface Affine {
  readonly weight: Tensor
  readonly bias: Tensor
}

/** x w + b, contracting the named axis. */
const affine = (x: Tensor, { weight: w, bias }: Affine, axis: string): Tensor => x.dot(w, axis).add(bias)

function mix(config: Gpt2Config, x: Tensor, { c_attn, c_proj }: Layer['attn'], attend: Attend): Tensor {
  const { width, heads } = config
  const qkv = affine(x, c_attn, 'embed')
  const part = (i: number): Tensor =>
    qkv.slice('qkv', i * width, width).split('qkv', { heads, dim: width / heads })
  const mixed = attend(part(0), part(1), part(2)).merge(['heads', 'dim'], 'mixed')
  return affine(mixed, c_proj, 'mixed')
}

function block(config: Gpt2Config, x: Tensor, { ln_1, attn, ln_2, mlp }: Layer, attend: Attend): Tensor {
  const { epsilon } = config
  const h = x.add(mix(config, layerNorm(x, ln_1.weight, ln_1.bias, epsilon), attn, attend))
  const inner = gelu(affine(layerNorm(h, ln_2.weight, ln_2.bias, epsilon), mlp.c_fc, 'embed'), config.gelu)
  return h.add(affine(inner, mlp.c_proj, 'inner'))
}

function readout({ epsilon }: Gpt2Config, p: Weights, last: Tensor): Pick<Forward, 'final' | 'logits'> {
  const final = layerNorm(last, p.ln_f.weight, p.ln_f.bias, epsilon)
  return { final, logits: final.dot((p.lm_head ?? p.wte).weight, 'embed') }
}

function forward(config: Gpt2Config, p: Weights, tokens: Tensor, options: ForwardOptions = {}): Forward {
  const position = p.wpe.weight.slice('time', 0, tokens.size('time'))
  const embedded = p.wte.weight.take(tokens).add(position)
  const [last, { blockInputs }] = scan(embedded, p.h, (x, layer) => [
    block(config, x, layer, attention),
    options.blockInputs ? { blockInputs: x } : {},
  ])
  return { ...readout(config, p, last), ...(blockInputs && { blockInputs }) }
}

const decode =
  (config: Gpt2Config): Architecture['decode'] =>
  (parameters, cache, rows) => {
    const p = parameters as Weights
    const embedded = p.wte.weight.take(asTime(rows.token)).add(asTime(p.wpe.weight.take(rows.position)))
    return throughLayers(embedded, cache, rows, (x, index, attend) =>
      block(config, x, layerAt(p.h, index), attend),
    )
  }

export const gpt2 = (config: Gpt2Config): Architecture => ({
  prefix: 'transformer.',
  weights: weightsOf(config),
  notWeights: /^h\.\d+\.attn\.(masked_)?bias$/,
  forward: (parameters, tokens, options) => forward(config, parameters as Weights, tokens, options),
  cached: { layers: config.layers, kvHeads: config.heads, dim: config.width / config.heads },
  decode: decode(config),
  readout: (parameters, last) => readout(config, parameters as Weights, last),
})
