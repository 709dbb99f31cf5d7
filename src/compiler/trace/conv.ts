/**
 * Convolution as model code writes it: options with defaults, any number of leading axes, and weights whose rank says how
 * many axes of space there are.
 */
import { sizeOf, typeError } from '../graph/types.ts'
import { convExtent } from '../ops/convolution.ts'
import { conv as convNode } from '../ops/conv.ts'
import { Tensor } from './tensor.ts'

export interface ConvOptions {
  /** Positions by which the kernel moves, for all axes of space or for each; default 1. */
  readonly stride?: number | readonly number[]
  /** Distance between taps of the kernel; default 1. */
  readonly dilation?: number | readonly number[]
  /**
   * Zeros around the input: a count for all sides, a count or [before, after] for each axis of space, or `same`, which
   * gives an output of ceil(extent / stride). Default 0.
   */
  readonly padding?: Padding
  /** Groups of channels that do not see each other; default 1. */
  readonly groups?: number
}

export type Padding = 'same' | number | readonly (number | readonly [before: number, after: number])[]

/**
 * Convolution over 1, 2 or 3 axes, channels last.
 *
 * @example
 * const y = conv(x, weight, { padding: 1 }) // [batch, height, width, in] by [3, 3, in, out]
 *
 * @param x [...leading, ...space, in]
 * @param weight [...kernel, in / groups, out]; its rank less 2 is the number of axes of space
 * @returns [...leading, ...space, out], each extent floor((extent + padding - dilation * (kernel - 1) - 1) / stride) + 1
 * @throws UserError when ranks, channels, groups or options do not fit, or the kernel is larger than the padded input
 */
export function conv(x: Tensor, weight: Tensor, options: ConvOptions = {}): Tensor {
  const rank = weight.rank - 2
  if (rank < 1 || rank > 3 || x.rank < rank + 1) {
    throw typeError(
      'conv',
      `${x} and ${weight}`,
      'input [...leading, ...space, in] and weight [...kernel, in / groups, out] with 1 to 3 axes of space',
      'reshape one side',
    )
  }
  const leading = x.shape.slice(0, -rank - 1)
  const inner = x.shape.slice(-rank - 1)
  const innerAxes = x.axes.slice(-rank - 1)
  const kernel = weight.shape.slice(0, rank)
  const window = windowOf('conv', inner.slice(0, rank), kernel, options)
  const batch = leading.length === 1 ? x : x.reshape([sizeOf(leading), ...inner], [null, ...innerAxes])
  const { stride, dilation, low, extents } = window
  const y = new Tensor(
    convNode(batch.node, weight.node, { stride, dilation, low, groups: options.groups ?? 1, extents }),
  )
  if (leading.length === 1) return y
  return y.reshape(
    [...leading, ...y.shape.slice(1)],
    [...x.axes.slice(0, leading.length), ...y.axes.slice(1)],
  )
}

export interface Window {
  readonly kernel: readonly number[]
  readonly stride: readonly number[]
  readonly dilation: readonly number[]
  readonly low: readonly number[]
  readonly high: readonly number[]
  /** Of the output. */
  readonly extents: readonly number[]
}

/** Options for each axis of space, checked, and what they make of the extents. */
export function windowOf(
  where: string,
  space: readonly number[],
  kernel: readonly number[],
  options: Omit<ConvOptions, 'groups'>,
): Window {
  const each = (name: string, value: number | readonly number[], least: number): readonly number[] => {
    const list = typeof value === 'number' ? space.map(() => value) : value
    const whole = list.length === space.length && list.every((n) => Number.isInteger(n) && n >= least)
    if (whole) return list
    throw typeError(
      where,
      `${name} [${list.join(', ')}]`,
      `a whole number of at least ${least}, or ${space.length} of them`,
      'one number serves all axes',
    )
  }
  const stride = each('stride', options.stride ?? 1, 1)
  const dilation = each('dilation', options.dilation ?? 1, 1)
  const { padding = 0 } = options
  const sides = space.map((extent, i): readonly [number, number] => {
    if (padding === 'same') {
      const covered = (Math.ceil(extent / stride[i]!) - 1) * stride[i]! + (kernel[i]! - 1) * dilation[i]! + 1
      const total = Math.max(0, covered - extent)
      return [Math.floor(total / 2), Math.ceil(total / 2)]
    }
    const own = typeof padding === 'number' ? padding : (padding[i] ?? -1)
    return typeof own === 'number' ? [own, own] : own
  })
  if (typeof padding === 'object' && padding.length !== space.length) {
    throw typeError(
      where,
      `padding of ${padding.length} axes`,
      `${space.length}`,
      'one number serves all axes',
    )
  }
  const low = each(
    'padding',
    sides.map(([before]) => before),
    0,
  )
  const high = each(
    'padding',
    sides.map(([, after]) => after),
    0,
  )
  const extents = space.map((extent, i) =>
    convExtent(extent, kernel[i]!, stride[i]!, dilation[i]!, low[i]! + high[i]!),
  )
  if (extents.some((extent) => extent < 1)) {
    throw typeError(
      where,
      `kernel [${kernel.join(', ')}] on space [${space.join(', ')}]`,
      'a kernel no larger than the padded input',
      'pad, or use a smaller kernel or dilation',
    )
  }
  return { kernel, stride, dilation, low, high, extents }
}
