/**
 * Uniform numbers in [0, 1) from the counter-based generator Philox4x32-10 (Salmon et al., Parallel Random Numbers: As
 * Easy as 1, 2, 3). Element i depends only on (seed, step, salt, stream, i), where i is the *global* element index: a
 * mask is the same under every sharding and there is no generator state to checkpoint.
 */
import type { Node } from '../graph/node.ts'
import type { Op } from '../graph/op.ts'
import { philoxUniform } from '../graph/philox.ts'
import { formatType, sizeOf, typeError, valueType, type AxisName, type ValueType } from '../graph/types.ts'
import { apply } from './elementwise.ts'

export const randomOp: Op = {
  name: 'random',
  doc: 'uniform [0, 1) from Philox4x32-10, addressed by element',
  kind: 'leaf',
  infer(inputs, attrs) {
    if (inputs.length !== 3 || inputs.some((type) => type.dtype !== 'i32' || type.shape.length > 0)) {
      throw typeError(
        'random',
        inputs.map(formatType).join(', '),
        'three i32 scalars: seed, step, salt',
        'cast them to i32',
      )
    }
    return [valueType('f32', attrs['shape'] as number[], attrs['axes'] as AxisName[])]
  },
  gradient: () => [null, null, null],
  factors: (node) => ({ inputs: [[], [], []], results: [node.shape.map(() => null)] }),
  flops: () => 0,
  reference(node, [seed, step, salt]) {
    const stream = node.attrs['stream'] as number
    return Float64Array.from({ length: sizeOf(node.shape) }, (_, i) =>
      philoxUniform({ seed: seed![0]!, step: step![0]!, stream, salt: salt![0]! }, i),
    )
  },
  samples: () => [
    {
      inputs: [valueType('i32', []), valueType('i32', []), valueType('i32', [])],
      attrs: { stream: 7, shape: [3, 5], axes: [null, null] },
      ranges: [
        [0, 1000],
        [0, 1000],
        [0, 12],
      ],
    },
  ],
}

/** `key` = [seed, step, salt] i32 scalars; `stream` names the use (two uses must differ). */
export const random = (key: readonly [Node, Node, Node], stream: number, type: ValueType): Node =>
  apply(randomOp, key, { stream, shape: [...type.shape], axes: [...type.axes] })
