/**
 * From a plan's costs, read from the graph, to seconds on a device: what each stage computes, which collectives stand
 * around each of its layers, and a simulated step. `estimate` is the same without the simulator, for choosing which plans
 * are worth simulating.
 */
import { memorySeconds, productSeconds, type Hardware, type ProductType } from '../hardware/index.ts'
import { makeSchedule, type Schedule } from '../schedule/index.ts'
import {
  buildPlan,
  collectiveCost,
  groupShape,
  shardedCollectives,
  simulate,
  summarize,
  type GroupCollective,
  type PieceCollective,
  type PlanCosts,
  type StageCosts,
  type StepSummary,
} from '../simulate/index.ts'
import { stagesOf, type Candidate } from './candidate.ts'
import type { ModelCosts } from './layer-costs.ts'
import { parametersByRank } from './memory.ts'
import type { PlannedModel } from './models.ts'
import { workSum, type SizedCollective, type Work } from './work.ts'

/** Ranks from the farthest apart to neighbours, as runs order them. */
export const axesOf = ({ pipe, data, context, tensor }: Candidate): PlanCosts['axes'] => [
  { name: 'pipe', size: pipe },
  { name: 'data', size: data },
  { name: 'context', size: context },
  { name: 'tensor', size: tensor },
]

export const scheduleOfCandidate = ({ schedule, pipe, microbatches, stagesPerRank }: Candidate): Schedule =>
  makeSchedule(schedule, { ranks: pipe, microbatches, stagesPerRank })

/** Seconds of arithmetic and memory, without collectives. */
export function workSeconds(work: Work, hardware: Hardware, type: ProductType): number {
  const attentionPeak = hardware.peak[type === 'fp8' ? 'bf16' : type] ?? hardware.peak.f32!
  const products = work.products.reduce(
    (sum, { m, n, k, count }) => sum + count * productSeconds(hardware, type, m, n, k),
    0,
  )
  const attention =
    (work.attention.forward + work.attention.backward) / (attentionPeak * hardware.attentionAchieved)
  return products + attention + memorySeconds(hardware, work.bytes)
}

interface StageWork {
  readonly seconds: { readonly F: number; readonly B: number; readonly W: number }
  readonly collectives: Readonly<Record<'F' | 'B' | 'W', readonly SizedCollective[]>>
}

/** One stage's work for one microbatch: its layers, and embedding or head at the ends. */
function stageWork({ model, plan, costs, hardware }: Prediction, stage: number): StageWork {
  const last = stagesOf(plan) - 1
  const layers = model.layers / (last + 1)
  const headType = model.products === 'fp8' ? 'bf16' : model.products
  const again = plan.recompute ? costs.layer.F : undefined
  const layer = { ...costs.layer, B: again ? workSum(again, costs.layer.B) : costs.layer.B }
  const phase = (kind: 'F' | 'B' | 'W'): { seconds: number; collectives: SizedCollective[] } => {
    const ends = [
      ...(stage === 0 ? [costs.embedding[kind]] : []),
      ...(stage === last ? [costs.head[kind]] : []),
    ]
    return {
      seconds:
        layers * workSeconds(layer[kind], hardware, model.products) +
        ends.reduce((sum, work) => sum + workSeconds(work, hardware, headType), 0),
      collectives: [
        ...layer[kind].collectives.map((one) => times(one, layers)),
        ...ends.flatMap((work) => work.collectives),
      ],
    }
  }
  const [F, B, W] = [phase('F'), phase('B'), phase('W')]
  return {
    seconds: { F: F.seconds, B: B.seconds, W: W.seconds },
    collectives: { F: F.collectives, B: B.collectives, W: W.collectives },
  }
}

const times = (one: SizedCollective, factor: number): SizedCollective => ({
  ...one,
  bytes: one.bytes * factor,
  calls: one.calls * factor,
})

export interface Prediction {
  readonly model: PlannedModel
  readonly plan: Candidate
  readonly costs: ModelCosts
  readonly hardware: Hardware
}

