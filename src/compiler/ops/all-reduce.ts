/** Combines partial results: afterwards every rank of a group has the sum (or maximum) over all of them. */
import type { Node } from '../graph/node.ts'
import type { Combine, Group } from '../graph/mesh.ts'
import type { Op } from '../graph/op.ts'
import { byGroup, closedFactors, collectiveAttrs, combineTree, groupAttrs } from './collective.ts'
import { apply } from './elementwise.ts'

export const allReduceOp: Op = {
  name: 'allReduce',
  doc: 'sum or maximum over the ranks of a group, everywhere',
  kind: 'collective',
  infer: ([x]) => [x!],
  // Every rank's result holds every rank's input once. A maximum is used where nothing is differentiated.
  gradient: (node, [g]) => [allReduce(g!, collectiveAttrs(node), 'sum')],
  factors: closedFactors,
  flops: () => 0,
  across: (node, [x]) =>
    byGroup(collectiveAttrs(node), x!, (members) => {
      const total = combineTree(members, collectiveAttrs(node).combine!)
      return members.map(() => total.slice())
    }),
  samples: () => [],
}

export const allReduce = (x: Node, group: Group, combine: Combine = 'sum'): Node =>
  apply(allReduceOp, [x], { ...groupAttrs(group), combine })
