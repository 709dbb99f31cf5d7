/**
 * A product as 8-bit tensor cores compute it, emulated: forward, both operands are quantised to e4m3; backward, the
 * cotangent to e5m2 and the other operand to e4m3; the products themselves, and their sums, are those of the type that
 * the operands came in (f32). Each of the three products quantises along its own contracted axes.
 */
import type { Fp8Name } from '../graph/fp8.ts'
import type { Node } from '../graph/node.ts'
import { valueType } from '../graph/types.ts'
import { optionsOf } from '../ops/call.ts'
import { dot, dotCotangents, type DotAxes } from '../ops/dot.ts'
import { Tensor } from '../trace/tensor.ts'
import { invoke, type Composite } from './composite.ts'
import { quantise, type QuantiseGroups } from './quantise.ts'

/** How scales are shared: `block` is 1x128 for activations and gradients, 128x128 for weights (DeepSeek-V3). */
export const fp8Scalings = ['tensor', 'row', 'block', 'mx'] as const
export type Fp8Scaling = (typeof fp8Scalings)[number]

/** Groups of an operand; the second operand of a product is taken for the weight. */
const groupsOf: Readonly<Record<Fp8Scaling, { data: QuantiseGroups; weight: QuantiseGroups }>> = {
  tensor: { data: 'tensor', weight: 'tensor' },
  row: { data: 'row', weight: 'row' },
  block: { data: '1x128', weight: '128x128' },
  mx: { data: 'mx32', weight: 'mx32' },
}

type Options = DotAxes & { readonly scaling: Fp8Scaling }

export const dotFp8Composite: Composite = {
  name: 'dotFp8',
  doc: 'product of operands quantised to e4m3; backward with cotangents in e5m2',
  body([a, b], options) {
    const { scaling, ...axes } = options as unknown as Options
    const { data, weight } = groupsOf[scaling]
    return [new Tensor(product(a!.node, b!.node, axes, ['e4m3', 'e4m3'], [data, weight]))]
  },
  gradient(node, [g]) {
    if (!g) return [null, null]
    const [a, b] = node.inputs as [Node, Node]
    const { scaling, ...axes } = optionsOf(node) as unknown as Options
    const { data, weight } = groupsOf[scaling]
    return dotCotangents(a, b, axes, g, (x, y, axes, of) =>
      of === 'a'
        ? product(x, y, axes, ['e5m2', 'e4m3'], [data, weight])
        : product(x, y, axes, ['e4m3', 'e5m2'], [data, data]),
    )
  },
  samples: () =>
    fp8Scalings.map((scaling) => ({
      inputs: [valueType('f64', [5, 36]), valueType('f64', [36, 3])],
      options: { aBatch: [], bBatch: [], aContract: [1], bContract: [0], scaling },
    })),
}

function product(
  a: Node,
  b: Node,
  axes: DotAxes,
  formats: readonly [Fp8Name, Fp8Name],
  groups: readonly [QuantiseGroups, QuantiseGroups],
): Node {
  const small = (x: Node, i: 0 | 1, along: readonly number[]): Node =>
    quantise(new Tensor(x), { format: formats[i], groups: groups[i], along }).node
  return dot(small(a, 0, axes.aContract), small(b, 1, axes.bContract), axes)
}

export const dotFp8 = (a: Node, b: Node, axes: DotAxes, scaling: Fp8Scaling): Node =>
  invoke(dotFp8Composite, [new Tensor(a), new Tensor(b)], {
    aBatch: [...axes.aBatch],
    bBatch: [...axes.bBatch],
    aContract: [...axes.aContract],
    bContract: [...axes.bContract],
    scaling,
  })[0]!.node
