/**
 * What a rank holds at most, as far as the graph tells it without a memory plan: state by its layout, what layers keep
 * for the microbatches under way, and the most that one layer's passes have at once. An estimate: fragments, buffers of
 * libraries and what a framework keeps besides are not in it; `usableShare` leaves room for them.
 */
import { peakActivations, type Schedule } from '../schedule/index.ts'
import { stateBytesPerParameter } from '../simulate/index.ts'
import { stagesOf, type Candidate } from './candidate.ts'
import type { ModelCosts } from './layer-costs.ts'
import type { PlannedModel } from './models.ts'

/** Assumed: the share of a device's memory that a plan may fill. */
export const usableShare = 0.94

export interface RankMemory {
  /** Weights, gradients and optimizer state. */
  readonly state: number
  /** Kept between forward and backward passes. */
  readonly activations: number
  /** At once besides: inside a layer or the head, gathered weights, a layer computed again. */
  readonly working: number
  readonly total: number
}

/** Elements of weights that each pipeline rank holds, before anything is shared out over data. */
export function parametersByRank(
  plan: Candidate,
  costs: ModelCosts,
  layers: number,
  schedule: Schedule,
): number[] {
  const perStage = layers / stagesOf(plan)
  const counts = Array<number>(plan.pipe).fill(0)
  schedule.rankOfStage.forEach((rank, stage) => {
    counts[rank]! += perStage * costs.parameters.layer
    if (stage === 0) counts[rank]! += costs.parameters.embedding
    // With one stage, a shared table is one table.
    if (stage === schedule.stages - 1) counts[rank]! += costs.parameters.head
  })
  return counts
}

/** Of the pipeline rank that holds most. */
export function rankMemory(
  model: PlannedModel,
  plan: Candidate,
  costs: ModelCosts,
  schedule: Schedule,
): RankMemory {
  const { parameter, gradient } = model.state
  const perStage = model.layers / stagesOf(plan)
  const layerKeeps = plan.recompute ? costs.kept.input : costs.kept.all
  const parameters = parametersByRank(plan, costs, model.layers, schedule)
  const each = stateBytesPerParameter(plan.zero, plan.data, model.state)
  // One layer's whole gradient on its way, two layers' gathered weights.
  const whole =
    costs.parameters.layer * ((plan.zero >= 2 ? gradient : 0) + (plan.zero === 3 ? 2 * parameter : 0))
  const ranks = parameters.map((count, rank): RankMemory => {
    const state = count * each
    const underWay = peakActivations(schedule, schedule.actions[rank]!)
    const activations = underWay * perStage * layerKeeps
    const hasHead = schedule.rankOfStage.at(-1) === rank
    const inside = costs.working.layer + (plan.recompute ? costs.kept.all : 0)
    const messages = plan.pipe > 1 ? 4 * costs.kept.input : 0
    const working = Math.max(inside, hasHead ? costs.working.head : 0) + whole + messages
    return { state, activations, working, total: state + activations + working }
  })
  return ranks.reduce((most, one) => (one.total > most.total ? one : most))
}
