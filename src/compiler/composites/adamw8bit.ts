/**
 * AdamW whose moments are kept in a byte each (Dettmers et al., 8-bit Optimizers via Block-wise Quantization). Blocks of
 * 256 elements of a layer share a scale, their largest magnitude; an element is the nearest of 256 numbers that are dense where
 * moments are: seven decades below 1, each with twice as many numbers as the one below it. The update itself uses the new
 * moments before they are rounded. A second moment that is not 0 is never rounded to 0: it divides.
 */
import { powerFloor } from '../ops/power-floor.ts'
import { valueType, type DType, type ValueType } from '../graph/types.ts'
import { iota, Tensor, where } from '../trace/tensor.ts'
import { adamw, type AdamWOptions } from './adamw.ts'
import { invoke, type Composite } from './composite.ts'

const blockSize = 256
const decades = 7

/** A parameter in blocks. No block reaches from one layer of a stack into the next, so layers may lie on several ranks. */
function blocksOf({ shape, axes }: Pick<ValueType, 'shape' | 'axes'>): Blocks {
  const layers = axes[0] === 'layer' ? shape[0]! : 1
  const size = shape.reduce((a, b) => a * b, 1) / layers
  return { layers, size, count: Math.ceil(size / blockSize) }
}

interface Blocks {
  readonly layers: number
  /** Elements and blocks of a layer. */
  readonly size: number
  readonly count: number
}

/** Type of the scales of a parameter's moment. */
export function blockScales(parameter: ValueType): ValueType {
  const { layers, count } = blocksOf(parameter)
  const stacked = parameter.axes[0] === 'layer'
  return stacked
    ? valueType(parameter.dtype, [layers, count], ['layer', null])
    : valueType(parameter.dtype, [count])
}

export const adamw8bitComposite: Composite = {
  name: 'adamw8bit',
  doc: 'AdamW update with moments as bytes and a scale a block: (parameter, gradient, m, scales, v, scales, lr, 1/(1-β1ᵗ), 1/(1-β2ᵗ)) to (parameter, m, scales, v, scales)',
  body([parameter, gradient, m, mScale, v, vScale, lr, ...corrections], options) {
    const { dtype } = parameter!
    const [next, nextM, nextV] = adamw(
      [
        parameter!,
        gradient!,
        decoded(m!, mScale!, signedValues(dtype)),
        decoded(v!, vScale!, unsignedValues(dtype)),
        lr!,
        ...corrections,
      ],
      options as unknown as AdamWOptions,
    )
    return [
      next,
      ...encoded(nextM, signedValues(dtype), 0, parameter!),
      ...encoded(nextV, unsignedValues(dtype), 1, parameter!),
    ]
  },
  samples: () => {
    const scalar = valueType('f64', [])
    const [bytes, lr] = [[0, 256] as const, [0.01, 0.1] as const]
    return (
      [
        [[3, 4]],
        [[5, 103]],
        [
          [3, 2, 130],
          ['layer', null, null],
        ],
      ] as const
    ).map(([shape, axes]) => {
      const tensor = valueType('f64', shape, axes)
      const [codes, scales] = [valueType('u8', shape, axes), blockScales(tensor)]
      return {
        inputs: [tensor, tensor, codes, scales, codes, scales, scalar, scalar, scalar],
        options: { beta1: 0.9, beta2: 0.99, eps: 1e-8, weightDecay: 0.1 },
        ranges: [[-1, 1], [-1, 1], bytes, [0.1, 1], bytes, [0.1, 1], lr, [1, 2], [1, 2]] as const,
      }
    })
  },
}

/**
 * The numbers of a code in ascending order: 0, then decade by decade the middles of 1, 2, 4, ... equal parts (times
 * `first`) of what lies between a tenth of it and the whole, then 1. `index` counts from the zero.
 */
function magnitudes(index: Tensor, first: 1 | 2): Tensor {
  const power = new Tensor(powerFloor(index.node)).max(1)
  const within = index.sub(power).add(0.5).div(power).mul(0.9).add(0.1)
  let value = index.mul(0)
  for (let i = 0; i < decades; i++)
    value = where(power.equal(first * 2 ** i), within.mul(10 ** (i - decades + 1)), value)
  return where(power.equal(first * 2 ** decades), 1, value)
}

/** 127 negative numbers, 0, 127 positive ones, 1. */
function signedValues(dtype: DType): Tensor {
  const index = iota(2 ** 8, null, dtype).sub(127)
  const size = magnitudes(index.max(index.neg()), 1)
  return where(index.equal(0), 0, where(index.less(0), size.neg(), size))
}

/** 0, 254 positive numbers, 1. */
const unsignedValues = (dtype: DType): Tensor => magnitudes(iota(2 ** 8, null, dtype).add(1), 2)

function decoded(codes: Tensor, scales: Tensor, values: Tensor): Tensor {
  const of = blocksOf(codes)
  const found = values.take(codes.cast('i32'))
  return flatten(inBlocks(found, of).mul(scales.reshape([of.layers, of.count, 1])), of, codes)
}

/** Codes of the nearest numbers, by bisection among the midpoints, and the scales; `least`: the code of what is not 0. */
function encoded(x: Tensor, values: Tensor, least: 0 | 1, like: Tensor): [Tensor, Tensor] {
  const of = blocksOf(like)
  const blocks = inBlocks(x, of)
  const scales = blocks.max(blocks.neg()).maxOver(2)
  const scaled = blocks.div(scales.reshape([of.layers, of.count, 1]).max(1e-38))
  const midpoints = values
    .slice(0, 0, 255)
    .add(values.slice(0, 1, 255))
    .mul(0.5)
  let code = scaled.mul(0).cast('i32')
  for (let step = 128; step >= 1; step /= 2) {
    const above = midpoints.take(code.add(step - 1)).less(scaled)
    code = code.add(above.cast('i32').mul(step))
  }
  if (least > 0) code = code.max(scaled.greater(0).cast('i32'))
  const { shape, axes } = blockScales(like.type)
  return [flatten(code, of, like).cast('u8'), scales.reshape(shape, axes)]
}

/** [layers, blocks, 256], the last block of a layer filled up with zeros. */
const inBlocks = (x: Tensor, { layers, size, count }: Blocks): Tensor =>
  x
    .reshape([layers, size])
    .pad(1, 0, count * blockSize - size)
    .reshape([layers, count, blockSize])

/** Blocks as the shape they came from. */
const flatten = (blocks: Tensor, { layers, size, count }: Blocks, like: Tensor): Tensor =>
  blocks
    .reshape([layers, count * blockSize])
    .slice(1, 0, size)
    .reshape(like.shape, like.axes)

/** Returns the next parameter, then codes and scales of the first moment and of the second. */
export const adamw8bit = (inputs: readonly Tensor[], options: AdamWOptions): Tensor[] =>
  invoke(adamw8bitComposite, inputs, { ...options })
