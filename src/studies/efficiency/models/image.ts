/**
 * Small convolutional networks for images of digits, for their eras. They share a stem and a head, so that what differs is
 * what the era brought: tanh (LeCun et al., Gradient-based learning applied to document recognition), rectifiers (Krizhevsky
 * et al., ImageNet classification with deep convolutional neural networks), batch norm (Ioffe & Szegedy) and shortcuts
 * (He et al., Deep Residual Learning for Image Recognition).
 *
 * The stem is two convolutions that halve the image, of `width` and twice `width` channels; strides do what pooling did in
 * 1998 and 2012, at a quarter of the operations. The head is linear on all that is left. Weights of a convolution are one
 * matrix [taps x in, out], which is what Muon orthogonalises.
 */
import { valueType, type Tensor, type Tensors } from '../../../compiler/index.ts'
import type { ParameterSpec } from '../../../models/language/model.ts'
import { convolution, linear } from '../../../nn/layers.ts'
import type { ParameterSpecs } from './parameters.ts'

export interface ImageModelSettings {
  /** Rows and columns; a multiple of 4. */
  readonly pixels: number
  readonly classes: number
  readonly width: number
}

export interface ImageModel {
  readonly specs: ParameterSpecs
  /** Whether `seen` matters. */
  readonly normalised: boolean
  /**
   * Logits [batch, classes] of images [batch, rows, columns, 1]. Batch norm takes its statistics of the first `seen` images:
   * of all in training; in an evaluation of training images that are put before those to be judged.
   */
  logits(params: Tensors, images: Tensor, seen: number): Tensor
}

type Weights = Readonly<Record<string, Tensor>>

interface Kind {
  readonly activation: (x: Tensor) => Tensor
  /** Variance of a weight times the number of inputs. */
  readonly gain: 1 | 2
  readonly normalised: boolean
  readonly blocks: 0 | 1
}

/** One convolution by name: taps along an axis, channels in and out, stride. */
interface Layer {
  readonly name: string
  readonly taps: number
  readonly into: number
  readonly out: number
  readonly stride: number
}

function layersOf({ width }: ImageModelSettings, blocks: number): readonly Layer[] {
  const wide = 2 * width
  const block = (name: string): Layer => ({ name, taps: 3, into: wide, out: wide, stride: 1 })
  return [
    { name: 'stem1', taps: 5, into: 1, out: width, stride: 2 },
    { name: 'stem2', taps: 3, into: width, out: wide, stride: 2 },
    ...(blocks > 0 ? [block('block1'), block('block2')] : []),
  ]
}

const network =
  ({ activation, gain, normalised, blocks }: Kind) =>
  (settings: ImageModelSettings): ImageModel => {
    const layers = layersOf(settings, blocks)
    const features = 2 * settings.width * (settings.pixels / 4) ** 2
    const apply = (weights: Weights, layer: Layer, x: Tensor, seen: number): Tensor => {
      const { name, taps, into, out, stride } = layer
      const kernel = weights[name]!.reshape([taps, taps, into, out], [null, null, 'in', 'out'])
      const y = convolution(x, kernel, undefined, { stride, padding: 'same' })
      const [scale, shift] = [weights[`${name}Gain`], weights[`${name}Bias`]!]
      return (scale ? batchNorm(y, scale, seen) : y).add(shift)
    }
    return {
      specs: {
        ...Object.assign({}, ...layers.map((layer) => layerSpecs(layer, gain, normalised))),
        head: {
          ...valueType('f32', [features, settings.classes], ['features', 'classes']),
          std: 1 / Math.sqrt(features),
          hidden: false,
        },
        headBias: vector(settings.classes, 0, 'classes'),
      },
      normalised,
      logits(params, images, seen) {
        const weights = params as Weights
        const [stem1, stem2, block1, block2] = layers
        let x = activation(apply(weights, stem1!, images, seen))
        x = activation(apply(weights, stem2!, x, seen))
        if (block1 && block2) {
          const inner = activation(apply(weights, block1, x, seen))
          x = activation(x.add(apply(weights, block2, inner, seen)))
        }
        const flat = x.reshape([images.size(0), features], ['batch', 'features'])
        return linear(flat, weights['head']!, weights['headBias'])
      },
    }
  }

function layerSpecs({ name, taps, into, out }: Layer, gain: number, normalised: boolean): ParameterSpecs {
  const inputs = taps * taps * into
  return {
    [name]: {
      ...valueType('f32', [inputs, out], ['in', 'out']),
      std: Math.sqrt(gain / inputs),
      hidden: true,
    },
    ...(normalised ? { [`${name}Gain`]: vector(out, 'ones') } : {}),
    [`${name}Bias`]: vector(out, 0),
  }
}

const vector = (size: number, std: ParameterSpec['std'], axis = 'out'): ParameterSpec => ({
  ...valueType('f32', [size], [axis]),
  std,
  hidden: false,
})

/** Each channel with mean 0 and variance 1 over the first `seen` images, then scaled. */
function batchNorm(x: Tensor, scale: Tensor, seen: number): Tensor {
  const among = seen === x.size(0) ? x : x.slice(0, 0, seen)
  const mean = among.mean([0, 1, 2])
  const variance = among.sub(mean).square().mean([0, 1, 2])
  return x.sub(mean).mul(scale.mul(variance.add(1e-5).rsqrt()))
}

const tanh = (x: Tensor): Tensor => x.tanh()
const rectified = (x: Tensor): Tensor => x.max(0)

/** By the name that recipes call them. */
export const imageModels: Readonly<Record<string, (settings: ImageModelSettings) => ImageModel>> = {
  'tanh-1998': network({ activation: tanh, gain: 1, normalised: false, blocks: 0 }),
  'relu-2012': network({ activation: rectified, gain: 1, normalised: false, blocks: 0 }),
  'norm-2015': network({ activation: rectified, gain: 2, normalised: true, blocks: 0 }),
  'residual-2016': network({ activation: rectified, gain: 2, normalised: true, blocks: 1 }),
}
