/**
 * A straight line through points by ordinary least squares, and what can be said of its slope: Student's interval, a
 * test against a given slope, Theil and Sen's median of all slopes, the line without each point in turn.
 */
import { failure } from '../errors.ts'
import { studentCdf, studentQuantile } from './student.ts'

export interface Point {
  readonly x: number
  readonly y: number
}

export interface Line {
  readonly slope: number
  readonly intercept: number
  /** Standard error of the slope; NaN for two points. */
  readonly slopeError: number
  readonly r2: number
  readonly points: number
}

export type Interval = readonly [low: number, high: number]

/** Null where all points lie above one x. */
export function slopeOf(points: readonly Point[]): number | null {
  const [mx, my] = [mean(points.map(({ x }) => x)), mean(points.map(({ y }) => y))]
  let [xx, xy] = [0, 0]
  for (const { x, y } of points) {
    xx += (x - mx) ** 2
    xy += (x - mx) * (y - my)
  }
  // Of equal numbers the mean may differ in the last bit.
  return xx > 1e-20 * (1 + mx * mx) ? xy / xx : null
}

export function fitLine(points: readonly Point[]): Line {
  const slope = slopeOf(points)
  if (slope === null) {
    throw failure({
      where: 'line fit',
      got: `${points.length} points at one x`,
      expected: 'at least two different dates or costs',
      fix: 'add rows',
    })
  }
  const [mx, my] = [mean(points.map(({ x }) => x)), mean(points.map(({ y }) => y))]
  const intercept = my - slope * mx
  const sumOf = (term: (point: Point) => number): number =>
    points.reduce((sum, point) => sum + term(point), 0)
  const rest = sumOf(({ x, y }) => (y - intercept - slope * x) ** 2)
  const spread = sumOf(({ x }) => (x - mx) ** 2)
  return {
    slope,
    intercept,
    slopeError: Math.sqrt(rest / (points.length - 2) / spread),
    r2: 1 - rest / sumOf(({ y }) => (y - my) ** 2),
    points: points.length,
  }
}

/** Student's interval for the slope. */
export function slopeInterval({ slope, slopeError, points }: Line, confidence = 0.95): Interval {
  const reach = studentQuantile((1 + confidence) / 2, points - 2) * slopeError
  return [slope - reach, slope + reach]
}

/** Is the slope below `other`? One-sided. */
export function testSlopeBelow({ slope, slopeError, points }: Line, other: number) {
  const t = (slope - other) / slopeError
  return { t, freedom: points - 2, p: studentCdf(t, points - 2) }
}

export function theilSen(points: readonly Point[]): number {
  const slopes = points.flatMap((a, i) =>
    points.slice(i + 1).flatMap((b) => (a.x === b.x ? [] : [(b.y - a.y) / (b.x - a.x)])),
  )
  return quantile(
    slopes.toSorted((a, b) => a - b),
    0.5,
  )
}

/** Slopes without the first point, without the second, and so on. */
export const leaveOneOut = (points: readonly Point[]): readonly number[] =>
  points.map((_, i) => fitLine(points.toSpliced(i, 1)).slope)

/** Between the two nearest of sorted values, in proportion. */
export function quantile(sorted: ArrayLike<number>, q: number): number {
  const place = q * (sorted.length - 1)
  const below = Math.floor(place)
  const low = sorted[below]!
  return low + ((sorted[Math.min(below + 1, sorted.length - 1)] ?? low) - low) * (place - below)
}

const mean = (values: readonly number[]): number => values.reduce((a, b) => a + b, 0) / values.length