/** The most pieces a stage is simulated in; more would be finer than what collectives between them can hide. */
const mostPieces = 8

/** What the simulator takes. */
export function planCosts(prediction: Prediction): PlanCosts {
  const { model, plan, costs, hardware } = prediction
  const { data, zero } = plan
  const schedule = scheduleOfCandidate(plan)
  const layers = model.layers / schedule.stages
  const pieces = divisorUpTo(layers, mostPieces)
  const { parameter, gradient } = model.state
  const parameters = parametersByRank(plan, costs, model.layers, schedule)
  const stages = schedule.rankOfStage.map((_, stage): StageCosts => {
    const { seconds, collectives } = stageWork(prediction, stage)
    const own =
      layers * costs.parameters.layer +
      (stage === 0 ? costs.parameters.embedding : 0) +
      (stage === schedule.stages - 1 ? costs.parameters.head : 0)
    const sharded = shardedCollectives(zero, ['data'], {
      pieceParameters: (parameter * own) / pieces,
      pieceGradients: (gradient * own) / pieces,
      rankParameters: 0,
    }).pieces
    const around = (kind: 'F' | 'B' | 'W'): PieceCollective[] => [
      ...(data > 1 ? sharded[kind] : []),
      ...collectives[kind].map(({ kind, axes, bytes, calls }): PieceCollective => ({
        kind,
        axes,
        bytes: bytes / pieces,
        calls: calls / pieces,
        when: kind === 'shift' ? 'prefetch' : 'after',
      })),
    ]
    return {
      pieces,
      seconds,
      collectives: { F: around('F'), B: around('B'), W: around('W') },
      outputBytes: costs.kept.input,
    }
  })
  const most = Math.max(...parameters)
  return {
    name: model.name,
    axes: axesOf(plan),
    pipelineAxis: 'pipe',
    schedule,
    stages,
    links: hardware.links,
    optimizer: {
      seconds: parameters.map((count) => optimizerSeconds(prediction, count)),
      before: settling(prediction),
      after: data > 1 ? shardedCollectives(zero, ['data'], bytesAfter(parameter * most)).after : [],
    },
    work: {
      modelFlops: stepFlops(plan, costs),
      peakFlops: hardware.peak[model.products] ?? hardware.peak.f32!,
    },
  }
}

const bytesAfter = (rankParameters: number) => ({ pieceParameters: 0, pieceGradients: 0, rankParameters })

/** Reads the gradient, reads and writes what the optimizer keeps, writes the weight: once for each weight of the shard. */
function optimizerSeconds({ model, plan, hardware }: Prediction, parameters: number): number {
  const { parameter, gradient, optimizer } = model.state
  const shard = parameters / (plan.zero >= 1 ? plan.data : 1)
  return memorySeconds(hardware, shard * (gradient + 2 * optimizer + 2 * parameter))
}

/** Gradients that are combined over ranks of the other axes once the microbatches are through. */
function settling({ model, plan, costs }: Prediction): GroupCollective[] {
  const shard = model.state.gradient / (plan.zero >= 1 ? plan.data : 1)
  const byKind = new Map<string, GroupCollective>()
  const layers = model.layers / plan.pipe
  const all = [
    ...costs.settle.layer.map((one) => ({ ...one, bytes: one.bytes * layers })),
    ...costs.settle.outside,
  ]
  for (const { kind, axes, bytes, calls } of all) {
    const key = `${kind} ${axes.join('+')}`
    const known = byKind.get(key)
    byKind.set(key, {
      kind,
      axes,
      bytes: bytes * shard + (known?.bytes ?? 0),
      calls: calls + (known?.calls ?? 0),
    })
  }
  return [...byKind.values()]
}

/** Operations of the model in a step, on all ranks; recomputing is not the model's. */
export const stepFlops = ({ data, microbatches }: Candidate, { modelFlops }: ModelCosts): number =>
  modelFlops * data * microbatches

const divisorUpTo = (n: number, most: number): number => {
  for (let divisor = Math.min(n, most); divisor > 1; divisor--) if (n % divisor === 0) return divisor
  return 1
}

