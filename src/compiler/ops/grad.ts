/**
 * The gradient of a scalar with respect to values, as a node: `grad(loss, …wrt)` has one result per wrt. It is a
 * promise that the gradient pass redeems, so that policies (recompute, precision) can still act before it does.
 */
import type { Node } from '../graph/node.ts'
import type { Op } from '../graph/op.ts'
import { formatType, isFloat, typeError } from '../graph/types.ts'
import { apply } from './elementwise.ts'

export const gradOp: Op = {
  name: 'grad',
  doc: 'gradient of a scalar, expanded by the gradient pass',
  kind: 'structure',
  infer([loss, ...wrt]) {
    if (loss!.shape.length > 0 || !isFloat(loss!.dtype)) {
      throw typeError(
        'grad',
        formatType(loss!),
        'a float scalar to differentiate',
        'reduce it with sum() or mean()',
      )
    }
    const other = wrt.find((type) => !isFloat(type.dtype))
    if (other) throw typeError('grad', formatType(other), 'float values to differentiate by', 'cast it first')
    return wrt
  },
  factors: (node) => ({ inputs: [], results: node.types.map((type) => type.shape.map(() => null)) }),
  flops: () => 0,
  samples: () => [],
}

export const grad = (loss: Node, wrt: readonly Node[]): Node => apply(gradOp, [loss, ...wrt])
