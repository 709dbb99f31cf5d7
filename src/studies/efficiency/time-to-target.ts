/**
 * What a run cost until it had reached a target, by two rules. First crossing: the first evaluation at which the mean of it
 * and the one before is at the target; for curves and fits, and every target of a ladder is read off the same run. Declared
 * stop: the recipe says where it ends, and there the mean over seeds must beat the target by a one-sided t-test; this is
 * what counts, since nobody can stop at a lucky moment.
 */
import { studentCdf } from '../student.ts'
import type { CurvePoint, Run } from './board-files.ts'
import type { Task } from './task.ts'

export type Sense = Task['sense']

/** At least as good as. */
export const reaches = (metric: number, target: number, sense: Sense): boolean =>
  sense === 'lower' ? metric <= target : metric >= target

/** The first crossing, or null where the run ended before: censored, never dropped. */
export function firstCrossing(curve: readonly CurvePoint[], target: number, sense: Sense): CurvePoint | null {
  for (let i = 1; i < curve.length; i++) {
    const smooth = (curve[i - 1]![3] + curve[i]![3]) / 2
    if (reaches(smooth, target, sense)) return curve[i]!
  }
  return null
}

export interface DeclaredStop {
  /** Charged to each run; the same for all unless one diverged. */
  readonly flop: number
  readonly mean: number
  readonly p: number
  /** With p below 0.01 and no failed seed. */
  readonly beats: boolean
}

export const significant = 0.01

/** Whether runs, at the end they declared, beat a target. Null for fewer than two seeds or where one did not get there. */
export function declaredStop(runs: readonly Run[], target: number, sense: Sense): DeclaredStop | null {
  if (runs.length < 2 || runs.some(({ ended }) => ended !== 'declared')) return null
  const last = runs.map(({ curve }) => curve.at(-1)!)
  const gains = last.map(([, , , metric]) => (sense === 'lower' ? target - metric : metric - target))
  const n = gains.length
  const gain = gains.reduce((a, b) => a + b, 0) / n
  const variance = gains.reduce((sum, one) => sum + (one - gain) ** 2, 0) / (n - 1)
  const p = variance === 0 ? (gain > 0 ? 0 : 1) : 1 - studentCdf(gain / Math.sqrt(variance / n), n - 1)
  return {
    flop: Math.max(...last.map(([flop]) => flop)),
    mean: sense === 'lower' ? target - gain : target + gain,
    p,
    beats: p < significant,
  }
}
