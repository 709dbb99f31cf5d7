/**
 * What `conv` and its two gradients share. The three are the partial derivatives of one form that is linear in each of
 * input x, weight w and output y:
 *
 *   sum over batch, position o, tap k, channel c, column n of x[batch, o * stride + k * dilation - low, c] w[k, c, n] y[batch, o, n]
 *
 * so every derivative of any order is one of the three again. Layout is channels-last: x [batch, ...space, channels], w
 * [...kernel, channels / groups, columns], y [batch, ...space, columns]; group g of the columns sees group g of the
 * channels. Taps that fall outside x do not count: neither in the sum nor as FLOPs. Padding after the last element is
 * not stored; it follows from the extents.
 */
import type { Node } from '../graph/node.ts'
import { leavesOf, sumInLeaves } from './leaves.ts'
import type { Factors, Sample, Values } from '../graph/op.ts'
import { formatType, sizeOf, typeError, valueType, type AxisName, type ValueType } from '../graph/types.ts'

/** One number for each axis of space. */
export interface ConvAttrs {
  readonly stride: readonly number[]
  readonly dilation: readonly number[]
  /** Padding before the first element. */
  readonly low: readonly number[]
  readonly groups: number
  /** Extents of space in the result: output of `conv`, input of `convInput`, kernel of `convWeight`. */
  readonly extents: readonly number[]
}

export const convAttrs = (node: Node): ConvAttrs => node.attrs as unknown as ConvAttrs

export const withExtents = (
  { stride, dilation, low, groups }: ConvAttrs,
  extents: readonly number[],
): ConvAttrs => ({ stride, dilation, low, groups, extents })

/** Extents of space of [batch, ...space, channels] and of [...kernel, channels, columns]. */
export const spaceOf = (shape: readonly number[]): readonly number[] => shape.slice(1, -1)
export const kernelOf = (shape: readonly number[]): readonly number[] => shape.slice(0, -2)

/** A convolution in numbers: the form above. */
export interface ConvGeometry extends ConvAttrs {
  readonly batch: number
  readonly source: readonly number[]
  readonly kernel: readonly number[]
  readonly target: readonly number[]
  /** All of them, not those of one group. */
  readonly channels: number
  readonly columns: number
}

/** What the operands of each op are, then its result. */
export const convRoles = {
  conv: ['x', 'w', 'y'],
  convInput: ['y', 'w', 'x'],
  convWeight: ['x', 'y', 'w'],
} as const satisfies Record<string, readonly ('x' | 'w' | 'y')[]>

export const rolesOf = (node: Node): readonly ['x' | 'w' | 'y', 'x' | 'w' | 'y', 'x' | 'w' | 'y'] =>
  convRoles[node.op.name as keyof typeof convRoles]

export function convGeometry(node: Node): ConvGeometry {
  const all = [...node.inputs, node]
  const shape = (role: 'x' | 'w' | 'y'): readonly number[] => all[rolesOf(node).indexOf(role)]!.shape
  const [x, w, y] = [shape('x'), shape('w'), shape('y')]
  return {
    ...convAttrs(node),
    batch: x[0]!,
    source: spaceOf(x),
    kernel: kernelOf(w),
    target: spaceOf(y),
    channels: x.at(-1)!,
    columns: y.at(-1)!,
  }
}

/** Pairs (position, tap) along one axis whose element of x exists. */
export function pairsAlong(geometry: ConvGeometry, axis: number): number {
  let pairs = 0
  for (let o = 0; o < geometry.target[axis]!; o++) {
    for (let k = 0; k < geometry.kernel[axis]!; k++) if (elementOf(geometry, axis, o, k) >= 0) pairs++
  }
  return pairs
}

/** Index in x along an axis, or -1 outside. */
function elementOf(
  { source, stride, dilation, low }: ConvGeometry,
  axis: number,
  o: number,
  k: number,
): number {
  const at = o * stride[axis]! + k * dilation[axis]! - low[axis]!
  return at < source[axis]! ? Math.max(at, -1) : -1
}

/** One multiplication and one addition for each term of the form: the same for the convolution and both gradients. */
export const convFlops = (node: Node): number => convGeometryFlops(convGeometry(node))

