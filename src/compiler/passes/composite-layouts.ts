/** Dimension maps of the composites that targets have kernels for, as `Factors` of ops are. */
import type { Node } from '../graph/node.ts'
import type { Factors } from '../graph/op.ts'
import { compositeName, optionsOf } from '../ops/call.ts'

/** `time`: positions may be cut, too, where queries and keys are the same ones. Null: this composite cannot be cut. */
export function compositeFactors(node: Node, time: boolean): Factors | null {
  const name = compositeName(node)
  const same = node.inputs[0]!.shape[1] === node.inputs[1]?.shape[1]
  const position = time && same ? 't' : null
  const tokens = ['b', position, 'h', null]
  const rows = ['b', 'h', position]
  const given = optionsOf(node)
  // Bias and mask are [batch, heads, queries, keys], with extent 1 where they are shared.
  const shared = (at: number): (string | null)[] =>
    [0, 1, 2, 3].map((dim) => (dim < 2 && node.inputs[at]!.shape[dim]! > 1 ? ['b', 'h'][dim]! : null))
  const extras = (start: number): (string | null)[][] => {
    const list: (string | null)[][] = []
    for (const option of ['bias', 'mask']) if (given[option]) list.push(shared(start + list.length))
    if (given['dLse']) list.push(rows)
    return list
  }
  switch (name) {
    case 'attention':
      return { inputs: [tokens, tokens, tokens, ...extras(3)], results: [tokens, rows] }
    case 'attentionBackward':
      return {
        inputs: [tokens, tokens, tokens, tokens, rows, tokens, ...extras(6)],
        results: [tokens, tokens, tokens],
      }
    case 'attentionBiasGradient':
      return {
        inputs: [tokens, tokens, tokens, tokens, rows, tokens, ...extras(6)],
        results: [shared(6)],
        reduce: 'sum',
      }
    default:
      return null
  }
}
