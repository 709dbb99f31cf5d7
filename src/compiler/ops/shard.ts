/** A rank's own piece, along one dimension, of a value that all ranks of its group hold whole. Nothing travels. */
import type { Node } from '../graph/node.ts'
import { groupSize, piecesOfMember, type Group } from '../graph/mesh.ts'
import type { Op } from '../graph/op.ts'
import { broadcast } from './broadcast.ts'
import {
  byGroup,
  closedFactors,
  collectiveAttrs,
  groupAttrs,
  pick,
  positionsOf,
  scaled,
} from './collective.ts'
import { concat } from './concat.ts'
import { constant, fill } from './constant.ts'
import { apply } from './elementwise.ts'
import { equal } from './equal.ts'
import { meshIndex } from './mesh-index.ts'
import { slice } from './slice.ts'
import { where } from './where.ts'

export const shardOp: Op = {
  name: 'shard',
  doc: "a rank's own piece of a value that its whole group holds",
  kind: 'collective',
  infer([x], attrs) {
    const group = attrs as unknown as Group
    return [scaled('shard', x!, attrs['dim'] as number, 1 / groupSize(group))]
  },
  // Zero but for the own pieces: what each rank's use of the whole contributes.
  gradient(node, [g]) {
    const attrs = collectiveAttrs(node)
    const size = groupSize(attrs)
    const own = meshIndex(attrs)
    const pieces: Node[] = []
    for (let member = 0; member < size; member++) {
      const { own: parts } = piecesOfMember(attrs.order, size, member)
      const length = g!.shape[attrs.dim!]! / parts.length
      parts.forEach((part, i) => {
        const start = g!.shape.map((_, axis) => (axis === attrs.dim ? i * length : 0))
        const extents = g!.shape.map((extent, axis) => (axis === attrs.dim ? length : extent))
        const piece = slice(g!, start, extents)
        const mine = broadcast(equal(own, constant(member, 'i32')), extents, [])
        pieces[part] = where(mine, piece, fill(0, piece.type))
      })
    }
    return [concat(pieces, attrs.dim!)]
  },
  factors: closedFactors,
  flops: () => 0,
  across: (node, [x]) =>
    byGroup(collectiveAttrs(node), x!, (members) => {
      const { dim } = collectiveAttrs(node)
      const { shape } = node.inputs[0]!
      return members.map((value, member) =>
        pick(value, shape, dim!, positionsOf(collectiveAttrs(node), member, shape[dim!]!)),
      )
    }),
  samples: () => [],
}

export const shard = (x: Node, group: Group, dim: number): Node =>
  apply(shardOp, [x], { ...groupAttrs(group), dim })
