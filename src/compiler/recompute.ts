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
import { stackOnce } from './passes/stack-once.ts'

/**
 * `true`: honour `checkpoint` marks. `full`: every loop keeps as little for its backward loop as it can. A budget: the
 * arena has at most so many bytes, at the least estimated time. A function chooses by itself.
 */
export type Recompute = boolean | 'full' | { readonly memoryBytes: number } | ((func: Func) => Keeping)

/** What was chosen, and what it costs; of the program before it is cut for ranks. */
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
  readonly funcs: readonly Func[]
  readonly report?: RecomputeReport
}

/**
 * A program under a policy, before it is cut for the ranks of a mesh: one function, or one for each stage of a pipeline.
 * `arenaOf` plans the memory of one function, as each rank has it, exactly.
 */
export function recomputed(
  name: string,
  funcs: readonly Func[],
  policy: Recompute,
  arenaOf: (func: Func) => number,
): Recomputed {
  if (typeof policy === 'boolean') return { funcs: funcs.map(onceStacked) }
  if (typeof policy === 'function') return { funcs: funcs.map((func) => applied(func, policy(func))) }
  if (policy === 'full') {
    const made = funcs.map((func) => {
      const { list } = choicesOf(func)
      const choice = list.at(-1)!
      const made = applied(func, choice.keeping)
      return { func: made, report: reportOf(func, made, choice, list[0]!, true) }
    })
    return { funcs: made.map(({ func }) => func), report: together(made.map(({ report }) => report)) }
  }
  if (funcs.length > 1) {
    throw failure({
      where: `memory of ${name}`,
      got: `a budget for ${funcs.length} stages of a pipeline`,
      expected: 'a budget for ranks that all run the same program',
      fix: 'use recompute=full or none, or mesh.pipe=1',
    })
  }
  const func = funcs[0]!
  const { list, optimal } = choicesOf(func)
  let least = Infinity
  for (const choice of list) {
    const made = applied(func, choice.keeping)
    const bytes = arenaOf(made)
    if (bytes <= policy.memoryBytes)
      return { funcs: [made], report: reportOf(func, made, choice, list[0]!, optimal) }
    least = Math.min(least, bytes)
  }
  throw failure({
    where: `memory of ${name}`,
    got: `a budget of ${mebibytes(policy.memoryBytes)}`,
    expected: `at least ${mebibytes(least)}, the least that recomputation can reach`,
    fix: 'raise the budget, or use a smaller batch, context or model, or more microbatches',
  })
}

/** Of all stages of a pipeline. */
function together(reports: readonly RecomputeReport[]): RecomputeReport {
  const sum = (of: (report: RecomputeReport) => number): number =>
    reports.reduce((total, report) => total + of(report), 0)
  return {
    extraFlops: sum(({ extraFlops }) => extraFlops),
    extraSeconds: sum(({ extraSeconds }) => extraSeconds),
    keptBytes: sum(({ keptBytes }) => keptBytes),
    allBytes: sum(({ allBytes }) => allBytes),
    kept: reports.flatMap(({ kept }) => kept),
    recomputed: sum(({ recomputed }) => recomputed),
    optimal: reports.every(({ optimal }) => optimal),
  }
}

function applied(func: Func, keeping: Keeping): Func {
  const made = inGraph(new Graph(), () => keep(func, keeping))
  check(made, 'recompute', { gone: ['grad'] })
  return onceStacked(made)
}

/** Last, because to choose what to keep is to choose by use. */
function onceStacked(func: Func): Func {
  const made = inGraph(new Graph(), () => stackOnce(func))
  check(made, 'stack once')
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
