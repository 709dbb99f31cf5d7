/**
 * Statistics of compute over seeds, on ln FLOP, since what matters are factors: geometric means with intervals, the ratio of
 * two entries and its split into samples and FLOP a sample, and whether one entry is a record against another.
 */
import { studentCdf, studentQuantile } from '../student.ts'
import type { Run } from './board-files.ts'
import { firstCrossing, significant, type Sense } from './time-to-target.ts'

export interface Summary {
  readonly seeds: number
  readonly reached: number
  /** Geometric mean over all seeds; null where one did not reach the target. */
  readonly flop: number | null
  /** Student's, 95 %, on ln FLOP. */
  readonly interval: readonly [low: number, high: number] | null
  readonly samples: number | null
  /** Standard deviation of ln FLOP. */
  readonly spread: number | null
  /** Where a seed is missing: every run together cost at least this, as a geometric mean. */
  readonly atLeast: number
}

export interface Target {
  readonly target: number
  readonly sense: Sense
}

export function summarise(runs: readonly Run[], { target, sense }: Target): Summary {
  const crossings = runs.map(({ curve }) => firstCrossing(curve, target, sense))
  const reached = crossings.filter((one) => one !== null)
  // A run that missed the target would have cost more than it did.
  const floor = runs.map(({ curve }, i) => crossings[i]?.[0] ?? curve.at(-1)?.[0] ?? 1)
  const whole = runs.length > 0 && reached.length === runs.length
  const logs = moments(floor.map(Math.log))
  const reach = runs.length > 1 ? studentQuantile(0.975, runs.length - 1) * logs.error : NaN
  return {
    seeds: runs.length,
    reached: reached.length,
    flop: whole ? Math.exp(logs.mean) : null,
    interval: whole && runs.length > 1 ? [Math.exp(logs.mean - reach), Math.exp(logs.mean + reach)] : null,
    samples: whole ? Math.exp(moments(reached.map(([, , samples]) => Math.log(samples))).mean) : null,
    spread: whole && runs.length > 1 ? logs.deviation : null,
    atLeast: Math.exp(logs.mean),
  }
}

interface Moments {
  readonly count: number
  readonly mean: number
  readonly deviation: number
  /** Of the mean. */
  readonly error: number
}

export function moments(values: readonly number[]): Moments {
  const count = values.length
  const mean = values.reduce((a, b) => a + b, 0) / count
  const deviation =
    count > 1 ? Math.sqrt(values.reduce((sum, value) => sum + (value - mean) ** 2, 0) / (count - 1)) : NaN
  return { count, mean, deviation, error: deviation / Math.sqrt(count) }
}

export interface Welch {
  readonly t: number
  readonly freedom: number
  /** One-sided: that the first mean is not below the second. */
  readonly p: number
}

/** Welch's test of two means without a common variance. */
export function welch(a: Moments, b: Moments): Welch {
  const [va, vb] = [a.error ** 2, b.error ** 2]
  const freedom = (va + vb) ** 2 / (va ** 2 / (a.count - 1) + vb ** 2 / (b.count - 1))
  const t = (a.mean - b.mean) / Math.sqrt(va + vb)
  // Without any spread there is no test: what is lower is lower.
  if (va + vb === 0) return { t, freedom: Infinity, p: a.mean < b.mean ? 0 : 1 }
  return { t, freedom, p: studentCdf(t, freedom) }
}

export interface Ratio {
  /** Cost of the first over cost of the second. */
  readonly flop: number
  readonly interval: readonly [low: number, high: number] | null
  /** Of samples, and of FLOP for each sample; their product is `flop`. */
  readonly split: { readonly samples: number; readonly perSample: number }
  readonly p: number | null
}

/** Null where an entry has a seed that did not reach the target. */
export function ratio(a: readonly Run[], b: readonly Run[], target: Target): Ratio | null {
  const [first, second] = [summarise(a, target), summarise(b, target)]
  if (first.flop === null || second.flop === null) return null
  const factor = first.flop / second.flop
  const samples = first.samples! / second.samples!
  const split = { samples, perSample: factor / samples }
  if (a.length < 2 || b.length < 2) return { flop: factor, interval: null, split, p: null }
  const [ma, mb] = [logCosts(a, target), logCosts(b, target)]
  const { freedom, p } = welch(mb, ma)
  const reach = Number.isFinite(freedom)
    ? studentQuantile(0.975, freedom) * Math.hypot(ma.error, mb.error)
    : 0
  return { flop: factor, interval: [factor * Math.exp(-reach), factor * Math.exp(reach)], split, p }
}

const logCosts = (runs: readonly Run[], { target, sense }: Target): Moments =>
  moments(runs.flatMap(({ curve }) => firstCrossing(curve, target, sense)?.[0] ?? []).map(Math.log))

/** What a record needs. */
export const recordRules = { seeds: 10, gain: 0.02, failures: 1 } as const

export interface Verdict {
  readonly record: boolean
  /** Every rule that is not met, in words. */
  readonly reasons: readonly string[]
}

/** Whether runs are a record against those of the standing one. */
export function recordVerdict(candidate: readonly Run[], standing: readonly Run[], target: Target): Verdict {
  const reasons: string[] = []
  const { seeds, reached } = summarise(candidate, target)
  if (seeds < recordRules.seeds) reasons.push(`${seeds} seeds, where a record needs ${recordRules.seeds}`)
  const failed = seeds - reached
  if (failed > (recordRules.failures * seeds) / recordRules.seeds)
    reasons.push(`${failed} of ${seeds} seeds did not reach ${target.target}`)
  // A failed seed that the rules allow has no cost to count.
  const [ours, theirs] = [logCosts(candidate, target), logCosts(standing, target)]
  const share = Math.exp(ours.mean - theirs.mean)
  if (!(share <= 1 - recordRules.gain))
    reasons.push(
      `${(100 * share).toFixed(1)} % of the standing cost, where at most ${100 * (1 - recordRules.gain)} % is a gain`,
    )
  const { p } = welch(ours, theirs)
  if (!(p < significant)) reasons.push(`Welch's test gives p = ${p.toPrecision(2)}, not below ${significant}`)
  return { record: reasons.length === 0, reasons }
}
