/** Joins the pieces of a group along one dimension: afterwards every rank has the whole. */
import type { Node } from '../graph/node.ts'
import { groupSize, type Group } from '../graph/mesh.ts'
import type { Op } from '../graph/op.ts'
import { sizeOf } from '../graph/types.ts'
import {
  byGroup,
  closedFactors,
  collectiveAttrs,
  groupAttrs,
  place,
  positionsOf,
  scaled,
} from './collective.ts'
import { apply } from './elementwise.ts'
import { reduceScatter } from './reduce-scatter.ts'

export const allGatherOp: Op = {
  name: 'allGather',
  doc: 'the pieces of all ranks of a group, joined along a dimension, everywhere',
  kind: 'collective',
  infer([x], attrs) {
    const group = attrs as unknown as Group
    return [scaled('allGather', x!, attrs['dim'] as number, groupSize(group))]
  },
  gradient: (node, [g]) => [reduceScatter(g!, collectiveAttrs(node), collectiveAttrs(node).dim!)],
  factors: closedFactors,
  flops: () => 0,
  across: (node, [x]) =>
    byGroup(collectiveAttrs(node), x!, (members) => {
      const { dim } = collectiveAttrs(node)
      const all = new Float64Array(sizeOf(node.shape))
      members.forEach((piece, member) => {
        place(piece, all, node.shape, dim!, positionsOf(collectiveAttrs(node), member, node.shape[dim!]!))
      })
      return members.map(() => all.slice())
    }),
  samples: () => [],
}

export const allGather = (x: Node, group: Group, dim: number): Node =>
  apply(allGatherOp, [x], { ...groupAttrs(group), dim })
