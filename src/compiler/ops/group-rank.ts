/**
 * How many earlier elements belong to the same group: with the number of each group's elements before it, the place of
 * an element in a stable counting sort. Order is row-major, which is the global order of tokens, so that groups are in
 * the same order however the tokens are shared out. Elements outside all groups have rank 0.
 */
import type { Node } from '../graph/node.ts'
import type { Op } from '../graph/op.ts'
import { formatType, typeError, valueType } from '../graph/types.ts'
import { apply } from './elementwise.ts'

export const groupCount = (node: Node): number => node.attrs['groups'] as number

export const groupRankOp: Op = {
  name: 'groupRank',
  doc: 'how many earlier elements have the same group number',
  kind: 'index',
  infer([group], attrs) {
    const groups = attrs['groups'] as number
    if (group!.dtype !== 'i32' || !Number.isInteger(groups) || groups < 1) {
      throw typeError(
        'groupRank',
        `${formatType(group!)} in ${groups} groups`,
        'i32 group numbers, and at least one group',
        'cast the numbers to i32',
      )
    }
    return [group!]
  },
  gradient: () => [null],
  // Every element depends on all before it.
  factors: (node) => ({ inputs: [node.shape.map(() => null)], results: [node.shape.map(() => null)] }),
  flops: () => 0,
  reference(node, [group]) {
    const seen = Array.from({ length: groupCount(node) }, () => 0)
    return group!.map((g) => (g >= 0 && g < seen.length ? seen[g]!++ : 0))
  },
  samples: () => [
    { inputs: [valueType('i32', [9])], attrs: { groups: 3 }, ranges: [[0, 3]] },
    { inputs: [valueType('i32', [5, 4])], attrs: { groups: 4 }, ranges: [[-1, 6]] },
  ],
}

export const groupRank = (group: Node, groups: number): Node => apply(groupRankOp, [group], { groups })
