/** Surrounds a tensor with zeros: the transpose of `slice`. */
import type { Node } from '../graph/node.ts'
import type { Op } from '../graph/op.ts'
import { formatType, stridesOf, typeError, valueType } from '../graph/types.ts'
import { apply } from './elementwise.ts'
import { remap } from './movement.ts'
import { slice } from './slice.ts'

export const padOp: Op = {
  name: 'pad',
  doc: 'surround with zeros',
  kind: 'movement',
  infer([x], attrs) {
    const low = attrs['low'] as number[]
    const high = attrs['high'] as number[]
    if (
      low.length !== x!.shape.length ||
      high.length !== low.length ||
      [...low, ...high].some((n) => n < 0)
    ) {
      throw typeError(
        'pad',
        `low [${low.join(', ')}], high [${high.join(', ')}] of ${formatType(x!)}`,
        'one count per axis, none negative',
        'use slice to crop',
      )
    }
    return [
      valueType(
        x!.dtype,
        x!.shape.map((extent, i) => extent + low[i]! + high[i]!),
        x!.axes,
      ),
    ]
  },
  gradient: (node, [g]) => [slice(g!, node.attrs['low'] as number[], node.inputs[0]!.shape)],
  factors(node) {
    const labels = node.shape.map((extent, i) => (extent === node.inputs[0]!.shape[i] ? `d${i}` : null))
    return { inputs: [labels], results: [labels] }
  },
  flops: () => 0,
  reference(node, [x]) {
    const { shape } = node.inputs[0]!
    const strides = stridesOf(shape)
    const low = node.attrs['low'] as number[]
    return remap(node.shape, x!, (index) => {
      let at = 0
      for (let axis = 0; axis < shape.length; axis++) {
        const i = index[axis]! - low[axis]!
        if (i < 0 || i >= shape[axis]!) return -1
        at += i * strides[axis]!
      }
      return at
    })
  },
  samples: () => [
    { inputs: [valueType('f64', [3])], attrs: { low: [2], high: [1] } },
    { inputs: [valueType('f64', [2, 3])], attrs: { low: [0, 1], high: [0, 2] } },
    { inputs: [valueType('f64', [2, 3, 2])], attrs: { low: [1, 0, 0], high: [0, 0, 3] } },
  ],
}

export const pad = (x: Node, low: readonly number[], high: readonly number[]): Node =>
  low.every((n) => n === 0) && high.every((n) => n === 0)
    ? x
    : apply(padOp, [x], { low: [...low], high: [...high] })
