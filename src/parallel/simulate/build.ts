/**
 * From what a plan costs to the tasks of a simulation. Each rank's program (../schedule) is walked in order: an action
 * becomes its pieces with the collectives around them, a message becomes one task between two ranks. Messages are joined
 * up at the end, when both sides are known.
 */
import { InternalError } from '../../errors.ts'
import { isMessage, rankPrograms, type Action, type Instruction } from '../schedule/index.ts'
import { collectiveCost, groupShape } from './collective-cost.ts'
import type { GroupCollective, PieceCollective, PlanCosts } from './costs.ts'
import type { Category, Collective, ComputeTask, CollectiveTask, SendTask, SimulatedPlan } from './plan.ts'
import { createPorts, type Ports } from './ports.ts'
import { findSymmetry, type Symmetry } from './symmetry.ts'

/** Tasks while they are made: what they wait for is still open. */
type Draft = (ComputeTask | CollectiveTask | SendTask) & { readonly after: number[] }

/** A message whose two sides are walked at different times. */
interface Crossing {
  readonly producer: Action
  from: number
  to: number
  /** Tasks it waits for. */
  readonly after: number[]
  /** Tasks that wait for it. */
  readonly before: number[]
  /** Messages that its ranks, if messages block, have to be through with. */
  readonly follows: Crossing[]
  task: number
}

interface Build {
  readonly costs: PlanCosts
  readonly symmetry: Symmetry
  readonly ports: Ports
  readonly pipeline: number
  readonly tasks: Draft[]
  readonly collectives: (Collective & { parts: number })[]
  readonly lanes: string[]
  /** By axes and group, the collectives so far. */
  readonly groups: Map<string, number[]>
  readonly crossings: Map<string, Crossing>
}

export function buildPlan(costs: PlanCosts): SimulatedPlan {
  check(costs)
  const { axes, injected = {}, schedule } = costs
  const marked = [
    ...(injected.slowRanks ?? []).map(({ rank }) => rank),
    ...(injected.slowLinks ?? []).map(({ rank }) => rank),
    ...(injected.failure ? [injected.failure.rank] : []),
  ]
  const alone = costs.everyRank ? axes.map(({ name }) => name) : [costs.pipelineAxis ?? '']
  const symmetry = findSymmetry(axes, alone, marked)
  const build: Build = {
    costs,
    symmetry,
    ports: createPorts(symmetry, costs.links, injected.slowLinks ?? []),
    pipeline: axes.findIndex(({ name }) => name === costs.pipelineAxis),
    tasks: [],
    collectives: [],
    lanes: ['compute'],
    groups: new Map(),
    crossings: new Map(),
  }
  const programs = rankPrograms(schedule)
  for (const rank of symmetry.classes.keys()) {
    walk(
      build,
      rank,
      programs[build.pipeline < 0 ? 0 : symmetry.classes[rank]!.coordinates[build.pipeline]!]!,
    )
  }
  for (const crossing of build.crossings.values()) addMessage(build, crossing)
  for (const { task, before, follows } of build.crossings.values()) {
    for (const waiting of before) build.tasks[waiting]!.after.push(task)
    build.tasks[task]!.after.push(...follows.map((earlier) => earlier.task))
  }
  return {
    name: costs.name,
    ranks: symmetry.classes.map(({ rank, count }) => ({
      rank,
      count,
      name: count === 1 ? `rank ${rank}` : `rank ${rank}, like ${count - 1} more`,
    })),
    lanes: build.lanes,
    levels: costs.links.map(({ name }) => name),
    links: build.ports.links,
    tasks: build.tasks,
    collectives: build.collectives,
    ...(costs.work ? { work: costs.work } : {}),
    ...(injected.failure
      ? { failure: { rank: symmetry.classOf(injected.failure.rank), at: injected.failure.at } }
      : {}),
  }
}

function check({ axes, pipelineAxis, schedule, stages, optimizer, links }: PlanCosts): void {
  const ranks = axes.reduce((product, { size }) => product * size, 1)
  if (!links.some(({ reach }) => reach >= ranks))
    throw new InternalError(`no link reaches all of ${ranks} ranks`)
  const pipelineSize = axes.find(({ name }) => name === pipelineAxis)?.size ?? 1
  if (pipelineSize !== schedule.ranks || optimizer.seconds.length !== schedule.ranks) {
    throw new InternalError(
      `${schedule.ranks} ranks of the schedule, but ${pipelineSize} along ${pipelineAxis}`,
    )
  }
  if (stages.length !== schedule.stages) {
    throw new InternalError(`${schedule.stages} stages of the schedule, but costs of ${stages.length}`)
  }
}

