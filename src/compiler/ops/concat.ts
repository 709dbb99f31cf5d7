/** Joins tensors along one axis. */
import type { Node } from '../graph/node.ts'
import type { Op } from '../graph/op.ts'
import { formatType, mergeAxes, sizeOf, typeError, valueType } from '../graph/types.ts'
import { apply } from './elementwise.ts'
import { slice } from './slice.ts'

export const concatAxis = (node: Node): number => node.attrs['axis'] as number

export const concatOp: Op = {
  name: 'concat',
  doc: 'join along one axis',
  kind: 'movement',
  infer(inputs, attrs) {
    const axis = attrs['axis'] as number
    const first = inputs[0]!
    const fits = inputs.every(
      (type) =>
        type.dtype === first.dtype &&
        type.shape.length === first.shape.length &&
        type.shape.every((extent, i) => i === axis || extent === first.shape[i]),
    )
    if (!fits || axis < 0 || axis >= first.shape.length) {
      throw typeError(
        'concat',
        inputs.map(formatType).join(', '),
        `tensors that differ along axis ${axis} only`,
        'check shapes and dtypes',
      )
    }
    const shape = first.shape.map((extent, i) =>
      i === axis ? inputs.reduce((total, type) => total + type.shape[axis]!, 0) : extent,
    )
    const axes = inputs.reduce((a, b) => valueType(a.dtype, a.shape, mergeAxes('concat', a, b))).axes
    return [valueType(first.dtype, shape, axes)]
  },
  gradient(node, [g]) {
    const axis = concatAxis(node)
    let at = 0
    return node.inputs.map((input) => {
      const start = node.shape.map((_, i) => (i === axis ? at : 0))
      at += input.shape[axis]!
      return slice(g!, start, input.shape)
    })
  },
  factors(node) {
    const labels = node.shape.map((_, i) => (i === concatAxis(node) ? null : `d${i}`))
    return { inputs: node.inputs.map(() => labels), results: [labels] }
  },
  flops: () => 0,
  reference(node, inputs) {
    const axis = concatAxis(node)
    const out = new Float64Array(sizeOf(node.shape))
    const rows = sizeOf(node.shape.slice(0, axis))
    const width = out.length / rows
    let at = 0
    inputs.forEach((x) => {
      const mine = x.length / rows
      for (let row = 0; row < rows; row++) out.set(x.subarray(row * mine, (row + 1) * mine), row * width + at)
      at += mine
    })
    return out
  },
  samples: () => [
    { inputs: [valueType('f64', [2]), valueType('f64', [3])], attrs: { axis: 0 } },
    {
      inputs: [valueType('f64', [2, 3]), valueType('f64', [2, 1]), valueType('f64', [2, 4])],
      attrs: { axis: 1 },
    },
    { inputs: [valueType('f64', [2, 2, 3]), valueType('f64', [2, 1, 3])], attrs: { axis: 1 } },
  ],
}

export const concat = (inputs: readonly Node[], axis: number): Node =>
  inputs.length === 1 ? inputs[0]! : apply(concatOp, inputs, { axis })
