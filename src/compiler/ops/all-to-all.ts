/**
 * Moves the cut from one dimension to another: each rank cuts its piece along `split`, sends a part to every rank of its
 * group, and joins what it receives along `dim`, which was cut before.
 */
import type { Node } from '../graph/node.ts'
import { groupSize, type Group } from '../graph/mesh.ts'
import type { Op } from '../graph/op.ts'
import { sizeOf } from '../graph/types.ts'
import {
  byGroup,
  closedFactors,
  collectiveAttrs,
  groupAttrs,
  pick,
  place,
  positionsOf,
  scaled,
} from './collective.ts'
import { apply } from './elementwise.ts'

export const allToAllOp: Op = {
  name: 'allToAll',
  doc: 'cut along another dimension: every rank of a group sends a part to every other',
  kind: 'collective',
  infer([x], attrs) {
    const size = groupSize(attrs as unknown as Group)
    const joined = scaled('allToAll', x!, attrs['dim'] as number, size)
    return [scaled('allToAll', joined, attrs['split'] as number, 1 / size)]
  },
  gradient(node, [g]) {
    const attrs = collectiveAttrs(node)
    return [allToAll(g!, attrs, attrs.dim!, attrs.split!)]
  },
  factors: closedFactors,
  flops: () => 0,
  across: (node, [x]) =>
    byGroup(collectiveAttrs(node), x!, (members) => {
      const attrs = collectiveAttrs(node)
      const [split, dim] = [attrs.split!, attrs.dim!]
      const { shape } = node.inputs[0]!
      const joined = shape.map((n, i) => (i === dim ? n * members.length : n))
      const all = new Float64Array(sizeOf(joined))
      members.forEach((piece, member) =>
        place(piece, all, joined, dim, positionsOf(attrs, member, joined[dim]!)),
      )
      return members.map((_, member) => pick(all, joined, split, positionsOf(attrs, member, joined[split]!)))
    }),
  samples: () => [],
}

/** `split` is cut, `dim` is joined. */
export const allToAll = (x: Node, group: Group, split: number, dim: number): Node =>
  apply(allToAllOp, [x], { ...groupAttrs(group), split, dim })
