/**
 * For tests: draws inputs for op and composite samples, and runs traced functions on both targets. Kept in the source
 * tree because every folder of the compiler tests against the same oracle.
 */
import { Graph, inGraph, type Node } from './graph/node.ts'
import { philoxUniform } from './graph/philox.ts'
import { isFloat, sizeOf, type DType, type ValueType } from './graph/types.ts'
import type { Tensor } from './trace/tensor.ts'

/** Deterministic values for a type, uniform in the range (integers: [low, high)). */
export function draw(type: ValueType, seed: number, [low, high]: readonly [number, number] = [-2, 2]): Float64Array {
  const out = new Float64Array(sizeOf(type.shape))
  for (let i = 0; i < out.length; i++) {
    const u = philoxUniform({ seed, step: 0, stream: 1, salt: 0 }, i) + 2 ** -25
    if (type.dtype === 'bool') out[i] = u < 0.5 ? 0 : 1
    else if (isFloat(type.dtype)) out[i] = Math.fround(low + (high - low) * u)
    else out[i] = Math.floor(low + (high - low) * u)
  }
  return out
}

/** The type with every float replaced by another float type. */
export const withFloat = (type: ValueType, dtype: DType): ValueType => (isFloat(type.dtype) ? { ...type, dtype } : type)

/** Builds nodes in a graph of their own. */
export const inFreshGraph = <T>(body: () => T): T => inGraph(new Graph(), body)

export const nodeOf = (tensor: Tensor): Node => tensor.node

/** Largest difference, relative to the larger of 1 and the expected magnitude. */
export function worstError(got: ArrayLike<number>, want: ArrayLike<number>): number {
  let worst = got.length === want.length ? 0 : Infinity
  for (let i = 0; i < want.length; i++) {
    const [a, b] = [got[i]!, want[i]!]
    if (Object.is(a, b) || a === b) continue
    const error = Math.abs(a - b) / Math.max(1, Math.abs(b))
    if (!(error <= worst)) worst = error
  }
  return worst
}
