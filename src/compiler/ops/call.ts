/**
 * A composite operation: a name, options and a body. The body is its meaning and its test oracle; a target may claim
 * the name and run a kernel of its own instead. Everything not claimed is replaced by its body.
 */
import { Func, type Attrs, type AttrValue, type Node } from '../graph/node.ts'
import type { Op } from '../graph/op.ts'
import { formatType, sameShape, typeError } from '../graph/types.ts'
import { flopsOf } from './cost.ts'
import { apply } from './elementwise.ts'

export const callOp: Op = {
  name: 'call',
  doc: 'composite operation with a body that is its meaning',
  kind: 'structure',
  infer(inputs, attrs) {
    const body = attrs['body'] as Func
    body.params.forEach((param, i) => {
      const given = inputs[i]
      if (!given || given.dtype !== param.dtype || !sameShape(given.shape, param.shape)) {
        throw typeError(
          String(attrs['composite']),
          given ? formatType(given) : 'nothing',
          `${formatType(param.type)} as input ${i}`,
          'check the call',
        )
      }
    })
    return body.results.map((result) => result.type)
  },
  factors: (node) => ({
    inputs: node.inputs.map((input) => input.shape.map(() => null)),
    results: node.types.map((type) => type.shape.map(() => null)),
  }),
  flops: (node) => (node.attrs['flops'] as number | null) ?? flopsOf(node.attrs['body'] as Func),
  samples: () => [],
}

export const compositeName = (node: Node): string => String(node.attrs['composite'])
export const optionsOf = (node: Node): Attrs => node.attrs['options'] as Attrs

/** `flops`: the count of the algorithm where a kernel may do less than the body (causal attention); null: the body's. */
export function call(
  composite: string,
  inputs: readonly Node[],
  options: Attrs,
  body: Func,
  flops: number | null,
): Node {
  return apply(callOp, inputs, { composite, options: options as AttrValue, flops, body })
}
