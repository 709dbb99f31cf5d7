/** Repeats a tensor along new or size-1 axes. `dims[i]` is the result axis that input axis i becomes. */
import type { Node } from '../graph/node.ts'
import type { Op } from '../graph/op.ts'
import { formatType, sameShape, stridesOf, typeError, valueType, type AxisName } from '../graph/types.ts'
import { apply } from './elementwise.ts'
import { remap } from './movement.ts'
import { reshape } from './reshape.ts'
import { sum } from './sum.ts'

const dimsOf = (node: Node): readonly number[] => node.attrs['dims'] as number[]

export const broadcastOp: Op = {
  name: 'broadcast',
  doc: 'repeat along new or size-1 axes',
  kind: 'movement',
  infer([x], attrs) {
    const shape = attrs['shape'] as number[]
    const dims = attrs['dims'] as number[]
    const fits =
      dims.length === x!.shape.length &&
      dims.every(
        (axis, i) => (i === 0 || axis > dims[i - 1]!) && (x!.shape[i] === 1 || x!.shape[i] === shape[axis]),
      )
    if (!fits) {
      throw typeError(
        'broadcast',
        `${formatType(x!)} to [${shape.join(', ')}] by axes [${dims.join(', ')}]`,
        'each input axis to be 1 or its result axis',
        'reshape first',
      )
    }
    const given = attrs['axes'] as AxisName[]
    const axes = shape.map((_, axis) => given[axis] ?? x!.axes[dims.indexOf(axis)] ?? null)
    return [valueType(x!.dtype, shape, axes)]
  },
  gradient(node, [g]) {
    const x = node.inputs[0]!
    const dims = dimsOf(node)
    const repeated = node.shape
      .map((_, i) => i)
      .filter((axis) => {
        const from = dims.indexOf(axis)
        return from < 0 || (x.shape[from] === 1 && node.shape[axis] !== 1)
      })
    return [reshape(sum(g!, repeated), x.shape, x.axes)]
  },
  factors(node) {
    const x = node.inputs[0]!
    const dims = dimsOf(node)
    const labels = node.shape.map((_, i) => `d${i}`)
    const mine = x.shape.map((extent, i) => (extent === node.shape[dims[i]!] ? labels[dims[i]!]! : null))
    return { inputs: [mine], results: [labels] }
  },
  flops: () => 0,
  reference(node, [x]) {
    const input = node.inputs[0]!
    const dims = dimsOf(node)
    const strides = stridesOf(input.shape).map((stride, i) => (input.shape[i] === 1 ? 0 : stride))
    return remap(node.shape, x!, (index) => dims.reduce((at, axis, i) => at + index[axis]! * strides[i]!, 0))
  },
  samples: () => [
    { inputs: [valueType('f64', [])], attrs: { shape: [3], dims: [], axes: [null] } },
    { inputs: [valueType('f64', [3])], attrs: { shape: [2, 3], dims: [1], axes: [null, null] } },
    { inputs: [valueType('f64', [2])], attrs: { shape: [2, 3], dims: [0], axes: [null, null] } },
    {
      inputs: [valueType('f64', [2, 1])],
      attrs: { shape: [2, 4, 3], dims: [0, 2], axes: [null, null, null] },
    },
  ],
}

/** Default `dims`: aligned at the last axis, as in NumPy. */
export function broadcast(
  x: Node,
  shape: readonly number[],
  dims: readonly number[] = x.shape.map((_, i) => shape.length - x.shape.length + i),
  axes: readonly AxisName[] = shape.map(() => null),
): Node {
  if (sameShape(x.shape, shape)) return x
  return apply(broadcastOp, [x], { shape: [...shape], dims: [...dims], axes: [...axes] })
}
