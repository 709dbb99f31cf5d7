/** Pipeline schedules by name: what the planner enumerates and a recipe may ask for. */
import { badUsage, didYouMean } from '../../errors.ts'
import { dualPipeV } from './dualpipe-v.ts'
import { gpipe } from './gpipe.ts'
import { interleaved } from './interleaved.ts'
import { oneForwardOneBackward } from './one-forward-one-backward.ts'
import type { Schedule, ScheduleSize } from './schedule.ts'
import { zeroBubbleH1, zeroBubbleH2 } from './zero-bubble.ts'

export { isMessage, rankProgram, rankPrograms } from './rank-program.ts'
export type { Direction, Instruction, Message } from './rank-program.ts'
export { actionName } from './schedule.ts'
export type { Action, ActionKind, Schedule, ScheduleSize } from './schedule.ts'
export { gapsWithin, idleTimes, timeline } from './timeline.ts'
export type { ActionTimes, TimedAction, Timeline } from './timeline.ts'
export { checkedSchedule, inspectPrograms, inspectSchedule, peakActivations } from './validate.ts'
export type { ScheduleReport } from './validate.ts'

/** How each schedule is made. */
export const schedules = {
  gpipe,
  '1f1b': oneForwardOneBackward,
  interleaved,
  'zb-h1': zeroBubbleH1,
  'zb-h2': zeroBubbleH2,
  'dualpipe-v': dualPipeV,
} as const satisfies Readonly<Record<string, (size: ScheduleSize) => Schedule>>

export type ScheduleName = keyof typeof schedules

/**
 * The schedule of a name and size.
 *
 * @throws UserError when there is no such schedule, or not in that size.
 */
export function makeSchedule(name: string, size: ScheduleSize): Schedule {
  if (!isScheduleName(name)) {
    const near = didYouMean(name, Object.keys(schedules))
    throw badUsage({
      where: 'schedule',
      got: name,
      expected: `one of ${Object.keys(schedules).join(', ')}`,
      fix: near ? `did you mean ${near}?` : 'choose one of them',
    })
  }
  for (const [what, value] of Object.entries(size) as [string, number][]) {
    if (Number.isInteger(value) && value >= 1) continue
    throw badUsage({
      where: `schedule ${name}, ${what}`,
      got: String(value),
      expected: 'a whole number of at least 1',
      fix: 'give a positive whole number',
    })
  }
  return schedules[name](size)
}

const isScheduleName = (name: string): name is ScheduleName => Object.hasOwn(schedules, name)
