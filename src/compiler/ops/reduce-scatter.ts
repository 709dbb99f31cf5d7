/** Combines partial results and leaves each rank of a group with its piece of the sum along one dimension. */
import type { Node } from '../graph/node.ts'
import { groupSize, type Group } from '../graph/mesh.ts'
import type { Op } from '../graph/op.ts'
import { allGather } from './all-gather.ts'
import {
  byGroup,
  closedFactors,
  collectiveAttrs,
  combineTree,
  groupAttrs,
  pick,
  positionsOf,
  scaled,
} from './collective.ts'
import { apply } from './elementwise.ts'

export const reduceScatterOp: Op = {
  name: 'reduceScatter',
  doc: 'the sum over the ranks of a group, each rank its piece along a dimension',
  kind: 'collective',
  infer([x], attrs) {
    const group = attrs as unknown as Group
    return [scaled('reduceScatter', x!, attrs['dim'] as number, 1 / groupSize(group))]
  },
  gradient: (node, [g]) => [allGather(g!, collectiveAttrs(node), collectiveAttrs(node).dim!)],
  factors: closedFactors,
  flops: () => 0,
  across: (node, [x]) =>
    byGroup(collectiveAttrs(node), x!, (members) => {
      const { dim } = collectiveAttrs(node)
      const { shape } = node.inputs[0]!
      const total = combineTree(members, 'sum')
      return members.map((_, member) =>
        pick(total, shape, dim!, positionsOf(collectiveAttrs(node), member, shape[dim!]!)),
      )
    }),
  samples: () => [],
}

export const reduceScatter = (x: Node, group: Group, dim: number): Node =>
  apply(reduceScatterOp, [x], { ...groupAttrs(group), dim })
