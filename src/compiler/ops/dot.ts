/**
 * Product with contraction: matrix product, batched or not, over any axes (an einsum of two operands). Result axes are
 * the batch axes, then what is left of a, then what is left of b. Costs one multiplication and one addition for every
 * (result, contracted) pair. bf16 and f16 operands are accumulated in f32.
 */
import type { Node } from '../graph/node.ts'
import type { Op } from '../graph/op.ts'
import { formatType, isFloat, isHalf, sizeOf, stridesOf, typeError, valueType } from '../graph/types.ts'
import type { DType, ValueType } from '../graph/types.ts'
import { cast as castTo } from './cast.ts'
import { apply } from './elementwise.ts'
import { sumInLeaves } from './leaves.ts'
import { transpose } from './transpose.ts'

export interface DotAxes {
  readonly aBatch: readonly number[]
  readonly bBatch: readonly number[]
  readonly aContract: readonly number[]
  readonly bContract: readonly number[]
}

export const dotAxes = (node: Node): DotAxes => node.attrs as unknown as DotAxes

/** Axes of an operand that are neither batch nor contracted. */
export const freeAxes = (
  shape: readonly number[],
  batch: readonly number[],
  contract: readonly number[],
): number[] => shape.map((_, i) => i).filter((i) => !batch.includes(i) && !contract.includes(i))

export const dotOp: Op = {
  name: 'dot',
  doc: 'product of two tensors, contracted over any axes',
  kind: 'product',
  infer([a, b], attrs) {
    const { aBatch, bBatch, aContract, bContract } = attrs as unknown as DotAxes
    const shown = (): string => `${formatType(a!)} and ${formatType(b!)}`
    if (a!.dtype !== b!.dtype || !isFloat(a!.dtype)) {
      throw typeError('dot', shown(), 'two operands of one float type', 'cast one side')
    }
    const pairs = [
      ...aBatch.map((axis, i) => [axis, bBatch[i]!] as const),
      ...aContract.map((axis, i) => [axis, bContract[i]!] as const),
    ]
    for (const [i, j] of pairs) {
      if (a!.shape[i] !== b!.shape[j]) {
        throw typeError(
          'dot',
          shown(),
          `axis ${i} of a and axis ${j} of b to have one extent`,
          'check the contracted axes',
        )
      }
      const [x, y] = [a!.axes[i], b!.axes[j]]
      if (x !== null && y !== null && x !== y) {
        throw typeError(
          'dot',
          shown(),
          `paired axes to carry one name, not '${x}' and '${y}'`,
          'rename one side',
        )
      }
    }
    const pick = (type: ValueType, axes: readonly number[]): [number[], (string | null)[]] => [
      axes.map((i) => type.shape[i]!),
      axes.map((i) => type.axes[i]!),
    ]
    const parts = [
      pick(a!, aBatch),
      pick(a!, freeAxes(a!.shape, aBatch, aContract)),
      pick(b!, freeAxes(b!.shape, bBatch, bContract)),
    ]
    return [
      valueType(
        accumulated(a!.dtype),
        parts.flatMap(([shape]) => shape),
        parts.flatMap(([, axes]) => axes),
      ),
    ]
  },
  gradient: (node, [g]) => dotCotangents(node.inputs[0]!, node.inputs[1]!, dotAxes(node), g!),
  factors(node) {
    const [a, b] = node.inputs as [Node, Node]
    const { aBatch, bBatch, aContract, bContract } = dotAxes(node)
    const aLabels = a.shape.map((_, i) => `a${i}`)
    const bLabels = b.shape.map((_, i) => `b${i}`)
    bBatch.forEach((axis, i) => (bLabels[axis] = aLabels[aBatch[i]!]!))
    bContract.forEach((axis, i) => (bLabels[axis] = aLabels[aContract[i]!]!))
    const result = [
      ...aBatch.map((i) => aLabels[i]!),
      ...freeAxes(a.shape, aBatch, aContract).map((i) => aLabels[i]!),
      ...freeAxes(b.shape, bBatch, bContract).map((i) => bLabels[i]!),
    ]
    return { inputs: [aLabels, bLabels], results: [result], reduce: 'sum' }
  },
  flops(node) {
    const a = node.inputs[0]!
    return 2 * sizeOf(node.shape) * sizeOf(dotAxes(node).aContract.map((i) => a.shape[i]!))
  },
  reference(node, [a, b]) {
    const [x, y] = node.inputs as [Node, Node]
    const { aBatch, bBatch, aContract, bContract } = dotAxes(node)
    const offsets = (shape: readonly number[], axes: readonly number[]): number[] => {
      const strides = stridesOf(shape)
      let list = [0]
      for (const axis of axes) {
        list = list.flatMap((base) =>
          Array.from({ length: shape[axis]! }, (_, i) => base + i * strides[axis]!),
        )
      }
      return list
    }
    const [batchA, batchB] = [offsets(x.shape, aBatch), offsets(y.shape, bBatch)]
    const freeA = offsets(x.shape, freeAxes(x.shape, aBatch, aContract))
    const freeB = offsets(y.shape, freeAxes(y.shape, bBatch, bContract))
    const [inA, inB] = [offsets(x.shape, aContract), offsets(y.shape, bContract)]
    return sumInLeaves(node, inA.length, (from, to) => {
      const out = new Float64Array(sizeOf(node.shape))
      let at = 0
      for (let batch = 0; batch < batchA.length; batch++) {
        for (const i of freeA) {
          for (const j of freeB) {
            let total = 0
            const [baseA, baseB] = [batchA[batch]! + i, batchB[batch]! + j]
            for (let p = from; p < to; p++) total += a![baseA + inA[p]!]! * b![baseB + inB[p]!]!
            out[at++] = total
          }
        }
      }
      return out
    })
  },
  samples: () => {
    const axes = (aBatch: number[], bBatch: number[], aContract: number[], bContract: number[]) => ({
      aBatch,
      bBatch,
      aContract,
      bContract,
    })
    const f64 = (...shape: number[]): ValueType => valueType('f64', shape)
    return [
      { inputs: [f64(4, 3), f64(3, 5)], attrs: axes([], [], [1], [0]) },
      { inputs: [f64(3, 4), f64(5, 3)], attrs: axes([], [], [0], [1]) },
      { inputs: [f64(2, 4, 3), f64(2, 3, 5)], attrs: axes([0], [0], [2], [1]) },
      { inputs: [f64(2, 3, 4), f64(3, 5, 2)], attrs: axes([0], [2], [1], [0]) },
      { inputs: [f64(2, 3, 4), f64(4, 3, 5)], attrs: axes([], [], [1, 2], [1, 0]) },
      { inputs: [f64(6), f64(6)], attrs: axes([], [], [0], [0]) },
      { inputs: [f64(3), f64(2)], attrs: axes([], [], [], []) },
      { inputs: [f64(2, 3, 2, 4), f64(2, 5, 2, 4)], attrs: axes([0, 2], [0, 2], [3], [3]) },
      { inputs: [f64(17, 33), f64(33, 50)], attrs: axes([], [], [1], [0]) },
      { inputs: [f64(8, 3, 2), f64(8, 3, 5)], attrs: { ...axes([], [], [0, 1], [0, 1]), leaves: 4 } },
      { inputs: [f64(2, 3, 4), f64(2, 4, 5)], attrs: { ...axes([0], [0], [2], [1]), leaves: 2 } },
    ]
  },
}

