/** Every rank of a group sends its value to the next one, `by` members on, in a ring. */
import type { Node } from '../graph/node.ts'
import type { Group } from '../graph/mesh.ts'
import type { Op } from '../graph/op.ts'
import { byGroup, closedFactors, collectiveAttrs, groupAttrs } from './collective.ts'
import { apply } from './elementwise.ts'

export const shiftOp: Op = {
  name: 'shift',
  doc: 'the value of another rank of a group: a step around a ring',
  kind: 'collective',
  infer: ([x]) => [x!],
  gradient: (node, [g]) => [shift(g!, collectiveAttrs(node), -(node.attrs['by'] as number))],
  factors: closedFactors,
  flops: () => 0,
  across: (node, [x]) =>
    byGroup(collectiveAttrs(node), x!, (members) => {
      const by = node.attrs['by'] as number
      return members.map((_, i) =>
        members[(((i - by) % members.length) + members.length) % members.length]!.slice(),
      )
    }),
  samples: () => [],
}

/** Member i gets what member i - by had. */
export const shift = (x: Node, group: Group, by: number): Node =>
  apply(shiftOp, [x], { ...groupAttrs(group), by })
