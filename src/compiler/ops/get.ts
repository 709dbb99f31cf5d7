/** One result of an operation that has several. */
import type { Node } from '../graph/node.ts'
import type { Op } from '../graph/op.ts'
import { typeError } from '../graph/types.ts'
import { apply } from './elementwise.ts'

export const getOp: Op = {
  name: 'get',
  doc: 'one result of a multi-result operation',
  kind: 'structure',
  infer(_, attrs, [node]) {
    const type = node!.types[attrs['index'] as number]
    if (!type)
      throw typeError(
        'get',
        `result ${String(attrs['index'])}`,
        `0 to ${node!.types.length - 1}`,
        'check the index',
      )
    return [type]
  },
  factors: (node) => ({ inputs: [], results: [node.shape.map(() => null)] }),
  flops: () => 0,
  samples: () => [],
}

/** Result `index` of a node; the node itself when it has only one result and is no structure op. */
export const get = (node: Node, index: number): Node => apply(getOp, [node], { index })

export const results = (node: Node): Node[] => node.types.map((_, i) => get(node, i))
