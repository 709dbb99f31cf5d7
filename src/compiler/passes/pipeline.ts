/**
 * The passes, in order. Each takes a function and returns a function in a fresh graph; the checker runs after every
 * one. What follows here is common to all targets; fusion, scheduling, memory planning and emission belong to a target
 * (see targets/c). FLOPs are read off the result of this pipeline, so they are the same on every target.
 */
import { Graph, inGraph, type Func } from '../graph/node.ts'
import { check, type Legality } from './check.ts'
import type { Fp8Scaling } from '../composites/dot-fp8.ts'
import { fp8 } from './fp8.ts'
import { gradient } from './gradient.ts'
import { inline } from './inline.ts'
import { leaves } from './leaves.ts'
import { precision, type Precision } from './precision.ts'
import { recompute, type RecomputePolicy } from './recompute.ts'
import { simplify } from './simplify.ts'
import { sink } from './sink.ts'

export interface Policies {
  readonly precision: Precision
  /** With fp8: which elements share a scale; default a row. */
  readonly fp8Scaling?: Fp8Scaling
  readonly recompute: RecomputePolicy
  /** Into how many leaves sums over the batch are cut; 0: as it comes. */
  readonly leaves: number
  /** Composites that keep a kernel of their own; all others are replaced by their bodies. */
  readonly claimed: (composite: string) => boolean
}

export interface Pass {
  readonly name: string
  readonly run: (func: Func, policies: Policies) => Func
  readonly legality?: Legality
}

export const pipeline: readonly Pass[] = [
  { name: 'simplify', run: simplify },
  { name: 'recompute', run: (func, policies) => recompute(func, policies.recompute) },
  { name: 'fp8', run: (func, policies) => fp8(func, policies.precision, policies.fp8Scaling ?? 'row') },
  { name: 'gradient', run: gradient, legality: { gone: ['grad'] } },
  { name: 'inline', run: (func, policies) => inline(func, policies.claimed), legality: { gone: ['grad'] } },
  { name: 'precision', run: (func, policies) => precision(func, policies.precision) },
  { name: 'simplify', run: simplify, legality: { gone: ['grad'] } },
  { name: 'sink', run: sink },
  { name: 'leaves', run: (func, policies) => leaves(func, policies.leaves) },
]

/** Runs the pipeline; `observe` sees the program before the first pass and after each. */
export function runPipeline(
  func: Func,
  policies: Policies,
  observe: (stage: string, func: Func) => void = () => {},
): Func {
  observe('trace', func)
  check(func, 'trace')
  let current = func
  for (const pass of pipeline) {
    current = inGraph(new Graph(), () => pass.run(current, policies))
    check(current, pass.name, pass.legality)
    observe(pass.name, current)
  }
  return current
}