/** Adds all tasks of one rank but its messages. */
function walk(build: Build, rank: number, program: readonly Instruction[]): void {
  const { costs, tasks } = build
  const { schedule, stages, optimizer, injected, messages = 'overlapped' } = costs
  const { rank: realRank } = build.symmetry.classes[rank]!
  const slowness = injected?.slowRanks?.find((slow) => slow.rank === realRank)?.factor ?? 1
  /** The latest arithmetic tasks, and what the next one has to wait for besides. */
  let latest: number[] = []
  let waits: number[] = []
  let blockedOn: Crossing[] = []
  const drains: number[] = []
  const seen = new Map<string, number>()

  const compute = (
    category: Category,
    label: string,
    seconds: number,
    action: Partial<Action> = {},
  ): number => {
    const { stage, microbatch } = action
    const place = stage === undefined || microbatch === undefined ? {} : { stage, microbatch }
    tasks.push({
      kind: 'compute',
      rank,
      category,
      label,
      ...place,
      after: waits,
      seconds: seconds * slowness,
    })
    const index = tasks.length - 1
    for (const crossing of blockedOn) crossing.before.push(index)
    latest = [index, ...latest.slice(0, 1)]
    waits = []
    blockedOn = []
    return index
  }
  const collective = (wanted: GroupCollective, after: readonly number[]): number =>
    addCollective(build, rank, wanted, after.slice())

  const act = (action: Action): void => {
    const { kind, stage } = action
    const { pieces, seconds, collectives = {} } = stages[stage]!
    const whole = kind === 'B' && !schedule.splitBackward
    const around = (collectives[kind] ?? []).concat(whole ? (collectives.W ?? []) : [])
    const nth = (seen.get(`${kind}${stage}`) ?? 0) + 1
    seen.set(`${kind}${stage}`, nth)
    const due = around.filter(({ only }) => !only || nth === (only === 'first' ? 1 : schedule.microbatches))
    const on = (when: PieceCollective['when']): PieceCollective[] => due.filter((c) => c.when === when)
    const input = kind === 'W' ? undefined : build.crossings.get(crossingKey(build, rank, inputOf(action)))
    for (let piece = 0; piece < pieces; piece++) {
      for (const wanted of on('prefetch')) waits.push(collective(wanted, latest.slice(1)))
      for (const wanted of on('before')) {
        const index = collective(wanted, waits.concat(latest.slice(0, 1)))
        if (piece === 0) input?.before.push(index)
        waits.push(index)
      }
      const time = (whole ? seconds.B + seconds.W : seconds[kind]) / pieces
      const index = compute(kind, `${kind}${action.microbatch}`, time, action)
      if (piece === 0) input?.before.push(index)
      for (const wanted of on('after')) waits.push(collective(wanted, waits.concat(index)))
      for (const wanted of on('drain')) drains.push(collective(wanted, [index]))
    }
  }

  for (const instruction of program) {
    if (!isMessage(instruction)) {
      act(instruction)
      continue
    }
    const crossing = crossingAt(build, rank, instruction)
    if (instruction.kind === 'send') {
      crossing.from = rank
      crossing.after.push(...latest.slice(0, 1), ...waits)
    } else crossing.to = rank
    if (messages === 'blocking') {
      if (instruction.kind === 'receive') crossing.after.push(...latest.slice(0, 1))
      crossing.follows.push(...blockedOn.slice(-1))
      blockedOn.push(crossing)
    }
  }

  const pipelineRank = build.pipeline < 0 ? 0 : build.symmetry.classes[rank]!.coordinates[build.pipeline]!
  waits.push(...drains)
  for (const wanted of optimizer.before ?? [])
    waits.push(collective(wanted, waits.concat(latest.slice(0, 1))))
  const index = compute('optimizer', 'optimizer', optimizer.seconds[pipelineRank]!)
  for (const wanted of optimizer.after ?? []) collective(wanted, [index])
}

