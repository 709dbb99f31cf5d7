/**
 * What one rank of a pipeline executes: the actions of its schedule, with the messages between them said out loud. A
 * forward pass sends its output to the rank of the next stage, a backward pass the gradient of its input to the rank of
 * the stage before; nothing is sent between stages of one rank.
 * Subtle is the order. All ranks take their computations and messages from *one* line in which each message stands once,
 * at the moment its producer ends in the timeline with equal times. A message between two ranks therefore comes at the
 * same place among both ranks' messages, so a first-in-first-out channel for each pair is enough; and sends that block
 * until the other side receives cannot deadlock, since the earliest item of the line that has not happened can always
 * happen. A transport that does not block may begin a receive where it stands and wait for it at the action that reads it.
 */
import type { Action, Schedule } from './schedule.ts'
import { timeline, type TimedAction } from './timeline.ts'

/** Of activations to the next stage, or of gradients to the stage before. */
export type Direction = 'forward' | 'backward'

export interface Message {
  readonly kind: 'send' | 'receive'
  /** This rank's stage: the one that made what is sent, the one that reads what is received. */
  readonly stage: number
  readonly microbatch: number
  /** The other rank. */
  readonly peer: number
  readonly direction: Direction
}

export type Instruction = Action | Message

export const isMessage = (instruction: Instruction): instruction is Message =>
  instruction.kind === 'send' || instruction.kind === 'receive'

/** What `rank` executes. */
export const rankProgram = (schedule: Schedule, rank: number): readonly Instruction[] =>
  rankPrograms(schedule)[rank]!

/** What each rank executes. */
export function rankPrograms(schedule: Schedule): readonly (readonly Instruction[])[] {
  const { rankOfStage } = schedule
  const programs: { time: number; instruction: Instruction }[][] = schedule.actions.map(() => [])
  const add = (rank: number, time: number, instruction: Instruction): void => {
    programs[rank]!.push({ time, instruction })
  }
  const timed = timeline(schedule, { F: 1, B: 1, W: 1 }).ranks.flat()
  // Messages first: a stable sort then puts them before the actions that begin when they come.
  for (const action of timed.toSorted(byEnd)) {
    const to = receiverOf(schedule, action)
    if (!to) continue
    const { stage, microbatch, end } = action
    const [from, peer] = [rankOfStage[stage]!, rankOfStage[to.stage]!]
    add(from, end, { kind: 'send', stage, microbatch, peer, direction: to.direction })
    add(peer, end, { kind: 'receive', stage: to.stage, microbatch, peer: from, direction: to.direction })
  }
  for (const { kind, stage, microbatch, start } of timed) {
    add(rankOfStage[stage]!, start, { kind, stage, microbatch })
  }
  return programs.map((program) =>
    program.toSorted((a, b) => a.time - b.time).map((item) => item.instruction),
  )
}

/** By time; what ends at once in an order that no rank sees differently. */
const byEnd = (a: TimedAction, b: TimedAction): number =>
  a.end - b.end || a.stage - b.stage || a.microbatch - b.microbatch

/** The stage on another rank that needs what an action makes, if there is one. */
export function receiverOf(
  { rankOfStage, stages }: Schedule,
  { kind, stage }: Action,
): { readonly stage: number; readonly direction: Direction } | undefined {
  if (kind === 'W') return undefined
  const next = kind === 'F' ? stage + 1 : stage - 1
  if (next < 0 || next >= stages || rankOfStage[next] === rankOfStage[stage]) return undefined
  return { stage: next, direction: kind === 'F' ? 'forward' : 'backward' }
}
