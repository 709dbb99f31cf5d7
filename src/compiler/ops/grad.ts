/**
 * The gradient of a scalar with respect to values, as a node: `grad(loss, …wrt)` has one result per wrt. It is a
 * promise that the gradient pass redeems, so that policies (recompute, precision) can still act before it does.
 *
 * `pullback` takes several outputs of any shape, and what is to be carried back from them. Those cotangents are constant,
 * even where they come from the outputs: a pipeline stage's come from the stage after it.
 */
import { InternalError } from '../../errors.ts'
import type { Node } from '../graph/node.ts'
import type { Op } from '../graph/op.ts'
import { formatType, isFloat, sameShape, typeError } from '../graph/types.ts'
import { apply } from './elementwise.ts'

export const gradOp: Op = {
  name: 'grad',
  doc: 'gradient of a scalar, expanded by the gradient pass',
  kind: 'structure',
  infer(inputs, { outputs }) {
    const count = outputs as number | undefined
    const wrt = inputs.slice(count === undefined ? 1 : 2 * count)
    const other = wrt.find((type) => !isFloat(type.dtype))
    if (other) throw typeError('grad', formatType(other), 'float values to differentiate by', 'cast it first')
    if (count === undefined) {
      const [loss] = inputs
      if (loss!.shape.length > 0 || !isFloat(loss!.dtype)) {
        throw typeError(
          'grad',
          formatType(loss!),
          'a float scalar to differentiate',
          'reduce it with sum() or mean()',
        )
      }
    }
    for (let i = 0; i < (count ?? 0); i++) {
      const [output, cotangent] = [inputs[i]!, inputs[count! + i]!]
      if (output.dtype === cotangent.dtype && sameShape(output.shape, cotangent.shape)) continue
      throw new InternalError(`pullback of ${formatType(output)} from ${formatType(cotangent)}`)
    }
    return wrt
  },
  factors: (node) => ({ inputs: [], results: node.types.map((type) => type.shape.map(() => null)) }),
  flops: () => 0,
  samples: () => [],
}

export const grad = (loss: Node, wrt: readonly Node[]): Node => apply(gradOp, [loss, ...wrt])

/** Cotangents of `wrt` from those of the outputs. */
export const pullback = (outputs: readonly Node[], cotangents: readonly Node[], wrt: readonly Node[]): Node =>
  apply(gradOp, [...outputs, ...cotangents, ...wrt], { outputs: outputs.length })

/** What a gradient is of, what is carried back from there (null: one), and with respect to what. */
export function gradParts({ inputs, attrs }: Pick<Node, 'inputs' | 'attrs'>): {
  readonly outputs: readonly Node[]
  readonly cotangents: readonly Node[] | null
  readonly wrt: readonly Node[]
} {
  const count = attrs['outputs'] as number | undefined
  if (count === undefined) return { outputs: inputs.slice(0, 1), cotangents: null, wrt: inputs.slice(1) }
  return {
    outputs: inputs.slice(0, count),
    cotangents: inputs.slice(count, 2 * count),
    wrt: inputs.slice(2 * count),
  }
}
