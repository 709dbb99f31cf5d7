/**
 * Halving times: how many months a cost took to halve, from a line through log2 of the cost against the date. Nothing
 * here is a rate of progress by itself: points of a frontier are running minima and depend on each other, so intervals
 * are indicative, and callers say so.
 */
import { pairsBootstrap, residualBootstrap, type Bootstrap } from './bootstrap.ts'
import { failure } from '../errors.ts'
import {
  fitLine,
  leaveOneOut,
  slopeInterval,
  testSlopeBelow,
  theilSen,
  type Interval,
  type Line,
  type Point,
} from './line-fit.ts'

export interface Dated {
  readonly name: string
  /** ISO. */
  readonly date: string
  readonly cost: number
}

export interface Halving {
  /** log2 of the cost against months. */
  readonly line: Line
  readonly months: number
  /** Student's, 95 %. */
  readonly interval: Interval
  /** First cost over last. */
  readonly factor: number
  /** Between first and last. */
  readonly span: number
}

/** More ways to look at the same points; all in months. */
export interface HalvingDetails {
  readonly pairs: Bootstrap
  readonly seededPairs: Bootstrap
  readonly residuals: Bootstrap
  readonly theilSen: number
  readonly endpoints: number
  readonly leaveOneOut: readonly number[]
}

const daysPerMonth = 30.436875
const origin = Date.UTC(2012, 5, 1)

/** Months since AlexNet's. */
export const monthsOf = (date: string): number => (Date.parse(date) - origin) / 86_400_000 / daysPerMonth

/** A slope as months per halving; a rising cost never halves. */
const monthsPerHalving = (slope: number): number => (slope < 0 ? -1 / slope : Infinity)

const pointsOf = (rows: readonly Dated[]): readonly Point[] =>
  rows.map(({ date, cost }) => ({ x: monthsOf(date), y: Math.log2(cost) }))

/** Rows that cost less than every earlier one, oldest first; of one day only the cheapest can. */
export function frontierOf<D extends Dated>(rows: readonly D[]): readonly D[] {
  const sorted = rows.toSorted((a, b) => Date.parse(a.date) - Date.parse(b.date) || a.cost - b.cost)
  let least = Infinity
  return sorted.filter(({ cost }) => {
    const lower = cost < least
    if (lower) least = cost
    return lower
  })
}

export function fitHalving(rows: readonly Dated[]): Halving {
  const wrong = rows.find(({ cost }) => !(cost > 0 && Number.isFinite(cost)))
  if (rows.length < 3 || wrong !== undefined) {
    throw failure({
      where: wrong === undefined ? 'halving time' : `cost of ${wrong.name}`,
      got: wrong === undefined ? `${rows.length} rows` : String(wrong.cost),
      expected: wrong === undefined ? 'at least 3, for an interval' : 'a positive number',
      fix: 'complete the table',
    })
  }
  const points = pointsOf(rows)
  const line = fitLine(points)
  const [low, high] = slopeInterval(line)
  const [first, last] = [rows[0]!, rows.at(-1)!]
  return {
    line,
    months: monthsPerHalving(line.slope),
    interval: [monthsPerHalving(low), monthsPerHalving(high)],
    factor: first.cost / last.cost,
    span: monthsOf(last.date) - monthsOf(first.date),
  }
}

export function halvingDetails(rows: readonly Dated[], seed: number): HalvingDetails {
  const points = pointsOf(rows)
  const { factor, span } = fitHalving(rows)
  return {
    pairs: inMonths(pairsBootstrap(points)),
    seededPairs: inMonths(pairsBootstrap(points, { seed })),
    residuals: inMonths(residualBootstrap(points)),
    theilSen: monthsPerHalving(theilSen(points)),
    endpoints: monthsPerHalving(-Math.log2(factor) / span),
    leaveOneOut: leaveOneOut(points).map(monthsPerHalving),
  }
}

function inMonths(slopes: Bootstrap): Bootstrap {
  const { low, median, high } = slopes
  return {
    ...slopes,
    low: monthsPerHalving(low),
    median: monthsPerHalving(median),
    high: monthsPerHalving(high),
  }
}

/** Moore's Law as a doubling in 24 months: its factor over the same time, and whether the costs fell faster. */
export function compareWithMoore({ line, span }: Halving, doublingMonths = 24) {
  return { factor: 2 ** (span / doublingMonths), ...testSlopeBelow(line, -1 / doublingMonths) }
}
