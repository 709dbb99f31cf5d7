/**
 * What a simulated step comes to. Each rank's step is cut into three: arithmetic; *exposed* communication, when it
 * calculates nothing and a collective it takes part in, or a message to it, is under way; and *bubble*, when it just waits
 * for others. Means are over real ranks.
 */
import type { SimulatedRun } from './engine.ts'
import type { Category } from './plan.ts'

export interface RankSummary {
  readonly computeSeconds: number
  readonly exposedSeconds: number
  readonly bubbleSeconds: number
  /** All communication that ran, hidden or not; what overlaps counts once. */
  readonly communicationSeconds: number
  readonly secondsByCategory: Readonly<Record<Category, number>>
}

export interface LevelSummary {
  readonly name: string
  /** Sent by all real ranks together, and by the one that sends most. */
  readonly totalBytes: number
  readonly bytesOfBusiestRank: number
  /** The share of the step that the busiest port is held. */
  readonly busyShare: number
}

export interface StepSummary {
  readonly seconds: number
  /** By simulated rank. */
  readonly ranks: readonly RankSummary[]
  readonly levels: readonly LevelSummary[]
  /** Shares of the step: with the share of arithmetic they make 1. */
  readonly bubbleShare: number
  readonly exposedShare: number
  /** The model's operations to what all ranks could have done at their peak in this time. */
  readonly utilisation?: number
}

type Interval = readonly [from: number, to: number]

export function summarize(run: SimulatedRun): StepSummary {
  const { plan, seconds, start, end, linkBusy } = run
  const compute: Interval[][] = plan.ranks.map(() => [])
  const communication: Interval[][] = plan.ranks.map(() => [])
  const byCategory = plan.ranks.map(() => ({ F: 0, B: 0, W: 0, optimizer: 0, collective: 0, message: 0 }))
  const sent = plan.ranks.map(() => plan.levels.map(() => 0))
  for (const [index, task] of plan.tasks.entries()) {
    if (Number.isNaN(end[index]!)) continue
    const interval: Interval = [start[index]!, end[index]!]
    byCategory[task.rank]![task.category] += interval[1] - interval[0]
    if (task.kind === 'compute') compute[task.rank]!.push(interval)
    else if (task.kind === 'send') {
      communication[task.to]!.push(interval)
      sent[task.rank]![task.level]! += task.bytes
    } else {
      communication[task.rank]!.push(interval)
      const { levels } = plan.collectives[task.collective]!.cost
      for (const { level, sentBytes } of levels) sent[task.rank]![level]! += sentBytes
    }
  }
  const ranks = plan.ranks.map((_, rank): RankSummary => {
    const busy = lengthOf(compute[rank]!)
    const working = lengthOf(compute[rank]!.concat(communication[rank]!))
    return {
      computeSeconds: busy,
      exposedSeconds: working - busy,
      bubbleSeconds: seconds - working,
      communicationSeconds: lengthOf(communication[rank]!),
      secondsByCategory: byCategory[rank]!,
    }
  })
  const realRanks = plan.ranks.reduce((sum, { count }) => sum + count, 0)
  const mean = (of: (rank: RankSummary) => number): number =>
    ranks.reduce((sum, rank, i) => sum + of(rank) * plan.ranks[i]!.count, 0) / realRanks
  return {
    seconds,
    ranks,
    levels: plan.levels.map((name, level) => ({
      name,
      totalBytes: plan.ranks.reduce((sum, { count }, rank) => sum + count * sent[rank]![level]!, 0),
      bytesOfBusiestRank: Math.max(...sent.map((bytes) => bytes[level]!)),
      busyShare: plan.links.reduce(
        (most, link, i) => (link.level === level ? Math.max(most, linkBusy[i]! / seconds) : most),
        0,
      ),
    })),
    bubbleShare: mean(({ bubbleSeconds }) => bubbleSeconds) / seconds,
    exposedShare: mean(({ exposedSeconds }) => exposedSeconds) / seconds,
    ...(plan.work ? { utilisation: plan.work.modelFlops / (seconds * realRanks * plan.work.peakFlops) } : {}),
  }
}

/** The length of the union. */
function lengthOf(intervals: readonly Interval[]): number {
  let length = 0
  let reached = 0
  for (const [from, to] of intervals.toSorted((a, b) => a[0] - b[0])) {
    if (to <= reached) continue
    length += to - Math.max(from, reached)
    reached = to
  }
  return length
}
