/**
 * How far a slope would move with other data of the same kind. Up to eight points every one of the n^n resamples is
 * taken, so no chance is involved; above that, 10,000 of them drawn by Philox from a seed, the same on every machine.
 */
import { philoxUniform } from '../compiler/index.ts'
import { fitLine, quantile, slopeOf, type Point } from './line-fit.ts'

export interface Bootstrap {
  readonly low: number
  readonly median: number
  readonly high: number
  readonly resamples: number
  /** Resamples of one single x, which have no slope and are left out. */
  readonly degenerate: number
  readonly exact: boolean
}

export interface BootstrapOptions {
  readonly confidence?: number
  /** Draws from this seed even where all resamples could be taken. */
  readonly seed?: number
  readonly draws?: number
}

const exactUpTo = 8

/** Points drawn with repetition. */
export const pairsBootstrap = (points: readonly Point[], options: BootstrapOptions = {}): Bootstrap =>
  bootstrap(points.length, (chosen) => slopeOf(chosen.map((i) => points[i]!)), options)

/** Points kept, distances from the line exchanged; distances are not scaled up for the two parameters fitted. */
export function residualBootstrap(points: readonly Point[], options: BootstrapOptions = {}): Bootstrap {
  const { slope, intercept } = fitLine(points)
  const onLine = points.map(({ x }) => intercept + slope * x)
  const distances = points.map(({ y }, i) => y - onLine[i]!)
  return bootstrap(
    points.length,
    (chosen) => slopeOf(points.map(({ x }, i) => ({ x, y: onLine[i]! + distances[chosen[i]!]! }))),
    options,
  )
}

function bootstrap(
  size: number,
  slopeOfChoice: (chosen: readonly number[]) => number | null,
  { confidence = 0.95, seed, draws = 10_000 }: BootstrapOptions,
): Bootstrap {
  const exact = seed === undefined && size <= exactUpTo
  const resamples = exact ? size ** size : draws
  const use = { seed: seed ?? 0, step: 0, stream: 0, salt: 0 }
  const slopes: number[] = []
  for (let turn = 0; turn < resamples; turn++) {
    // All resamples are all numbers of `size` digits to the base `size`.
    let rest = turn
    const chosen = Array.from({ length: size }, (_, i) => {
      if (!exact) return Math.floor(size * philoxUniform(use, turn * size + i))
      const digit = rest % size
      rest = (rest - digit) / size
      return digit
    })
    const slope = slopeOfChoice(chosen)
    if (slope !== null) slopes.push(slope)
  }
  const sorted = Float64Array.from(slopes).toSorted()
  return {
    low: quantile(sorted, (1 - confidence) / 2),
    median: quantile(sorted, 0.5),
    high: quantile(sorted, (1 + confidence) / 2),
    resamples,
    degenerate: resamples - slopes.length,
    exact,
  }
}
