/**
 * The tasks of one rank, from its program: an action becomes the pieces of its stage with the collectives around them, a
 * message an open end, the end of the step the optimizer. The thread that runs through is `latest`, the arithmetic tasks
 * that came last, and `waits`, what the next one waits for besides.
 */
import { isMessage, type Action, type Instruction, type Message } from '../schedule/index.ts'
import type { GroupCollective, PieceCollective, PlanCosts } from './costs.ts'
import type { Groups } from './groups.ts'
import { inputOf, messageOf, type OpenMessage, type OpenMessages } from './messages.ts'
import type { Category, CollectiveTask, ComputeTask, SendTask } from './plan.ts'
import type { Symmetry } from './symmetry.ts'

/** Tasks while they are made: what they wait for is still open. */
export type Draft = (ComputeTask | CollectiveTask | SendTask) & { readonly after: number[] }

export interface Build {
  readonly costs: PlanCosts
  readonly symmetry: Symmetry
  readonly groups: Groups
  /** Which axis is the pipeline's, or -1. */
  readonly pipeline: number
  readonly tasks: Draft[]
  readonly messages: OpenMessages
}

interface Walk {
  readonly build: Build
  readonly rank: number
  /** By what its arithmetic takes longer. */
  readonly slowness: number
  /** The last arithmetic task and the one before. */
  latest: number[]
  waits: number[]
  /** Messages that hold up the next arithmetic task. */
  blockedOn: OpenMessage[]
  /** Collectives that only the optimizer waits for. */
  readonly drains: number[]
  /** How often each kind of action has come to each stage. */
  readonly turns: Map<string, number>
}

/** Adds all tasks of a simulated rank but its messages. */
export function addRank(build: Build, rank: number, program: readonly Instruction[]): void {
  const realRank = build.symmetry.classes[rank]!.rank
  const slow = build.costs.injected?.slowRanks?.find((one) => one.rank === realRank)
  const walk: Walk = {
    build,
    rank,
    slowness: slow?.factor ?? 1,
    latest: [],
    waits: [],
    blockedOn: [],
    drains: [],
    turns: new Map(),
  }
  for (const instruction of program) {
    if (isMessage(instruction)) meet(walk, instruction)
    else act(walk, instruction)
  }
  finish(walk)
}

function act(walk: Walk, action: Action): void {
  const { build, rank } = walk
  const { schedule, stages } = build.costs
  const { kind, stage, microbatch } = action
  const { pieces, seconds } = stages[stage]!
  const whole = kind === 'B' && !schedule.splitBackward
  const time = (whole ? seconds.B + seconds.W : seconds[kind]) / pieces
  const due = dueCollectives(walk, action, whole)
  const input = inputOf(build.messages, build.symmetry, build.pipeline, rank, action)
  for (let piece = 0; piece < pieces; piece++) {
    for (const wanted of due.prefetch) walk.waits.push(join(walk, wanted, walk.latest.slice(1)))
    for (const wanted of due.before) {
      const index = join(walk, wanted, walk.waits.concat(walk.latest.slice(0, 1)))
      if (piece === 0) input?.before.push(index)
      walk.waits.push(index)
    }
    const index = compute(walk, kind, `${kind}${microbatch}`, time, action)
    if (piece === 0) input?.before.push(index)
    for (const wanted of due.after) walk.waits.push(join(walk, wanted, walk.waits.concat(index)))
    for (const wanted of due.drain) walk.drains.push(join(walk, wanted, [index]))
  }
}

/** The collectives around each piece of this action, by when they come. */
function dueCollectives(
  { build, turns }: Walk,
  { kind, stage }: Action,
  whole: boolean,
): Record<PieceCollective['when'], PieceCollective[]> {
  const { schedule, stages } = build.costs
  const { collectives = {} } = stages[stage]!
  const turn = (turns.get(`${kind}${stage}`) ?? 0) + 1
  turns.set(`${kind}${stage}`, turn)
  const due: Record<PieceCollective['when'], PieceCollective[]> = {
    before: [],
    prefetch: [],
    after: [],
    drain: [],
  }
  for (const wanted of (collectives[kind] ?? []).concat(whole ? (collectives.W ?? []) : [])) {
    const { only, when } = wanted
    if (!only || turn === (only === 'first' ? 1 : schedule.microbatches)) due[when].push(wanted)
  }
  return due
}

function meet(walk: Walk, instruction: Message): void {
  const { build, rank, latest, waits, blockedOn } = walk
  const message = messageOf(build.messages, build.symmetry, build.pipeline, rank, instruction)
  if (instruction.kind === 'send') {
    message.from = rank
    message.after.push(...latest.slice(0, 1), ...waits)
  } else message.to = rank
  if (build.costs.messages !== 'blocking') return
  if (instruction.kind === 'receive') message.after.push(...latest.slice(0, 1))
  message.follows.push(...blockedOn.slice(-1))
  blockedOn.push(message)
}

function finish(walk: Walk): void {
  const { build, rank } = walk
  const { seconds, before = [], after = [] } = build.costs.optimizer
  const pipelineRank = build.pipeline < 0 ? 0 : build.symmetry.classes[rank]!.coordinates[build.pipeline]!
  walk.waits.push(...walk.drains)
  for (const wanted of before) walk.waits.push(join(walk, wanted, walk.waits.concat(walk.latest.slice(0, 1))))
  const index = compute(walk, 'optimizer', 'optimizer', seconds[pipelineRank]!)
  for (const wanted of after) join(walk, wanted, [index])
}

function compute(walk: Walk, category: Category, label: string, seconds: number, action?: Action): number {
  const { tasks } = walk.build
  const place = action ? { stage: action.stage, microbatch: action.microbatch } : {}
  const index = tasks.length
  tasks.push({
    kind: 'compute',
    rank: walk.rank,
    category,
    label,
    ...place,
    after: walk.waits,
    seconds: seconds * walk.slowness,
  })
  for (const message of walk.blockedOn) message.before.push(index)
  walk.latest = [index].concat(walk.latest.slice(0, 1))
  walk.waits = []
  walk.blockedOn = []
  return index
}

/** This rank's part in a collective. */
function join({ build, rank }: Walk, wanted: GroupCollective, after: number[]): number {
  const { collective, lane } = build.groups.join(rank, wanted)
  build.tasks.push({
    kind: 'collective',
    rank,
    category: 'collective',
    label: build.groups.collectives[collective]!.label,
    after,
    collective,
    lane,
  })
  return build.tasks.length - 1
}
