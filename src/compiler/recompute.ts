/**
 * How much a program keeps for its backward pass. Keeping everything is fastest; `full` keeps the least; a budget picks,
 * among the choices that no other beats (passes/keep-choices.ts), the first, from the cheapest on, whose memory plan fits.
 * The plan that is held against the budget is the real one: every choice tried is lowered down to its arena, so what is
 * promised is what the program allocates.
 */
import { failure } from '../errors.ts'
import { Graph, inGraph, type Func } from './graph/node.ts'
import { bytesOf, formatType } from './graph/types.ts'
import { flopsOf } from './ops/cost.ts'
import { check } from './passes/check.ts'
import { keep, type Keeping } from './passes/keep.ts'
import { choicesOf, type Choice } from './passes/keep-choices.ts'

/**
 * `true`: honour `checkpoint` marks. `full`: every loop keeps as little for its backward loop as it can. A budget: the
 * arena has at most so many bytes, at the least estimated time. A function chooses by itself.
 */
export type Recompute = boolean | 'full' | { readonly memoryBytes: number } | ((func: Func) => Keeping)

/** What was chosen, and what it costs. */
export interface RecomputeReport {
  /** FLOPs of one run beyond those of keeping everything. */
  readonly extraFlops: number
  /** Estimated share of those in the step's time: seconds of one run under the cost model. */
  readonly extraSeconds: number
  /** Bytes that loops keep for their backward loops, and what they would if they kept all. */
  readonly keptBytes: number
  readonly allBytes: number
  /** What is kept, for every loop: operation, type of one step, bytes of all steps. */
  readonly kept: readonly string[]
  /** How many values that were stacked are now computed again. */
  readonly recomputed: number
  /** No cheaper choice exists under the cost model whose plan fits. */
  readonly optimal: boolean
}

export interface Recomputed {
  readonly func: Func
  readonly report?: RecomputeReport
}

/** The program under a policy. `arenaOf` plans its memory, exactly. */
export function recomputed(
  name: string,
  func: Func,
  policy: Recompute,
  arenaOf: (func: Func) => number,
): Recomputed {
  if (typeof policy === 'boolean') return { func }
  if (typeof policy === 'function') return { func: applied(func, policy(func)) }
  const { list, optimal } = choicesOf(func)
  if (policy === 'full') {
    const choice = list.at(-1)!
    const made = applied(func, choice.keeping)
    return { func: made, report: reportOf(func, made, choice, list[0]!, true) }
  }
  let least = Infinity
  for (const choice of list) {
    const made = applied(func, choice.keeping)
    const bytes = arenaOf(made)
    if (bytes <= policy.memoryBytes)
      return { func: made, report: reportOf(func, made, choice, list[0]!, optimal) }
    least = Math.min(least, bytes)
  }
  throw failure({
    where: `memory of ${name}`,
    got: `a budget of ${mebibytes(policy.memoryBytes)}`,
    expected: `at least ${mebibytes(least)}, the least that recomputation can reach`,
    fix: 'raise the budget, or use a smaller batch, context or model, or more microbatches',
  })
}

function applied(func: Func, keeping: Keeping): Func {
  const made = inGraph(new Graph(), () => keep(func, keeping))
  check(made, 'recompute', { gone: ['grad'] })
  return made
}

/** Rounded up, so that the number given back as a budget is enough. */
const mebibytes = (bytes: number): string => `${(Math.ceil((bytes / 2 ** 20) * 10) / 10).toFixed(1)} MiB`

function reportOf(
  before: Func,
  after: Func,
  { keeping, bytes, cost }: Choice,
  all: Choice,
  optimal: boolean,
): RecomputeReport {
  const pairs = [...keeping]
  const kept = pairs.flatMap(([{ forward }, values]) => {
    const length = forward.attrs['length'] as number
    return [...values].map(
      (value) => `${value.op.name} ${formatType(value.type)}, ${mebibytes(length * bytesOf(value.type))}`,
    )
  })
  const gone = pairs.flatMap(([{ stacks }, values]) => stacks.filter(({ value }) => !values.has(value)))
  return {
    extraFlops: flopsOf(after) - flopsOf(before),
    extraSeconds: cost,
    keptBytes: bytes,
    allBytes: all.bytes,
    kept,
    recomputed: gone.length,
    optimal,
  }
}
