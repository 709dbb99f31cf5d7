/**
 * One plan in numbers, and all of them for a number of ranks: every way to write it as data x pipe x context x tensor,
 * with every ZeRO level, recompute or not, microbatch and schedule. A plan that cannot be is refused with the reason; the
 * reasons come in a few kinds, so that many refusals make a short list.
 */
import { leaves, sizeOf, type ValueType } from '../../compiler/index.ts'
import type { Plan } from '../plan.ts'
import type { PlannedModel } from './models.ts'

export interface Candidate {
  readonly data: number
  readonly pipe: number
  readonly context: number
  readonly tensor: number
  readonly zero: 0 | 1 | 2 | 3
  readonly recompute: boolean
  /** Windows in a microbatch of one rank, and how many of them a step has. */
  readonly microbatch: number
  readonly microbatches: number
  readonly schedule: string
  readonly stagesPerRank: number
  readonly sequence: boolean
  readonly attention: Plan['attention']
}

export interface Rejection {
  /** What kind of reason: the heading under which it is listed. */
  readonly kind: string
  readonly reason: string
}

export interface SpaceOptions {
  readonly ranks: number
  /** Windows a step. */
  readonly globalBatch: number
  /** Ranks that the fastest links join. */
  readonly node: number
  /** Windows are not cut into pieces of fewer tokens. */
  readonly leastPiece: number
  readonly schedules: readonly (readonly [name: string, stagesPerRank: number])[]
}

export const defaultSchedules: SpaceOptions['schedules'] = [
  ['1f1b', 1],
  ['interleaved', 2],
  ['interleaved', 4],
  ['zb-h1', 1],
]

export const ranksOfCandidate = ({ data, pipe, context, tensor }: Candidate): number =>
  data * pipe * context * tensor

export const stagesOf = ({ pipe, stagesPerRank }: Candidate): number => pipe * stagesPerRank

/** As settings of a run. */
export function settingsOf(plan: Candidate): string {
  const { data, pipe, context, tensor, zero, recompute, sequence, schedule, stagesPerRank, microbatches } =
    plan
  const axes = Object.entries({ data, pipe, context, tensor }).flatMap(([name, size]) =>
    size > 1 ? [`mesh.${name}=${size}`] : [],
  )
  return [
    ...axes,
    ...(zero > 0 ? [`parallel.zero=${zero}`] : []),
    ...(sequence ? ['parallel.sequence=true'] : []),
    ...(context > 1 ? [`parallel.attention=${plan.attention}`] : []),
    ...(pipe > 1 ? [`parallel.schedule=${schedule}`] : []),
    ...(stagesPerRank > 1 ? [`parallel.stages=${stagesPerRank}`] : []),
    ...(microbatches > 1 ? [`accumulate=${microbatches}`] : []),
    ...(recompute ? ['recompute=true'] : []),
  ].join(' ')
}

/** Why a plan cannot be carried out, memory aside; null where it can. */
export function refusal(
  model: PlannedModel,
  plan: Candidate,
  { globalBatch, node, leastPiece }: SpaceOptions,
): Rejection | null {
  const { data, pipe, context, tensor, microbatch, microbatches, schedule, stagesPerRank } = plan
  const no = (kind: string, reason: string): Rejection => ({ kind, reason })
  if (tensor > node) return no('node', `tensor ${tensor} reaches beyond the ${node} ranks of a node`)
  if (model.kvHeads % tensor !== 0) return no('heads', `${model.kvHeads} key heads over tensor ${tensor}`)
  const stages = stagesOf(plan)
  if (model.layers % stages !== 0) return no('layers', `${model.layers} layers over ${stages} stages`)
  const chunks = plan.attention === 'ring' ? 2 * context : context
  if (context > 1 && model.context % chunks !== 0)
    return no('context', `${model.context} tokens over ${chunks} chunks`)
  if (context > 1 && plan.attention === 'heads' && model.kvHeads % (context * tensor) !== 0)
    return no('heads', `${model.kvHeads} key heads over context ${context} x tensor ${tensor}`)
  if (context > 1 && model.context / context < leastPiece)
    return no('context', `pieces of ${model.context / context} tokens, fewer than ${leastPiece}`)
  if (globalBatch % data !== 0) return no('batch', `${globalBatch} windows over data ${data}`)
  if (data * microbatch * microbatches !== globalBatch)
    return no('batch', `${globalBatch / data} windows a rank in microbatches of ${microbatch}`)
  if (schedule === 'interleaved' && microbatches % pipe !== 0)
    return no('schedule', `${microbatches} microbatches in groups of pipe ${pipe}`)
  if (schedule === 'dualpipe-v' && microbatches < 2 * pipe)
    return no('schedule', `${microbatches} microbatches for dualpipe-v over pipe ${pipe}`)
  if (stagesPerRank > 1 && pipe === 1) return no('schedule', 'stages without a pipeline')
  return null
}

/** All plans for these ranks, in a fixed order. */
export function* candidates(model: PlannedModel, options: SpaceOptions): Generator<Candidate> {
  const { ranks, globalBatch, schedules } = options
  for (const tensor of divisors(ranks)) {
    for (const pipe of divisors(ranks / tensor)) {
      for (const context of divisors(ranks / tensor / pipe)) {
        const data = ranks / tensor / pipe / context
        const perRank = Math.floor(globalBatch / data)
        // Cutting windows is for when there are fewer of them than ranks.
        const ways: readonly Plan['attention'][] = context > 1 ? ['ring', 'heads'] : ['ring']
        for (const attention of ways) {
          const sequence = tensor > 1 && model.context % (tensor * context) === 0
          for (const microbatch of [1, 2, 4, 8, 16].filter((size) => size <= Math.max(1, perRank))) {
            const microbatches = Math.max(1, Math.floor(perRank / microbatch))
            for (const [schedule, stagesPerRank] of pipe > 1 ? schedules : [['1f1b', 1] as const]) {
              for (const zero of data > 1 ? ([0, 1, 2, 3] as const) : ([0] as const)) {
                for (const recompute of [false, true]) {
                  yield {
                    data,
                    pipe,
                    context,
                    tensor,
                    zero,
                    recompute,
                    microbatch,
                    microbatches,
                    schedule,
                    stagesPerRank,
                    sequence,
                    attention,
                  }
                }
              }
            }
          }
        }
      }
    }
  }
}

const divisors = (n: number): number[] =>
  Array.from({ length: n }, (_, i) => i + 1).filter((divisor) => n % divisor === 0)

/** The least bytes of state that a rank must hold, whatever the layout of its layers: without reading the graph. */
export function leastState(model: PlannedModel, { data, pipe, tensor, zero }: Candidate): number {
  const { parameter, gradient, optimizer } = model.state
  const each =
    parameter / (zero >= 3 ? data : 1) +
    gradient / (zero >= 2 ? data : 1) +
    optimizer / (zero >= 1 ? data : 1)
  const stacked = leaves<ValueType>(model.weights)
    .filter(([path]) => path.startsWith('layers.'))
    .reduce((sum, [, { shape }]) => sum + sizeOf(shape), 0)
  return (each * stacked) / pipe / tensor
}
