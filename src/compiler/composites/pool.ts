/**
 * Pooling, channels last: the largest or the mean element of each window. A window is a box, so it is taken axis by axis,
 * each time as a few shifted views of the whole tensor; nothing is gathered. And its counterpart, resizing by repetition.
 */
import type { Attrs } from '../graph/node.ts'
import { typeError, valueType } from '../graph/types.ts'
import { optionsOf } from '../ops/call.ts'
import { windowOf, type ConvOptions } from '../trace/conv.ts'
import { concat, full, Tensor } from '../trace/tensor.ts'
import { invoke, type Composite } from './composite.ts'

export interface PoolOptions extends Pick<ConvOptions, 'padding'> {
  /** Positions by which the window moves, for all axes of space or for each; default: its size. */
  readonly stride?: number | readonly number[]
}

/** What the composites need, one number for each axis of space. */
interface Windows {
  readonly kernel: readonly number[]
  readonly stride: readonly number[]
  readonly low: readonly number[]
  readonly extents: readonly number[]
}

const windowsOf = (options: Attrs): Windows => options as unknown as Windows

export const maxPoolComposite: Composite = {
  name: 'maxPool',
  doc: 'largest element of each window',
  body: ([x], options) => [pooled(x!, windowsOf(options), -Infinity, (a, b) => a.max(b))],
  samples: () => poolSamples(),
}

export const averagePoolComposite: Composite = {
  name: 'averagePool',
  doc: 'mean of each window, padding taken as zeros',
  body([x], options) {
    const count = (options['kernel'] as number[]).reduce((a, b) => a * b, 1)
    return [pooled(x!, windowsOf(options), 0, (a, b) => a.add(b)).mul(1 / count)]
  },
  samples: () => poolSamples(),
}

export const resizeNearestComposite: Composite = {
  name: 'resizeNearest',
  doc: 'every position repeated along the axes of space',
  body([x], options) {
    const factors = options['factors'] as number[]
    const first = x!.rank - 1 - factors.length
    const between = <T>(list: readonly T[], insert: (i: number) => T): T[] =>
      list.flatMap((item, axis) => {
        const i = axis - first
        return i >= 0 && i < factors.length ? [item, insert(i)] : [item]
      })
    const names = x!.shape.map(() => null)
    const apart = x!.reshape(between(x!.shape, () => 1))
    const repeated = apart.broadcastTo({
      shape: between(x!.shape, (i) => factors[i]!),
      axes: between<null>(names, () => null),
    })
    const shape = x!.shape.map((extent, axis) => extent * (factors[axis - first] ?? 1))
    return [repeated.reshape(shape, x!.axes)]
  },
  // The sum over each window of copies, as in pooling: short sums over inner axes would be slow.
  gradient(node, [g]) {
    const factors = optionsOf(node)['factors'] as number[]
    const extents = node.inputs[0]!.shape.slice(-1 - factors.length, -1)
    const all = { kernel: factors, stride: factors, low: factors.map(() => 0), extents }
    return [pooled(new Tensor(g!), all, 0, (a, b) => a.add(b)).node]
  },
  samples: () => [
    { inputs: [valueType('f64', [2, 3, 2])], options: { factors: [2] } },
    { inputs: [valueType('f64', [1, 2, 3, 2])], options: { factors: [2, 3] } },
    { inputs: [valueType('f64', [2, 2, 2, 2, 3])], options: { factors: [1, 2, 2] } },
  ],
}

function poolSamples(): ReturnType<Composite['samples']> {
  const sample = (shape: number[], windows: Windows) => ({
    inputs: [valueType('f64', shape)],
    options: { ...windows },
  })
  return [
    sample([2, 6, 3], { kernel: [2], stride: [2], low: [0], extents: [3] }),
    sample([1, 5, 4, 2], { kernel: [3, 3], stride: [2, 1], low: [1, 1], extents: [3, 4] }),
    sample([1, 7, 5, 3], { kernel: [2, 3], stride: [3, 2], low: [0, 1], extents: [2, 3] }),
    sample([1, 4, 3, 4, 2], { kernel: [2, 1, 2], stride: [2, 1, 1], low: [0, 0, 0], extents: [2, 3, 3] }),
  ]
}

