/** Replaces composites by their bodies, except those the target claims, which keep their body as meaning only. */
import type { Func } from '../graph/node.ts'
import { callOp, compositeName } from '../ops/call.ts'
import { getOp } from '../ops/get.ts'
import type { Node } from '../graph/node.ts'
import { inlined, Rewrite, type Rule } from './rewrite.ts'

export function inline(func: Func, claimed: (composite: string) => boolean): Func {
  const bodies = new Map<Node, readonly Node[]>()
  const rule: Rule = (node, inputs, context) => {
    if (node.op === callOp && !claimed(compositeName(node))) {
      const results = inlined(node, inputs, rule)
      const handle = context.rebuild(node, inputs)
      bodies.set(handle, results)
      return handle
    }
    if (node.op === getOp) return bodies.get(inputs[0]!)?.[node.attrs['index'] as number]
    return undefined
  }
  return new Rewrite(rule).func(func)
}
