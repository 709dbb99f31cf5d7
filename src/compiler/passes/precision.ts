/**
 * The precision policy. `bf16`: operands of every f32 matrix product, forward and backward, are rounded to bfloat16 and
 * accumulated in f32; parameters, optimizer state, reductions and elementwise work stay f32 (Micikevicius et al.,
 * Mixed Precision Training). Runs after differentiation so that both directions follow it.
 */
import type { Func } from '../graph/node.ts'
import { cast } from '../ops/cast.ts'
import { dot, dotAxes, dotOp } from '../ops/dot.ts'
import { Rewrite } from './rewrite.ts'

export type Precision = 'f32' | 'bf16'

export function precision(func: Func, policy: Precision): Func {
  if (policy === 'f32') return func
  return new Rewrite((node, [a, b]) => {
    if (node.op !== dotOp || node.dtype !== 'f32' || a!.dtype !== 'f32') return undefined
    return dot(cast(a!, 'bf16'), cast(b!, 'bf16'), dotAxes(node))
  }).func(func)
}