/** Combines the elements of every window. `outside` is what padding holds. */
function pooled(
  x: Tensor,
  { kernel, stride, low, extents }: Windows,
  outside: number,
  combine: (a: Tensor, b: Tensor) => Tensor,
): Tensor {
  const first = x.rank - 1 - kernel.length
  return kernel
    .reduce((y, size, i) => {
      const axis = first + i
      const [step, count] = [stride[i]!, extents[i]!]
      // Rows of one stride each, as many as the windows reach: tap k is column k % stride, from row k / stride on.
      const rows = Math.ceil((size + (count - 1) * step) / step)
      const padded = surrounded(
        y,
        axis,
        low[i]!,
        Math.max(0, rows * step - low[i]! - y.shape[axis]!),
        outside,
      )
      const apart = [...y.shape.slice(0, axis), rows, step, ...y.shape.slice(axis + 1)]
      const grid = padded.slice(axis, 0, rows * step).reshape(apart)
      const taps = Array.from({ length: size }, (_, k) =>
        grid
          .slice(axis, Math.floor(k / step), count)
          .slice(axis + 1, k % step, 1)
          .reshape(y.shape.with(axis, count)),
      )
      return taps.reduce(combine)
    }, x)
    .named(x.axes)
}

function surrounded(x: Tensor, axis: number, before: number, after: number, value: number): Tensor {
  if (value === 0) return x.pad(axis, before, after)
  const block = (extent: number): Tensor[] =>
    extent === 0 ? [] : [full(value, { ...x.type, shape: x.shape.with(axis, extent) })]
  return concat([...block(before), x, ...block(after)], axis)
}

function windows(
  where: string,
  x: Tensor,
  size: number | readonly number[],
  { stride, padding }: PoolOptions,
): Attrs {
  const rank = typeof size === 'number' ? x.rank - 2 : size.length
  const kernel = typeof size === 'number' ? Array.from({ length: rank }, () => size) : size
  if (rank < 1 || x.rank < rank + 1 || kernel.some((extent) => !Number.isInteger(extent) || extent < 1)) {
    throw typeError(
      where,
      `window [${kernel.join(', ')}] on ${x}`,
      'input [...leading, ...space, channels] and a window of whole numbers for the axes of space',
      'give one number, or one for each axis',
    )
  }
  const space = x.shape.slice(x.rank - 1 - rank, -1)
  const window = windowOf(where, space, kernel, {
    stride: stride ?? kernel,
    ...(padding === undefined ? {} : { padding }),
  })
  const clipped =
    window.low.some((before, i) => before >= kernel[i]!) ||
    window.high.some((after, i) => after >= kernel[i]!)
  if (clipped) {
    throw typeError(
      where,
      `padding as large as the window [${kernel.join(', ')}]`,
      'every window to hold an element',
      'pad less',
    )
  }
  return { kernel, stride: window.stride, low: window.low, extents: window.extents }
}

/**
 * Largest element of each window, channels last. Where elements tie, the gradient goes to the first.
 *
 * @example
 * const y = maxPool(x, 2) // [batch, height, width, channels] to [batch, height / 2, width / 2, channels]
 *
 * @param x [...leading, ...space, channels]
 * @param size of the window: one number for all axes between the first and the last, or one for each axis of space
 * @throws UserError when size or options do not fit the input
 */
export const maxPool = (x: Tensor, size: number | readonly number[], options: PoolOptions = {}): Tensor =>
  invoke(maxPoolComposite, [x], windows('maxPool', x, size, options))[0]!

/**
 * Mean of each window, channels last; padding counts as zeros.
 *
 * @param x [...leading, ...space, channels]
 * @param size of the window: one number for all axes between the first and the last, or one for each axis of space
 * @throws UserError when size or options do not fit the input
 */
export const averagePool = (x: Tensor, size: number | readonly number[], options: PoolOptions = {}): Tensor =>
  invoke(averagePoolComposite, [x], windows('averagePool', x, size, options))[0]!

/**
 * Repeats every position `factor` times along the axes of space, channels last: [batch, h, w, c] by 2 is
 * [batch, 2h, 2w, c].
 *
 * @param factor one whole number for all axes between the first and the last, or one for each axis of space
 * @throws UserError when a factor is no whole number above 0 or there are more factors than axes
 */
export function resizeNearest(x: Tensor, factor: number | readonly number[]): Tensor {
  const factors = typeof factor === 'number' ? x.shape.slice(1, -1).map(() => factor) : factor
  const fits = factors.length >= 1 && factors.length < x.rank
  if (!fits || factors.some((n) => !Number.isInteger(n) || n < 1)) {
    throw typeError(
      'resizeNearest',
      `factors [${factors.join(', ')}] on ${x}`,
      'input [...leading, ...space, channels] and a whole number above 0 for each axis of space',
      'give one number, or one for each axis',
    )
  }
  return invoke(resizeNearestComposite, [x], { factors: [...factors] })[0]!
}
