/** 0, 1, 2, … along one axis: positions, masks and one-hot comparisons are made from it. */
import type { Node } from '../graph/node.ts'
import type { Op } from '../graph/op.ts'
import { sizeOf, stridesOf, valueType, type AxisName, type DType, type ValueType } from '../graph/types.ts'
import { apply } from './elementwise.ts'

export const iotaOp: Op = {
  name: 'iota',
  doc: 'index along one axis',
  kind: 'leaf',
  infer: (_, attrs) => [
    valueType(attrs['dtype'] as DType, attrs['shape'] as number[], attrs['axes'] as AxisName[]),
  ],
  gradient: () => [],
  // The counted axis is global: a shard must know its offset, so it stays whole.
  factors: (node) => ({
    inputs: [],
    results: [node.shape.map((_, i) => (i === node.attrs['axis'] ? null : `d${i}`))],
  }),
  flops: () => 0,
  reference(node) {
    const axis = node.attrs['axis'] as number
    const stride = stridesOf(node.shape)[axis]!
    const extent = node.shape[axis]!
    return Float64Array.from({ length: sizeOf(node.shape) }, (_, i) => Math.floor(i / stride) % extent)
  },
  samples: () => [
    { inputs: [], attrs: { dtype: 'i32', shape: [5], axes: [null], axis: 0 } },
    { inputs: [], attrs: { dtype: 'f32', shape: [2, 3, 4], axes: [null, null, null], axis: 1 } },
  ],
}

export const iota = (type: ValueType, axis: number): Node =>
  apply(iotaOp, [], { dtype: type.dtype, shape: [...type.shape], axes: [...type.axes], axis })
