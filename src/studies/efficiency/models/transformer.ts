/**
 * Two transformers that the project's language model is not, for their eras. 2017 (Vaswani et al., Attention Is All You
 * Need): layer norm after each sum, sinusoidal positions, ReLU. 2023 (Touvron et al., LLaMA): RMS norm before each part,
 * rotary positions, SwiGLU, untied head. Neither has biases; matrices start as Glorot & Bengio propose.
 */
import {
  attention,
  concat,
  crossEntropy,
  iota,
  layerNorm,
  rmsNorm,
  scan,
  silu,
  valueType,
  type Tensor,
} from '../../../compiler/index.ts'
import type { ParameterSpec } from '../../../models/language/model.ts'
import { linear, ropeFrequencies, ropeTablesAt, rotate, type RopeTables } from '../../../nn/layers.ts'
import type { TextModelKind, TextModelSettings } from './text-model.ts'

type Dim = readonly [name: string, size: number]

/** One matrix of every layer. */
function stacked(layers: number, rows: Dim, columns: Dim, shrink = 1): ParameterSpec {
  const type = valueType('f32', [layers, rows[1], columns[1]], ['layer', rows[0], columns[0]])
  return { ...type, std: shrink * Math.sqrt(2 / (rows[1] + columns[1])), hidden: true }
}

const table = (rows: Dim, columns: Dim, std: number): ParameterSpec => ({
  ...valueType('f32', [rows[1], columns[1]], [rows[0], columns[0]]),
  std,
  hidden: false,
})

const gains = (layers: number, width: number): ParameterSpec => ({
  ...valueType('f32', [layers, width], ['layer', 'embed']),
  std: 'ones',
  hidden: false,
})

const attentionSpecs = ({ layers, width }: TextModelSettings, shrink = 1) => {
  const [embed, inner]: [Dim, Dim] = [
    ['embed', width],
    ['inner', width],
  ]
  const into = stacked(layers, embed, inner)
  return { q: into, k: into, v: into, o: stacked(layers, inner, embed, shrink) }
}

type AttentionWeights = Readonly<Record<'q' | 'k' | 'v' | 'o', Tensor>>

function attend(x: Tensor, w: AttentionWeights, heads: number, tables?: RopeTables): Tensor {
  const head = (weight: Tensor): Tensor =>
    linear(x, weight).split('inner', { heads, dim: weight.size('inner') / heads })
  const turned = (y: Tensor): Tensor => (tables ? rotate(y, tables) : y)
  return linear(
    attention(turned(head(w.q)), turned(head(w.k)), head(w.v)).merge(['heads', 'dim'], 'inner'),
    w.o,
  )
}

/** Sines and cosines of positions [time, width], wavelengths from 2 pi to 20,000 pi. */
function sinusoids(time: number, width: number): Tensor {
  const { cos, sin } = ropeTablesAt(iota(time, 'time'), ropeFrequencies(width, 10_000))
  return concat([sin, cos], 1).named(['time', 'embed'])
}

interface Weights2017 {
  readonly tokens: Tensor
  readonly layers: {
    readonly attn: AttentionWeights
    readonly mlp: { readonly up: Tensor; readonly down: Tensor }
    readonly norm1: Tensor
    readonly norm2: Tensor
  }
}

export const transformer2017: TextModelKind = (settings) => {
  const { layers, width, heads, vocab } = settings
  const [embed, hidden]: [Dim, Dim] = [
    ['embed', width],
    ['hidden', 4 * width],
  ]
  return {
    specs: {
      tokens: table(['vocab', vocab], embed, 1 / Math.sqrt(width)),
      layers: {
        attn: attentionSpecs(settings),
        mlp: { up: stacked(layers, embed, hidden), down: stacked(layers, hidden, embed) },
        norm1: gains(layers, width),
        norm2: gains(layers, width),
      },
    },
    losses(params, tokens) {
      const weights = params as unknown as Weights2017
      const time = tokens.size('time') - 1
      const embedded = weights.tokens
        .take(tokens.slice('time', 0, time))
        .mul(Math.sqrt(width))
        .add(sinusoids(time, width))
      const [last] = scan(
        { x: embedded },
        weights.layers,
        ({ x }, w) => {
          const attended = layerNorm(x.add(attend(x, w.attn, heads)), w.norm1)
          const mixed = linear(linear(attended, w.mlp.up).max(0), w.mlp.down)
          return [{ x: layerNorm(attended.add(mixed), w.norm2) }, {}]
        },
        { name: 'layers' },
      )
      return crossEntropy(last.x.dot(weights.tokens, 'embed'), tokens.slice('time', 1, time))
    },
  }
}

interface Weights2023 {
  readonly tokens: Tensor
  readonly layers: {
    readonly attn: AttentionWeights
    readonly mlp: { readonly gate: Tensor; readonly up: Tensor; readonly down: Tensor }
    readonly norm1: Tensor
    readonly norm2: Tensor
  }
  readonly norm: Tensor
  readonly head: Tensor
}

export const transformer2023: TextModelKind = (settings) => {
  const { layers, width, heads, vocab } = settings
  // Two thirds of 4 x width, since there are three matrices instead of two; whole vectors.
  const [embed, hidden]: [Dim, Dim] = [
    ['embed', width],
    ['hidden', Math.ceil((8 * width) / 3 / 16) * 16],
  ]
  const shrink = 1 / Math.sqrt(2 * layers)
  const into = stacked(layers, embed, hidden)
  return {
    specs: {
      tokens: table(['vocab', vocab], embed, 1 / Math.sqrt(width)),
      layers: {
        attn: attentionSpecs(settings, shrink),
        mlp: { gate: into, up: into, down: stacked(layers, hidden, embed, shrink) },
        norm1: gains(layers, width),
        norm2: gains(layers, width),
      },
      norm: { ...valueType('f32', [width], ['embed']), std: 'ones', hidden: false },
      head: table(embed, ['vocab', vocab], 1 / Math.sqrt(width)),
    },
    losses(params, tokens) {
      const weights = params as unknown as Weights2023
      const time = tokens.size('time') - 1
      const tables = ropeTablesAt(iota(time, 'time'), ropeFrequencies(width / heads, 10_000))
      const [last] = scan(
        { x: weights.tokens.take(tokens.slice('time', 0, time)) },
        weights.layers,
        ({ x }, w) => {
          const attended = x.add(attend(rmsNorm(x, w.norm1, 1e-6), w.attn, heads, tables))
          const normed = rmsNorm(attended, w.norm2, 1e-6)
          const gated = silu(linear(normed, w.mlp.gate)).mul(linear(normed, w.mlp.up))
          return [{ x: attended.add(linear(gated, w.mlp.down)) }, {}]
        },
        { name: 'layers' },
      )
      const logits = linear(rmsNorm(last.x, weights.norm, 1e-6), weights.head)
      return crossEntropy(logits, tokens.slice('time', 1, time))
    },
  }
}
