/** A box of a tensor: from `start[i]` for as many elements as the result has. */
import type { Node } from '../graph/node.ts'
import type { Op } from '../graph/op.ts'
import { formatType, sameShape, stridesOf, typeError, valueType } from '../graph/types.ts'
import { apply } from './elementwise.ts'
import { remap } from './movement.ts'
import { pad } from './pad.ts'

export const startOf = (node: Node): readonly number[] => node.attrs['start'] as number[]

export const sliceOp: Op = {
  name: 'slice',
  doc: 'a box of a tensor',
  kind: 'movement',
  infer([x], attrs) {
    const start = attrs['start'] as number[]
    const size = attrs['size'] as number[]
    const inside =
      start.length === x!.shape.length &&
      size.length === start.length &&
      start.every((at, i) => at >= 0 && size[i]! >= 0 && at + size[i]! <= x!.shape[i]!)
    if (!inside) {
      throw typeError(
        'slice',
        `start [${start.join(', ')}], size [${size.join(', ')}] of ${formatType(x!)}`,
        'a box inside the tensor',
        'check start and size',
      )
    }
    return [valueType(x!.dtype, size, x!.axes)]
  },
  gradient(node, [g]) {
    const x = node.inputs[0]!
    const start = startOf(node)
    return [
      pad(
        g!,
        start,
        x.shape.map((extent, i) => extent - start[i]! - node.shape[i]!),
      ),
    ]
  },
  factors(node) {
    const x = node.inputs[0]!
    const labels = node.shape.map((extent, i) => (extent === x.shape[i] ? `d${i}` : null))
    return { inputs: [labels], results: [labels] }
  },
  flops: () => 0,
  reference(node, [x]) {
    const strides = stridesOf(node.inputs[0]!.shape)
    const start = startOf(node)
    return remap(node.shape, x!, (index) =>
      index.reduce((at, i, axis) => at + (i + start[axis]!) * strides[axis]!, 0),
    )
  },
  samples: () => [
    { inputs: [valueType('f64', [7])], attrs: { start: [2], size: [4] } },
    { inputs: [valueType('f64', [3, 5])], attrs: { start: [0, 1], size: [3, 3] } },
    { inputs: [valueType('f64', [4, 2, 3])], attrs: { start: [1, 0, 2], size: [2, 2, 1] } },
  ],
}

export const slice = (x: Node, start: readonly number[], size: readonly number[]): Node =>
  sameShape(x.shape, size) ? x : apply(sliceOp, [x], { start: [...start], size: [...size] })
