/**
 * The planner: of all plans for a model on some ranks, those that fit, ranked by the time of a simulated step, and why
 * the others do not. Memory is asked first; an estimate chooses which of the plans that fit are simulated.
 */
import type { Hardware } from '../hardware/index.ts'
import type { StepSummary } from '../simulate/index.ts'
import {
  candidates,
  defaultSchedules,
  leastState,
  ranksOfCandidate,
  refusal,
  type Candidate,
  type Rejection,
  type SpaceOptions,
} from './candidate.ts'
import { CostReader, type ModelCosts } from './layer-costs.ts'
import { rankMemory, usableShare, type RankMemory } from './memory.ts'
import type { PlannedModel } from './models.ts'
import { estimate, GroupShapes, predict, scheduleOfCandidate, stepFlops, tokensPerSecond } from './predict.ts'

export interface SearchOptions {
  readonly ranks: number
  /** Windows a step. */
  readonly globalBatch: number
  readonly hardware: Hardware
  /** Bytes a rank may fill; by default most of what the device has. */
  readonly memoryBytes?: number
  /** Plans that are simulated, and ranked by that. */
  readonly simulated?: number
  readonly schedules?: SpaceOptions['schedules']
  /** Windows are not cut into pieces of fewer tokens; 2048 unless said, a few products' worth of work for an accelerator. */
  readonly leastPiece?: number
  /** Only plans that this is true of. */
  readonly only?: (plan: Candidate) => boolean
}

export interface Planned {
  readonly plan: Candidate
  readonly memory: RankMemory
  readonly step: StepSummary
  readonly tokensPerSecond: number
  /** The model's operations in a step. */
  readonly flops: number
  readonly utilisation: number
}

export interface RejectedKind {
  readonly kind: string
  readonly count: number
  /** Of the first plan refused for this. */
  readonly example: string
}

export interface SearchResult {
  /** The fastest first. */
  readonly plans: readonly Planned[]
  /** Plans looked at, and those that fit. */
  readonly considered: number
  readonly feasible: number
  readonly rejected: readonly RejectedKind[]
  readonly memoryBytes: number
  /** Operations a second that utilisation is a share of. */
  readonly peakFlops: number
}

interface Fitting {
  readonly plan: Candidate
  readonly memory: RankMemory
  readonly costs: ModelCosts
  readonly estimated: number
}

export function searchPlans(model: PlannedModel, options: SearchOptions): SearchResult {
  const { ranks, globalBatch, hardware, simulated = 24, only = () => true } = options
  const memoryBytes = options.memoryBytes ?? hardware.memoryBytes * usableShare
  const node = hardware.links.length > 1 ? hardware.links[0]!.reach : Infinity
  const space: SpaceOptions = {
    ranks,
    globalBatch,
    node,
    leastPiece: options.leastPiece ?? 2048,
    schedules: options.schedules ?? defaultSchedules,
  }
  const reader = new CostReader(model)
  const shapes = new GroupShapes(hardware)
  const refused = new Map<string, RejectedKind>()
  const fitting: Fitting[] = []
  let considered = 0
  for (const plan of candidates(model, space)) {
    if (!only(plan)) continue
    considered++
    const found = fit(model, plan, space, reader, memoryBytes)
    if ('reason' in found) {
      const known = refused.get(found.kind)
      refused.set(found.kind, {
        kind: found.kind,
        count: (known?.count ?? 0) + 1,
        example: known?.example ?? found.reason,
      })
    } else {
      fitting.push({
        plan,
        ...found,
        estimated: estimate({ model, plan, costs: found.costs, hardware }, shapes),
      })
    }
  }
  const best = fitting.toSorted((a, b) => a.estimated - b.estimated).slice(0, simulated)
  const plans = best.map(({ plan, memory, costs }): Planned => {
    const step = predict({ model, plan, costs, hardware })
    return {
      plan,
      memory,
      step,
      tokensPerSecond: tokensPerSecond(model, plan, step.seconds),
      flops: stepFlops(plan, costs),
      utilisation: step.utilisation!,
    }
  })
  return {
    plans: plans.toSorted((a, b) => a.step.seconds - b.step.seconds || a.memory.total - b.memory.total),
    considered,
    feasible: fitting.length,
    rejected: [...refused.values()].toSorted((a, b) => b.count - a.count),
    memoryBytes,
    peakFlops: hardware.peak[model.products] ?? hardware.peak.f32!,
  }
}

/** What a plan costs and holds, or why it cannot be. */
function fit(
  model: PlannedModel,
  plan: Candidate,
  space: SpaceOptions,
  reader: CostReader,
  memoryBytes: number,
): { readonly costs: ModelCosts; readonly memory: RankMemory } | Rejection {
  const no = refusal(model, plan, space)
  if (no) return no
  const least = leastState(model, plan)
  if (least > memoryBytes) return tooMuch('memory of state', least, memoryBytes, plan)
  const costs = reader.costs(plan.microbatch, plan)
  const memory = rankMemory(model, plan, costs, scheduleOfCandidate(plan))
  if (memory.total <= memoryBytes) return { costs, memory }
  const withoutState = memory.state > memoryBytes ? 'memory of state' : 'memory of activations'
  return tooMuch(withoutState, memory.total, memoryBytes, plan)
}

const tooMuch = (kind: string, got: number, allowed: number, plan: Candidate): Rejection => ({
  kind,
  reason: `${gigabytes(got)} of ${gigabytes(allowed)} a rank on ${ranksOfCandidate(plan)} ranks: data ${plan.data}, pipe ${plan.pipe}, context ${plan.context}, tensor ${plan.tensor}, zero ${plan.zero}`,
})

const gigabytes = (bytes: number): string => `${(bytes / 1e9).toPrecision(3)} GB`
