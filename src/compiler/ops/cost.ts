/** FLOPs of a whole function: the sum over its nodes, bodies included. */
import { reachable, type Func } from '../graph/node.ts'

export function flopsOf(func: Func): number {
  let total = 0
  for (const node of reachable(func.results)) total += node.op.flops(node)
  return total
}
