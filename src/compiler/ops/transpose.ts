/** Reorders axes: result axis i is input axis `permutation[i]`. */
import type { Node } from '../graph/node.ts'
import type { Op } from '../graph/op.ts'
import { formatType, stridesOf, typeError, valueType } from '../graph/types.ts'
import { apply } from './elementwise.ts'
import { remap } from './movement.ts'

export const permutationOf = (node: Node): readonly number[] => node.attrs['permutation'] as number[]

export const transposeOp: Op = {
  name: 'transpose',
  doc: 'reorder axes',
  kind: 'movement',
  infer([x], attrs) {
    const permutation = attrs['permutation'] as number[]
    if (
      permutation.toSorted((a, b) => a - b).some((axis, i) => axis !== i) ||
      permutation.length !== x!.shape.length
    ) {
      throw typeError(
        'transpose',
        `axes [${permutation.join(', ')}] of ${formatType(x!)}`,
        'each axis once',
        'check the order',
      )
    }
    return [
      valueType(
        x!.dtype,
        permutation.map((i) => x!.shape[i]!),
        permutation.map((i) => x!.axes[i]!),
      ),
    ]
  },
  gradient(node, [g]) {
    const back: number[] = []
    permutationOf(node).forEach((axis, i) => (back[axis] = i))
    return [transpose(g!, back)]
  },
  factors(node) {
    const labels = node.inputs[0]!.shape.map((_, i) => `d${i}`)
    return { inputs: [labels], results: [permutationOf(node).map((i) => labels[i]!)] }
  },
  flops: () => 0,
  reference(node, [x]) {
    const strides = stridesOf(node.inputs[0]!.shape)
    const permutation = permutationOf(node)
    return remap(node.shape, x!, (index) =>
      permutation.reduce((at, axis, i) => at + index[i]! * strides[axis]!, 0),
    )
  },
  samples: () => [
    { inputs: [valueType('f64', [3, 4])], attrs: { permutation: [1, 0] } },
    { inputs: [valueType('f64', [2, 3, 4])], attrs: { permutation: [2, 0, 1] } },
    { inputs: [valueType('f64', [2, 3, 2, 5])], attrs: { permutation: [0, 2, 1, 3] } },
  ],
}

export const transpose = (x: Node, permutation: readonly number[]): Node =>
  permutation.every((axis, i) => axis === i) ? x : apply(transposeOp, [x], { permutation: [...permutation] })
