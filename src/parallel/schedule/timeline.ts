/**
 * When each action of a schedule happens if messages cost nothing: it begins as soon as its rank is free and what it
 * depends on has ended. This is the longest path through the actions, exact in whatever unit the times are given, and it
 * is what the closed forms of the literature (bubbles of GPipe, 1F1B, ...) speak of. What links, collectives and
 * stragglers add is the simulator's matter (../simulate).
 */
import { actionIndex, dependencies, type Action, type Schedule } from './schedule.ts'

/**
 * How long one microbatch takes at one stage. `B` is the gradient of the input and `W` that of the weights; a backward
 * pass that is not split lasts `B + W`. (DeepSeek's tables write B for the whole: their B - W is `B` here.)
 */
export interface ActionTimes {
  readonly F: number
  readonly B: number
  readonly W: number
}

export interface TimedAction extends Action {
  readonly start: number
  readonly end: number
}

export interface Timeline {
  /** The actions of each rank that could happen, in order; all of them unless `stuck` says otherwise. */
  readonly ranks: readonly (readonly TimedAction[])[]
  /** The end of the last action. */
  readonly end: number
  /** For each rank that waits for ever, the action it cannot begin. */
  readonly stuck: readonly { readonly rank: number; readonly action: Action }[]
}

/** How long an action lasts. */
export const durationOf = (schedule: Schedule, { kind }: Action, times: ActionTimes): number =>
  kind === 'B' && !schedule.splitBackward ? times.B + times.W : times[kind]

export function timeline(schedule: Schedule, times: ActionTimes): Timeline {
  const ends = new Float64Array(3 * schedule.stages * schedule.microbatches).fill(-1)
  const ranks: TimedAction[][] = schedule.actions.map(() => [])
  const free = schedule.actions.map(() => 0)
  /** Takes a rank as far as it can go; whether it moved. */
  const advance = (rank: number): boolean => {
    const done = ranks[rank]!
    const before = done.length
    while (done.length < schedule.actions[rank]!.length) {
      const action = schedule.actions[rank]![done.length]!
      let start = free[rank]!
      let ready = true
      for (const needed of dependencies(schedule, action)) {
        const end = ends[actionIndex(schedule, needed)]!
        ready &&= end >= 0
        start = Math.max(start, end)
      }
      if (!ready) break
      const end = start + durationOf(schedule, action, times)
      done.push({ ...action, start, end })
      ends[actionIndex(schedule, action)] = end
      free[rank] = end
    }
    return done.length > before
  }
  // Messages go between a rank and its neighbours, so a sweep in each direction takes a wave all the way.
  const sweep = [...ranks.keys(), ...[...ranks.keys()].toReversed()]
  let moved = true
  while (moved) moved = sweep.filter((rank) => advance(rank)).length > 0
  return {
    ranks,
    end: Math.max(0, ...free),
    stuck: ranks.flatMap((done, rank) => {
      const action = schedule.actions[rank]![done.length]
      return action ? [{ rank, action }] : []
    }),
  }
}

/** The time each rank spends on nothing until the last rank is done. */
export const idleTimes = ({ ranks, end }: Timeline): number[] =>
  ranks.map((actions) => end - actions.reduce((sum, action) => sum + action.end - action.start, 0))

/** The time each rank spends on nothing between its own first and last action. */
export const gapsWithin = ({ ranks }: Timeline): number[] =>
  ranks.map((actions) => {
    const busy = actions.reduce((sum, action) => sum + action.end - action.start, 0)
    return actions.length === 0 ? 0 : actions.at(-1)!.end - actions[0]!.start - busy
  })