export function convGeometryFlops(geometry: ConvGeometry): number {
  const { batch, channels, columns, groups, kernel } = geometry
  const pairs = kernel.map((_, axis) => pairsAlong(geometry, axis))
  return 2 * batch * sizeOf(pairs) * (channels / groups) * columns
}

/** Visits the offsets in x, w and y of every term of the form. */
export function eachTerm(geometry: ConvGeometry, visit: (x: number, w: number, y: number) => void): void {
  const { batch, source, kernel, target, channels, columns, groups } = geometry
  const [inGroup, outGroup] = [channels / groups, columns / groups]
  const walk = (axis: number, x: number, w: number, y: number): void => {
    if (axis < kernel.length) {
      for (let o = 0; o < target[axis]!; o++) {
        for (let k = 0; k < kernel[axis]!; k++) {
          const at = elementOf(geometry, axis, o, k)
          if (at >= 0) walk(axis + 1, x * source[axis]! + at, w * kernel[axis]! + k, y * target[axis]! + o)
        }
      }
      return
    }
    for (let n = 0; n < columns; n++) {
      const first = Math.floor(n / outGroup) * inGroup
      for (let c = 0; c < inGroup; c++) {
        visit(x * channels + first + c, (w * inGroup + c) * columns + n, y * columns + n)
      }
    }
  }
  for (let b = 0; b < batch; b++) walk(0, b, 0, b)
}

/** The reference of the three: each term goes where the result's role says. Only a sum over the batch has leaves. */
export function convReference(node: Node, [a, b]: readonly Values[]): Values {
  const [left, right, result] = rolesOf(node)
  const geometry = convGeometry(node)
  return sumInLeaves(node, geometry.batch, (from, to) => {
    const part = (values: Values): Values =>
      values.subarray((values.length / geometry.batch) * from, (values.length / geometry.batch) * to)
    const [x0, x1] = leavesOf(node) === undefined ? [a!, b!] : [part(a!), part(b!)]
    const out = new Float64Array(sizeOf(node.shape))
    eachTerm({ ...geometry, batch: to - from }, (x, w, y) => {
      const at = { x, w, y }
      out[at[result]]! += x0[at[left]]! * x1[at[right]]!
    })
    return out
  })
}

/** Checks what the three have in common; `fits` are further conditions, each with what was expected. */
export function checkConv(
  name: string,
  [a, b]: readonly ValueType[],
  attrs: ConvAttrs,
  fits: readonly (readonly [holds: boolean, expected: string])[],
): void {
  const { stride, dilation, low, groups, extents } = attrs
  const rank = a!.shape.length - 2
  const shown = `${formatType(a!)} and ${formatType(b!)}`
  const lists = [stride, dilation, low, extents]
  const ownAttrs = `stride [${stride.join(', ')}], dilation [${dilation.join(', ')}], padding [${low.join(', ')}], groups ${groups}`
  const whole = (list: readonly number[], least: number): boolean =>
    list.every((n) => Number.isInteger(n) && n >= least)
  if (rank < 1 || b!.shape.length !== rank + 2) {
    throw typeError(
      name,
      shown,
      '[batch, ...space, channels] and as many axes on both sides',
      'reshape one side',
    )
  }
  if ([...a!.shape, ...b!.shape].includes(0))
    throw typeError(name, shown, 'no empty axis', 'check the extents')
  if (a!.dtype !== b!.dtype || (a!.dtype !== 'f32' && a!.dtype !== 'f64')) {
    throw typeError(name, shown, 'two operands of f32 or two of f64', 'cast one side')
  }
  if (
    lists.some((list) => list.length !== rank) ||
    !whole([...stride, ...dilation, ...extents, groups], 1) ||
    !whole(low, 0)
  ) {
    throw typeError(
      name,
      ownAttrs,
      `${rank} whole numbers each; strides, dilations and groups at least 1`,
      'check the options',
    )
  }
  for (const [holds, expected] of fits) {
    if (!holds) throw typeError(name, `${shown}, groups ${groups}`, expected, 'check channels and groups')
  }
}

/** Paired axes must not carry two names. */
export function sameName(name: string, what: string, a: AxisName, b: AxisName): void {
  if (a === null || b === null || a === b) return
  throw typeError(name, `'${a}' and '${b}'`, `${what} to carry one name`, 'rename one side')
}