/**
 * Cotangents of both operands from that of the product. da = g . b over b's free axes; db = a . g over a's: then the axes
 * go back to where the operand had them. `multiply` makes each of the two products; `of` says whose cotangent it is.
 */
export function dotCotangents(
  a: Node,
  b: Node,
  axes: DotAxes,
  g: Node,
  multiply: (x: Node, y: Node, axes: DotAxes, of: 'a' | 'b') => Node = dot,
): [Node, Node] {
  const { aBatch, bBatch, aContract, bContract } = axes
  const aFree = freeAxes(a.shape, aBatch, aContract)
  const bFree = freeAxes(b.shape, bBatch, bContract)
  const batch = aBatch.map((_, i) => i)
  const gFreeA = aFree.map((_, i) => batch.length + i)
  const gFreeB = bFree.map((_, i) => batch.length + aFree.length + i)
  const cotangent = g.dtype === a.dtype ? g : castTo(g, a.dtype)
  const da = multiply(cotangent, b, { aBatch: batch, bBatch, aContract: gFreeB, bContract: bFree }, 'a')
  const db = multiply(a, cotangent, { aBatch, bBatch: batch, aContract: aFree, bContract: gFreeA }, 'b')
  // Contracted axes come out in the order in which the *other* operand stores them.
  const byOther = (own: readonly number[], other: readonly number[]): number[] =>
    other
      .map((_, i) => i)
      .toSorted((i, j) => other[i]! - other[j]!)
      .map((i) => own[i]!)
  const daAxes = [...aBatch, ...aFree, ...byOther(aContract, bContract)]
  const dbAxes = [...bBatch, ...byOther(bContract, aContract), ...bFree]
  return [castTo(transpose(da, inverse(daAxes)), a.dtype), castTo(transpose(db, inverse(dbAxes)), b.dtype)]
}

const accumulated = (dtype: DType): DType => (isHalf(dtype) ? 'f32' : dtype)

function inverse(permutation: readonly number[]): number[] {
  const out: number[] = []
  permutation.forEach((axis, i) => (out[axis] = i))
  return out
}

export const dot = (a: Node, b: Node, axes: DotAxes): Node =>
  apply(dotOp, [a, b], {
    aBatch: [...axes.aBatch],
    bBatch: [...axes.bBatch],
    aContract: [...axes.aContract],
    bContract: [...axes.bContract],
  })
