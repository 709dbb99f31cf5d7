/**
 * The one judge of schedules. A schedule is right when every microbatch goes through every stage once in each kind, on
 * the stage's rank; when its actions, in their order, never wait for each other in a circle; and when its rank programs
 * come to their end over channels, one for each pair of ranks and direction, first in first out, whether a send returns
 * at once or blocks until the other side receives. It also says what a schedule costs in activations, and whether
 * gradients are added up in the canonical order, ascending microbatches at every stage, which makes a pipeline give the
 * bits of gradient accumulation on one rank.
 */
import { InternalError } from '../../errors.ts'
import { isMessage, rankPrograms, type Instruction } from './rank-program.ts'
import {
  actionIndex,
  actionName,
  dependencies,
  kindsOf,
  lastKind,
  type Action,
  type Schedule,
} from './schedule.ts'
import { timeline } from './timeline.ts'

export interface ScheduleReport {
  /** What is wrong, in words; empty when the schedule is right. */
  readonly problems: readonly string[]
  /** For each rank, the most (stage, microbatch) pairs at once whose activations it keeps. */
  readonly activations: readonly number[]
  /** For each rank, the most messages at once that its program has received and not yet read: buffers it needs. */
  readonly inputs: readonly number[]
  /** Stages that do not add up gradients in ascending microbatches: there a lowering must keep gradients apart. */
  readonly unorderedStages: readonly number[]
}

export function inspectSchedule(schedule: Schedule): ScheduleReport {
  const incomplete = coverageProblems(schedule)
  const problems = incomplete.length > 0 ? incomplete : orderProblems(schedule)
  return {
    problems,
    activations: schedule.actions.map((actions) => peakActivations(schedule, actions)),
    inputs: problems.length > 0 ? [] : rankPrograms(schedule).map((program) => peakInputs(schedule, program)),
    unorderedStages: schedule.rankOfStage.flatMap((rank, stage) => {
      const order = schedule.actions[rank]!.filter((a) => a.stage === stage && a.kind === lastKind(schedule))
      return order.every((action, i) => i === 0 || action.microbatch > order[i - 1]!.microbatch)
        ? []
        : [stage]
    }),
  }
}

/** The schedule itself, or an error that names what is wrong with it. */
export function checkedSchedule(schedule: Schedule): Schedule {
  const { problems } = inspectSchedule(schedule)
  if (problems.length > 0) throw new InternalError(`schedule ${schedule.name}: ${problems.join('; ')}`)
  return schedule
}

function coverageProblems(schedule: Schedule): string[] {
  const { stages, microbatches, rankOfStage } = schedule
  const problems: string[] = []
  const seen = new Uint8Array(3 * stages * microbatches)
  for (const [rank, actions] of schedule.actions.entries()) {
    for (const action of actions) {
      const known =
        kindsOf(schedule).includes(action.kind) &&
        isBelow(action.stage, stages) &&
        isBelow(action.microbatch, microbatches)
      if (!known) {
        problems.push(`${actionName(action)} on rank ${rank} is no action of this schedule`)
        continue
      }
      if (rankOfStage[action.stage] !== rank)
        problems.push(`${actionName(action)} is on rank ${rank}, not its stage's`)
      if (seen[actionIndex(schedule, action)]!++ > 0) problems.push(`${actionName(action)} comes twice`)
    }
  }
  for (const kind of kindsOf(schedule)) {
    for (let stage = 0; stage < stages; stage++) {
      for (let microbatch = 0; microbatch < microbatches; microbatch++) {
        const action = { kind, stage, microbatch }
        if (!seen[actionIndex(schedule, action)]) problems.push(`${actionName(action)} is missing`)
      }
    }
  }
  return problems
}

const isBelow = (value: number, limit: number): boolean =>
  Number.isInteger(value) && value >= 0 && value < limit

function orderProblems(schedule: Schedule): string[] {
  const { stuck } = timeline(schedule, { F: 1, B: 1, W: 1 })
  if (stuck.length > 0) {
    return stuck.map(({ rank, action }) => `rank ${rank} waits for ever to begin ${actionName(action)}`)
  }
  const programs = rankPrograms(schedule)
  return [
    ...inspectPrograms(schedule, programs, 'blocking'),
    ...inspectPrograms(schedule, programs, 'buffered'),
  ]
}

/**
 * Executes rank programs without their arithmetic and says what goes wrong: a deadlock, a message other than the one
 * expected, an action before what it reads. `blocking` sends return when the other side has received, `buffered` ones at
 * once.
 */