/** A simulated step. */
export const predict = (prediction: Prediction): StepSummary =>
  summarize(simulate(buildPlan(planCosts(prediction))))

/**
 * About what the simulator would say: the fullest rank's microbatches with the collectives that it waits for, the bubble
 * of the schedule by its closed form, what cannot hide behind the microbatches, and the optimizer.
 */
export function estimate(prediction: Prediction, shapes: GroupShapes): number {
  const { plan, hardware, model, costs } = prediction
  const seconds = (one: GroupCollective): number =>
    collectiveCost(one.kind, one.bytes, shapes.of(plan, one.axes), hardware.links, { calls: one.calls ?? 1 })
      .seconds
  const stages = stagesOf(plan)
  const ends = [0, stages - 1].map((stage) => stageWork(prediction, stage))
  const inner = stages > 2 ? [stageWork(prediction, 1)] : []
  const lengths = [...ends, ...inner].map(({ seconds: { F, B, W }, collectives }) => {
    const waits = (kind: 'F' | 'B' | 'W'): number =>
      collectives[kind].filter((one) => one.kind !== 'shift').reduce((sum, one) => sum + seconds(one), 0)
    return { F: F + waits('F'), B: B + waits('B'), W: W + waits('W') }
  })
  const total = ({ F, B, W }: StageWork['seconds']): number => F + B + W
  const others = Math.min(...lengths.map(total))
  const fullest = Math.max(...lengths.map(total)) + (plan.stagesPerRank - 1) * others
  const bubble =
    plan.schedule === 'zb-h1' ? Math.min(...lengths.map(({ F, B, W }) => Math.max(0, F + B - W))) : others
  const rankParameters = costs.parameters.layer * (model.layers / plan.pipe)
  const { parameter, gradient } = model.state
  const reduce: GroupCollective = {
    kind: plan.zero === 0 ? 'allReduce' : 'reduceScatter',
    bytes: gradient * rankParameters,
    axes: ['data'],
  }
  const gather: GroupCollective = { kind: 'allGather', bytes: parameter * rankParameters, axes: ['data'] }
  const many = plan.data > 1
  const reducing = many ? seconds(reduce) : 0
  const gathering = many ? seconds(gather) : 0
  const eachTime = (plan.zero >= 2 ? reducing : 0) + (plan.zero === 3 ? 2 * gathering : 0)
  const afterwards = plan.zero === 1 || plan.zero === 2 ? gathering : 0
  const once = plan.zero < 2 ? Math.max(0, reducing - fullest) : 0
  const settle = settling(prediction).reduce((sum, one) => sum + seconds(one), 0)
  return (
    plan.microbatches * Math.max(fullest, eachTime) +
    (plan.pipe - 1) * bubble +
    once +
    afterwards +
    settle +
    optimizerSeconds(prediction, rankParameters)
  )
}

/** Shapes of groups over the levels of links, each found once. */
export class GroupShapes {
  readonly #hardware: Hardware
  readonly #known = new Map<string, readonly number[]>()

  constructor(hardware: Hardware) {
    this.#hardware = hardware
  }

  of(plan: Candidate, names: readonly string[]): readonly number[] {
    const axes = axesOf(plan)
    const key = `${axes.map(({ size }) => size).join()} ${names.join()}`
    let shape = this.#known.get(key)
    if (!shape) {
      let members = [0]
      for (const name of names) {
        const at = axes.findIndex((axis) => axis.name === name)
        const distance = axes.slice(at + 1).reduce((product, { size }) => product * size, 1)
        members = members.flatMap((base) =>
          Array.from({ length: axes[at]!.size }, (_, i) => base + i * distance),
        )
      }
      shape = groupShape(members, this.#hardware.links)
      this.#known.set(key, shape)
    }
    return shape
  }
}

/** Tokens a second of all ranks. */
export const tokensPerSecond = (model: PlannedModel, plan: Candidate, seconds: number): number =>
  (plan.data * plan.microbatch * plan.microbatches * model.context) / seconds
