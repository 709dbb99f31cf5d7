/** This rank's number within a group: what lets one program text do different work on different ranks. */
import type { Node } from '../graph/node.ts'
import { memberOf, type Group } from '../graph/mesh.ts'
import type { Op, Values } from '../graph/op.ts'
import { valueType } from '../graph/types.ts'
import { closedFactors, collectiveAttrs, groupAttrs } from './collective.ts'
import { apply } from './elementwise.ts'

export const meshIndexOp: Op = {
  name: 'meshIndex',
  doc: "this rank's number within its group",
  kind: 'collective',
  infer: () => [valueType('i32', [])],
  gradient: () => [],
  factors: closedFactors,
  flops: () => 0,
  across(node, _, ranks) {
    const result: Values[] = []
    for (const rank of ranks) result[rank] = Float64Array.of(memberOf(collectiveAttrs(node), rank))
    return result
  },
  samples: () => [],
}

export const meshIndex = (group: Group): Node => apply(meshIndexOp, [], groupAttrs(group))