export function inspectPrograms(
  schedule: Schedule,
  programs: readonly (readonly Instruction[])[],
  sends: 'blocking' | 'buffered',
): string[] {
  const problems: string[] = []
  const at = programs.map(() => 0)
  const done = new Uint8Array(3 * schedule.stages * schedule.microbatches)
  /** What each rank has at hand from others, and what is on its way, by channel. */
  const received = programs.map(() => new Set<number>())
  const channels = new Map<string, Action[]>()
  const channel = (from: number, to: number): Action[] => {
    const key = `${from} ${to}`
    return channels.get(key) ?? channels.set(key, []).get(key)!
  }
  const receive = (rank: number, instruction: Instruction, action: Action): void => {
    const expected = isMessage(instruction) ? producedBy(instruction) : instruction
    if (actionIndex(schedule, expected) !== actionIndex(schedule, action)) {
      problems.push(
        `rank ${rank} receives ${actionName(action)} where it expects ${actionName(expected)} (${sends})`,
      )
    }
    received[rank]!.add(actionIndex(schedule, action))
  }
  const advance = (rank: number): boolean => {
    const instruction = programs[rank]![at[rank]!]
    if (!instruction) return false
    if (!isMessage(instruction)) {
      for (const needed of dependencies(schedule, instruction)) {
        const index = actionIndex(schedule, needed)
        const isLocal = schedule.rankOfStage[needed.stage] === rank
        if (isLocal ? !done[index] : !received[rank]!.has(index)) {
          problems.push(
            `rank ${rank} begins ${actionName(instruction)} without ${actionName(needed)} (${sends})`,
          )
        }
      }
      done[actionIndex(schedule, instruction)] = 1
    } else if (instruction.kind === 'send') {
      const action = producedBy(instruction)
      if (!done[actionIndex(schedule, action)])
        problems.push(`rank ${rank} sends ${actionName(action)} before it is made`)
      if (sends === 'buffered') channel(rank, instruction.peer).push(action)
      else {
        const other = programs[instruction.peer]![at[instruction.peer]!]
        if (!other || other.kind !== 'receive' || other.peer !== rank) return false
        receive(instruction.peer, other, action)
        at[instruction.peer]! += 1
      }
    } else {
      // A blocking receive is taken along by its send.
      const action = sends === 'buffered' ? channel(instruction.peer, rank).shift() : undefined
      if (!action) return false
      receive(rank, instruction, action)
    }
    at[rank]! += 1
    return true
  }
  let moved = true
  while (moved) {
    moved = false
    for (const rank of programs.keys()) while (advance(rank)) moved = true
  }
  for (const [rank, program] of programs.entries()) {
    const instruction = program[at[rank]!]
    if (instruction)
      problems.push(`rank ${rank} waits for ever in ${instructionName(instruction)} (${sends})`)
  }
  for (const [key, left] of channels) {
    if (left.length > 0) problems.push(`${left.length} messages of channel ${key} are never received`)
  }
  return problems
}

/** The action whose result a message carries. */
function producedBy({ kind, stage, microbatch, direction }: Exclude<Instruction, Action>): Action {
  const forward = direction === 'forward'
  const producer = kind === 'send' ? stage : forward ? stage - 1 : stage + 1
  return { kind: forward ? 'F' : 'B', stage: producer, microbatch }
}

const instructionName = (instruction: Instruction): string =>
  isMessage(instruction)
    ? `${instruction.kind} of ${actionName(producedBy(instruction))} with rank ${instruction.peer}`
    : actionName(instruction)

/** The most (stage, microbatch) pairs at once whose activations a rank keeps that does these actions. */
export function peakActivations(schedule: Schedule, actions: readonly Action[]): number {
  let current = 0
  let peak = 0
  for (const { kind } of actions) {
    if (kind === 'F') peak = Math.max(peak, ++current)
    else if (kind === lastKind(schedule)) current--
  }
  return peak
}

function peakInputs(schedule: Schedule, program: readonly Instruction[]): number {
  const waiting = new Set<number>()
  let peak = 0
  for (const instruction of program) {
    if (isMessage(instruction)) {
      if (instruction.kind === 'receive') waiting.add(actionIndex(schedule, producedBy(instruction)))
      peak = Math.max(peak, waiting.size)
    } else for (const read of dependencies(schedule, instruction)) waiting.delete(actionIndex(schedule, read))
  }
  return peak
}
