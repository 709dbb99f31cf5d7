/**
 * Decides which regions marked by `checkpoint` are recomputed in the backward pass. Runs before differentiation: a
 * region that is not to be recomputed loses its mark, and the gradient pass then keeps its intermediate values.
 */
import type { Func } from '../graph/node.ts'
import { inline } from './inline.ts'

export type RecomputePolicy = 'none' | 'marked'

export const recompute = (func: Func, policy: RecomputePolicy): Func =>
  policy === 'marked' ? func : inline(func, (composite) => composite !== 'checkpoint')