/** The dimension map. Space stays whole (neighbours overlap), and so do channels that are in groups. */
export function convFactors(node: Node): Factors {
  const { groups, extents } = convAttrs(node)
  const space = extents.map(() => null)
  const [channel, column] = groups === 1 ? ['c', 'n'] : [null, null]
  const labels = { x: ['b', ...space, channel], w: [...space, channel, column], y: ['b', ...space, column] }
  const [a, b, result] = rolesOf(node)
  return { inputs: [labels[a], labels[b]], results: [labels[result]], reduce: 'sum' }
}

type SampleOf = (
  types: { x: ValueType; w: ValueType; y: ValueType },
  attrs: ConvAttrs,
  kernel: readonly number[],
) => Sample

export interface ConvShape {
  readonly batch: number
  readonly source: readonly number[]
  readonly kernel: readonly number[]
  readonly channels: number
  readonly columns: number
  readonly stride?: readonly number[]
  readonly dilation?: readonly number[]
  readonly low?: readonly number[]
  readonly high?: readonly number[]
  readonly groups?: number
}

/** Extent of the output along an axis. */
export const convExtent = (
  source: number,
  kernel: number,
  stride: number,
  dilation: number,
  padding: number,
): number => Math.floor((source + padding - (kernel - 1) * dilation - 1) / stride) + 1

/** Types and attributes of a convolution for tests, in f64. `extents` are those of the output. */
export function convTypes(shape: ConvShape): { x: ValueType; w: ValueType; y: ValueType; attrs: ConvAttrs } {
  const { batch, source, kernel, channels, columns, groups = 1 } = shape
  const ones = source.map(() => 1)
  const zeros = source.map(() => 0)
  const { stride = ones, dilation = ones, low = zeros, high = zeros } = shape
  const extents = source.map((extent, i) =>
    convExtent(extent, kernel[i]!, stride[i]!, dilation[i]!, low[i]! + high[i]!),
  )
  return {
    x: valueType('f64', [batch, ...source, channels]),
    w: valueType('f64', [...kernel, channels / groups, columns]),
    y: valueType('f64', [batch, ...extents, columns]),
    attrs: { stride, dilation, low, groups, extents },
  }
}

/** Samples of the three ops: 1 to 3 axes of space, odd sizes, every option, and rows of more than one register tile. */
export const convSamples = (make: SampleOf): Sample[] =>
  shapes.map((shape) => {
    const { attrs, ...types } = convTypes(shape)
    return make(types, attrs, shape.kernel)
  })

const shapes: readonly ConvShape[] = [
  { batch: 2, source: [7], kernel: [3], channels: 2, columns: 3 },
  { batch: 1, source: [9], kernel: [2], channels: 3, columns: 2, stride: [3], low: [1], high: [2] },
  { batch: 1, source: [8], kernel: [3], channels: 2, columns: 2, dilation: [2], low: [4] },
  { batch: 2, source: [5, 4], kernel: [3, 3], channels: 3, columns: 4, low: [1, 1], high: [1, 1] },
  {
    batch: 1,
    source: [6, 5],
    kernel: [3, 2],
    channels: 4,
    columns: 6,
    groups: 2,
    stride: [2, 1],
    high: [1, 0],
  },
  {
    batch: 1,
    source: [5, 7],
    kernel: [2, 3],
    channels: 2,
    columns: 2,
    stride: [2, 3],
    dilation: [1, 2],
    low: [0, 3],
    high: [2, 1],
  },
  { batch: 1, source: [4, 4], kernel: [1, 1], channels: 3, columns: 2, stride: [2, 2] },
  {
    batch: 1,
    source: [3, 4, 3],
    kernel: [3, 3, 3],
    channels: 2,
    columns: 2,
    low: [2, 1, 1],
    high: [0, 1, 1],
  },
  {
    batch: 2,
    source: [3, 3, 4],
    kernel: [3, 1, 1],
    channels: 2,
    columns: 3,
    low: [1, 0, 0],
    high: [1, 0, 0],
  },
  {
    batch: 1,
    source: [4, 3, 5],
    kernel: [2, 2, 2],
    channels: 3,
    columns: 3,
    groups: 3,
    stride: [1, 2, 2],
    dilation: [3, 1, 1],
    low: [1, 1, 0],
    high: [1, 0, 1],
  },
]
