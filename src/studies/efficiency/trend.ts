/**
 * Whether compute fell over the years, from our own seeds: the frontier of geometric means over dates, its halving time, and
 * an interval by resampling seeds inside each entry, rebuilding the frontier and fitting again. Entries that missed the target
 * in a seed have no mean and stand aside, named. What does not fall is said not to fall.
 */
import { philoxUniform } from '../../compiler/index.ts'
import { compareWithMoore, fitHalving, frontierOf, monthsOf, type Dated, type Halving } from '../halving.ts'
import { quantile, slopeOf } from '../line-fit.ts'
import type { BoardEntry } from './board-files.ts'
import { moments, summarise, type Summary, type Target } from './compare.ts'
import type { EntryDates } from './task.ts'
import { firstCrossing } from './time-to-target.ts'

/** An oldest entry less than this much dearer than the cheapest later one is no gain worth a fit. */
const leastGain = 1.5

const [draws, seed] = [10_000, 2020]

export interface Candidate extends Dated {
  readonly entry: BoardEntry
  readonly summary: Summary
}

export interface Trend {
  /** Which of an entry's dates. */
  readonly by: keyof EntryDates
  readonly target: number
  /** Entries all of whose seeds reached the target, oldest first. */
  readonly candidates: readonly Candidate[]
  readonly censored: readonly BoardEntry[]
  readonly frontier: readonly Candidate[]
  /** The oldest entry's cost over the cheapest one's; 1 where the oldest is the cheapest. */
  readonly gain: number
  /** Of three or more on the frontier. */
  readonly halving: Halving | null
  readonly moore: ReturnType<typeof compareWithMoore> | null
  /** Months to halve, of nested resamples; Infinity: no fall. */
  readonly nested: {
    readonly low: number
    readonly median: number
    readonly high: number
    readonly flat: number
  } | null
  /** In words, what the data support. */
  readonly says: string
}

export function trendOf(entries: readonly BoardEntry[], target: Target, by: keyof EntryDates): Trend {
  const found = entries
    .map((entry) => ({ entry, summary: summarise(entry.runs, target) }))
    .toSorted((a, b) => Date.parse(a.entry.entry.dates[by]) - Date.parse(b.entry.entry.dates[by]))
  const candidates = found.flatMap(({ entry, summary }) =>
    summary.flop === null
      ? []
      : [{ name: entry.entry.id, date: entry.entry.dates[by], cost: summary.flop, entry, summary }],
  )
  const censored = found.flatMap(({ entry, summary }) => (summary.flop === null ? [entry] : []))
  const frontier = frontierOf(candidates)
  const halving = frontier.length >= 3 ? fitHalving(frontier) : null
  const first = candidates[0]
  const gain = first ? first.cost / Math.min(...candidates.map(({ cost }) => cost)) : 1
  const nested = candidates.length >= 3 ? nestedBootstrap(candidates, target) : null
  const moore = halving ? compareWithMoore(halving) : null
  const rest = { by, target: target.target, candidates, censored, frontier, gain, halving, moore, nested }
  return { ...rest, says: inWords(rest) }
}

/** Slopes of log2 cost a month, with seeds drawn anew inside each entry. */
function nestedBootstrap(candidates: readonly Candidate[], { target, sense }: Target): Trend['nested'] {
  const logs = candidates.map(({ entry }) =>
    entry.runs.map(({ curve }) => Math.log2(firstCrossing(curve, target, sense)![0])),
  )
  const use = { seed, step: 0, stream: 0, salt: 0 }
  let turn = 0
  const slopes = Float64Array.from({ length: draws }, () => {
    const redrawn = candidates.map(({ name, date }, i) => {
      const own = logs[i]!
      const drawn = own.map(() => own[Math.floor(own.length * philoxUniform(use, turn++))]!)
      return { name, date, cost: 2 ** moments(drawn).mean }
    })
    const points = frontierOf(redrawn).map(({ date, cost }) => ({ x: monthsOf(date), y: Math.log2(cost) }))
    // A frontier of one point, the oldest entry, does not fall.
    return slopeOf(points) ?? 0
  }).toSorted()
  const months = (slope: number): number => (slope < 0 ? -1 / slope : Infinity)
  return {
    low: months(quantile(slopes, 0.025)),
    median: months(quantile(slopes, 0.5)),
    high: months(quantile(slopes, 0.975)),
    flat: slopes.filter((slope) => slope >= 0).length / draws,
  }
}

function inWords({ by, target, candidates, frontier, gain, halving, nested }: Omit<Trend, 'says'>): string {
  const [first] = candidates
  if (!first || candidates.length < 2)
    return `Too few entries reached ${target} with every seed to compare eras.`
  const cheapest = candidates.reduce((a, b) => (b.cost < a.cost ? b : a))
  if (frontier.length === 1)
    return `No gain: ${first.name}, the oldest entry that reached ${target}, is also the cheapest.`
  const change = `From ${first.name} (${first.date}) to ${cheapest.name} (${cheapest.date}) the compute to ${target} fell ${gain.toFixed(2)} times`
  if (gain < leastGain) return `No gain worth a rate: ${change}, less than ${leastGain}.`
  if (!halving || !nested)
    return `${change}; with ${frontier.length} on the frontier there is no rate to fit.`
  const show = (months: number): string => (Number.isFinite(months) ? months.toFixed(0) : 'never')
  const range = (low: number, high: number): string => `${show(low)} to ${show(high)}`
  return `${change}: a halving in ${halving.months.toFixed(0)} months by ${by} dates, where a line through ${halving.line.points} points that depend on each other is good for ${range(...halving.interval)} (Student’s 95 %) and drawing seeds anew for ${range(nested.low, nested.high)}. One task, one scale.`
}