/** The action on another rank whose result an action reads. */
const inputOf = ({ kind, stage, microbatch }: Action): Action =>
  kind === 'F' ? { kind, stage: stage - 1, microbatch } : { kind, stage: stage + 1, microbatch }

/** A message by what it carries and by the ranks along all axes but the pipeline's. */
function crossingKey(
  { symmetry, pipeline }: Build,
  rank: number,
  { kind, stage, microbatch }: Action,
): string {
  const place = symmetry.classes[rank]!.place
  return `${kind} ${stage} ${microbatch} ${place.map((i, axis) => (axis === pipeline ? '' : i)).join()}`
}

function crossingAt(build: Build, rank: number, message: Exclude<Instruction, Action>): Crossing {
  const { stage, microbatch, direction } = message
  const forward = direction === 'forward'
  const source = message.kind === 'send' ? stage : forward ? stage - 1 : stage + 1
  const producer: Action = { kind: forward ? 'F' : 'B', stage: source, microbatch }
  const key = crossingKey(build, rank, producer)
  const known = build.crossings.get(key)
  if (known) return known
  const crossing: Crossing = { producer, from: -1, to: -1, after: [], before: [], follows: [], task: -1 }
  build.crossings.set(key, crossing)
  return crossing
}

function addMessage({ costs, tasks, ports }: Build, crossing: Crossing): void {
  const { producer, from, to, after } = crossing
  const { kind, stage, microbatch } = producer
  const level = ports.levelBetween(from, to)
  const { latency, bandwidth, achieved } = costs.links[level]!
  // A gradient has the size of what it is the gradient of: the output of the stage before.
  const bytes = costs.stages[kind === 'F' ? stage : stage - 1]!.outputBytes
  const delay = Math.max(ports.delay([from], level), ports.delay([to], level))
  tasks.push({
    kind: 'send',
    rank: from,
    to,
    category: 'message',
    label: `${kind}${microbatch}`,
    stage,
    microbatch,
    after,
    bytes,
    level,
    links: [ports.link(from, level, 'out'), ports.link(to, level, 'in')],
    busySeconds: (bytes * delay) / (bandwidth * achieved),
    latency,
  })
  crossing.task = tasks.length - 1
}

/** Adds one rank's part of a collective, and the collective with the first part. */
function addCollective(build: Build, rank: number, wanted: GroupCollective, after: number[]): number {
  const { costs, symmetry, tasks, collectives, lanes, groups, ports } = build
  const axes = wanted.axes.map((name) => costs.axes.findIndex((axis) => axis.name === name))
  if (axes.includes(-1)) throw new InternalError(`no axis for a collective over ${wanted.axes.join(', ')}`)
  const laneName = wanted.axes.join('+')
  if (!lanes.includes(laneName)) lanes.push(laneName)
  const own = symmetry.classes[rank]!.place.map((i, axis) => (axes.includes(axis) ? '' : i)).join()
  const key = `${laneName} ${own}`
  /** For each part, how many collectives of the group its rank has joined: the same order on all ranks. */
  const turns = groups.get(`${key} ${rank}`) ?? []
  groups.set(`${key} ${rank}`, turns)
  const joined = groups.get(key) ?? []
  groups.set(key, joined)
  if (joined.length === turns.length) {
    const members = symmetry.group(rank, axes)
    const shape = groupShape(symmetry.realGroup(rank, axes), costs.links)
    const delays = costs.links.map((_, level) => ports.delay(members, level))
    const cost = collectiveCost(wanted.kind, wanted.bytes, shape, costs.links, {
      algorithm: costs.algorithm ?? 'ring',
      delays,
    })
    joined.push(collectives.length)
    collectives.push({
      kind: wanted.kind,
      label: `${wanted.kind} over ${laneName}`,
      parts: members.length,
      cost,
      links: cost.levels.map(({ level }) => {
        const both = (['out', 'in'] as const).flatMap((way) => members.map((m) => ports.link(m, level, way)))
        return Array.from(new Set(both))
      }),
    })
  }
  const index = joined[turns.length]!
  turns.push(index)
  tasks.push({
    kind: 'collective',
    rank,
    category: 'collective',
    label: collectives[index]!.label,
    after,
    collective: index,
    lane: lanes.indexOf(laneName),
  })
  return tasks.length - 1
}
