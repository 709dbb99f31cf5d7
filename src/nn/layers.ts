/**
 * Layers as plain functions of tensors: parameters come in as arguments, so a model is a function of a parameter tree.
 * Axes are named (batch, time, embed, …); weights are [in, out].
 */
import {
  concat,
  conv,
  full,
  iota,
  rope,
  Tensor,
  uniform,
  where,
  type ConvOptions,
  type RandomKey,
} from '../compiler/index.ts'

/** y = x w (+ bias) over the last axis: [..., in] by [in, out]. The result's last axis takes w's name. */
export function linear(x: Tensor, weight: Tensor, bias?: Tensor): Tensor {
  const inner = x.axes.at(-1) ?? 'in'
  const outer = weight.axes[1] === inner ? 'out' : (weight.axes[1] ?? 'out')
  const y = x.named([...x.axes.slice(0, -1), inner]).dot(weight.named([inner, outer]), inner)
  return bias ? y.add(bias.named([outer])) : y
}

/** y = x convolved with w (+ bias), channels last: [..., in] by [...kernel, in / groups, out]. The last axis takes w's name. */
export function convolution(x: Tensor, weight: Tensor, bias?: Tensor, options: ConvOptions = {}): Tensor {
  const inner = x.axes.at(-1) ?? 'in'
  const outer = weight.axes.at(-1) === inner ? 'out' : (weight.axes.at(-1) ?? 'out')
  const y = conv(
    x.named([...x.axes.slice(0, -1), inner]),
    weight.named([...weight.axes.slice(0, -2), inner, outer]),
    options,
  )
  return bias ? y.add(bias.named([outer])) : y
}

export interface RopeTables {
  readonly cos: Tensor
  readonly sin: Tensor
}

/** Frequency scaling of Llama 3.1 and later, for contexts beyond the original one. */
export interface RopeScaling {
  readonly factor: number
  readonly lowFrequencyFactor: number
  readonly highFrequencyFactor: number
  readonly originalContext: number
}

/** Inverse frequencies theta^(-2j/dim), j < dim/2, scaled when asked. Computed in float64. */
export function ropeFrequencies(dim: number, theta: number, scaling?: RopeScaling): number[] {
  return Array.from({ length: dim / 2 }, (_, j) => {
    const frequency = theta ** ((-2 * j) / dim)
    if (!scaling) return frequency
    const wavelength = (2 * Math.PI) / frequency
    const { factor, lowFrequencyFactor: low, highFrequencyFactor: high, originalContext } = scaling
    if (wavelength > originalContext / low) return frequency / factor
    if (wavelength < originalContext / high) return frequency
    const smooth = (originalContext / wavelength - low) / (high - low)
    return (1 - smooth) * (frequency / factor) + smooth * frequency
  })
}

/** Tables for positions start … start + time - 1: cos and sin [time, dim/2] in f32 angles. `start`: i32 scalar or number. */
export function ropeTables(
  time: number,
  frequencies: readonly number[],
  start: Tensor | number = 0,
): RopeTables {
  const half = frequencies.length
  const position = iota(time, 'time').add(start).cast('f32').reshape([time, 1])
  const row = concat(
    frequencies.map((frequency) => full(frequency, { dtype: 'f32', shape: [1, 1], axes: [null, null] })),
    1,
  )
  const angle = position
    .broadcastTo({ shape: [time, half], axes: ['time', null] })
    .mul(row.broadcastTo({ shape: [time, half], axes: ['time', null] }))
  return { cos: angle.cos(), sin: angle.sin() }
}

/** x [batch, time, heads, dim] turned by position. */
export const rotate = (x: Tensor, { cos, sin }: RopeTables): Tensor => {
  const as = (t: Tensor): Tensor => t.cast(x.dtype)
  return rope(x, as(cos), as(sin))
}

/** Zeroes each element with probability `rate` and scales the rest (Srivastava et al., Dropout). */
export function dropout(x: Tensor, rate: number, key: RandomKey, stream: number): Tensor {
  if (rate === 0) return x
  const keep = uniform(key, stream, { ...x.type, dtype: 'f32' }).less(1 - rate)
  return where(keep, x.mul(1 / (1 - rate)), 0)
}
