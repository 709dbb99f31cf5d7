/**
 * `fp8`: the f32 products that a loss depends on become products of 8-bit operands, emulated (composites/dot-fp8.ts).
 * Runs before differentiation, because forward and backward products use different formats. Products inside composites
 * (attention, an optimizer's own) keep their precision; in a program without gradients every other product counts.
 */
import { dotFp8, type Fp8Scaling } from '../composites/dot-fp8.ts'
import { bodyOf, reachable, type Func, type Node } from '../graph/node.ts'
import { callOp, compositeName } from '../ops/call.ts'
import { dotAxes, dotOp } from '../ops/dot.ts'
import { gradOp } from '../ops/grad.ts'
import { scanOp } from '../ops/scan.ts'
import type { Precision } from './precision.ts'
import { Rewrite, type Rule } from './rewrite.ts'

export function fp8(func: Func, policy: Precision, scaling: Fp8Scaling): Func {
  if (policy !== 'fp8') return func
  const wanted = new Set(lossProducts(func, !hasGrad(func)))
  const kept = new Rewrite(() => undefined)
  const rule: Rule = (node, inputs) => {
    if (node.op === callOp && !isMark(node)) return kept.rebuild(node, inputs)
    return wanted.has(node) ? dotFp8(inputs[0]!, inputs[1]!, dotAxes(node), scaling) : undefined
  }
  return new Rewrite(rule).func(func)
}

/** Regions marked for recomputation are the model's own code, unlike other composites. */
const isMark = (node: Node): boolean => compositeName(node) === 'checkpoint'

/** The body of a loop or of a marked region. */
const innerOf = (node: Node): Func | undefined =>
  node.op === scanOp || (node.op === callOp && isMark(node)) ? bodyOf(node) : undefined

const nodesOf = (func: Func): Node[] => reachable([...func.params, ...func.results])

const hasGrad = (func: Func): boolean =>
  nodesOf(func).some((node) => {
    const inner = innerOf(node)
    return node.op === gradOp || (inner !== undefined && hasGrad(inner))
  })

/** The f32 products that a differentiated scalar depends on; all of them where the function itself is part of one. */
function lossProducts(func: Func, all: boolean): Node[] {
  const nodes = nodesOf(func)
  const losses = nodes.filter((node) => node.op === gradOp).map((node) => node.inputs[0]!)
  const inside = new Set(all ? nodes : reachable(losses))
  return nodes.flatMap((node) => {
    const inner = innerOf(node)
    if (inner) return lossProducts(inner, inside.has(node))
    return inside.has(node) && node.op === dotOp && node.inputs[0]!.dtype === 'f32' ? [node] : []
  })
}
