/**
 * Fair timing on a machine that is never quite ours: contestants take turns in short slices, in an order that reverses
 * every round, so that a change of clock speed or a busy neighbour hits all of them. Medians are compared, and the ratio
 * within each round shows how far the result can be trusted.
 *
 * Subtle: threads of a contestant whose turn is over do not sleep at once. OpenMP's spin for some milliseconds, on a core
 * that belongs to the next contestant by then: in a slice of 150 ms that cost the next one 3 to 5 %. So nobody is timed
 * before the others have come to rest, nor before a short run has brought its own threads, caches and clock back.
 */
import { setTimeout as sleep } from 'node:timers/promises'

export interface Contestant {
  readonly name: string
  /** Runs k steps; returns the seconds they took. */
  run(k: number): Promise<number>
}

/** Seconds per step of one contestant, one value a slice. */
export interface Timing {
  readonly name: string
  readonly stepsPerSlice: number
  readonly secondsPerStep: readonly number[]
}

/** Milliseconds between slices: several times as long as OpenMP's threads were seen to spin. */
const rest = 30

export interface Slicing {
  readonly rounds: number
  readonly seconds: number
  /** What else belongs into every round, such as measuring the peak. */
  readonly beforeRound?: () => Promise<void>
}

export interface Ratio {
  /** Of the medians: how many times faster than the other. */
  readonly median: number
  /** The lowest and highest ratio of two slices of one round. */
  readonly low: number
  readonly high: number
}

/**
 * Times every contestant in `rounds` slices of about `seconds` each, after warming each up for about a quarter of that,
 * and for an eighth again before every slice.
 */
export async function alternate(
  contestants: readonly Contestant[],
  { rounds, seconds, beforeRound }: Slicing,
): Promise<readonly Timing[]> {
  const entries: { contestant: Contestant; steps: number; times: number[] }[] = []
  for (const contestant of contestants) {
    entries.push({ contestant, steps: await stepsFor(contestant, seconds), times: [] })
  }
  for (let round = 0; round < rounds; round++) {
    await beforeRound?.()
    for (const { contestant, steps, times } of round % 2 ? entries.toReversed() : entries) {
      await sleep(rest)
      await contestant.run(Math.ceil(steps / 8))
      times.push((await contestant.run(steps)) / steps)
    }
  }
  return entries.map(({ contestant, steps, times }) => ({
    name: contestant.name,
    stepsPerSlice: steps,
    secondsPerStep: times,
  }))
}

/** How many steps fill a slice. The doubling runs are the warm-up. */
async function stepsFor(contestant: Contestant, seconds: number): Promise<number> {
  await contestant.run(1)
  for (let steps = 1; ; steps *= 2) {
    const taken = await contestant.run(steps)
    if (taken >= seconds / 8) return Math.max(1, Math.round((seconds * steps) / taken))
  }
}

/** How many times faster `ours` is than `theirs`. */
export function speedRatio(ours: Timing, theirs: Timing): Ratio {
  const rounds = ours.secondsPerStep.map((mine, i) => theirs.secondsPerStep[i]! / mine)
  return {
    median: median(theirs.secondsPerStep) / median(ours.secondsPerStep),
    low: Math.min(...rounds),
    high: Math.max(...rounds),
  }
}

/** The middle value, or the mean of the two middle ones. NaN for no values. */
export function median(values: readonly number[]): number {
  const sorted = values.toSorted((a, b) => a - b)
  const middle = sorted.length / 2
  if (sorted.length === 0) return Number.NaN
  return sorted.length % 2 ? sorted[Math.floor(middle)]! : (sorted[middle - 1]! + sorted[middle]!) / 2
}
