/**
 * The law loss = a C^b + c of loss against compute, with a constant c >= 0 (what no amount of compute removes) and without.
 *
 * Least squares of relative errors, so that every point counts alike whatever its loss, and every budget alike however
 * many seeds it has. For a given b the law is linear in a and c and solved exactly; b is searched in one dimension.
 * Intervals are by bootstrap of residuals, scaled up for the parameters fitted; a predicted loss gets one more residual,
 * as it is one more run.
 */
import { philoxUniform } from '../../compiler/index.ts'
import { failure } from '../../errors.ts'
import { quantile, type Interval } from '../line-fit.ts'

export interface LawPoint {
  readonly flops: number
  readonly loss: number
  /** Runs of one budget share one weight. */
  readonly budget: number
}

export interface Law {
  readonly a: number
  readonly b: number
  readonly c: number
  /** Root mean square of relative errors, over budgets. */
  readonly error: number
}

export const lawAt = ({ a, b, c }: Pick<Law, 'a' | 'b' | 'c'>, flops: number): number => a * flops ** b + c

/** Steepest and flattest exponent looked at. */
const exponents = { from: -1.5, to: -0.01 }

export function fitLaw(points: readonly LawPoint[], constant: boolean): Law {
  const budgets = new Set(points.map(({ budget }) => budget)).size
  const bad = points.find(({ flops, loss }) => !(flops > 0 && loss > 0 && Number.isFinite(flops * loss)))
  if (bad || budgets < (constant ? 4 : 3)) {
    throw failure({
      where: 'scaling law',
      got: bad ? `a loss of ${bad.loss} for ${bad.flops} FLOP` : `${budgets} budgets`,
      expected: bad
        ? 'positive finite numbers'
        : `at least ${constant ? 4 : 3}, more than the law has parameters`,
      fix: bad ? 'run it again' : 'finish the runs of the plan',
    })
  }
  const law = closest(points, constant)
  if (!(law.a > 0)) {
    throw failure({
      where: 'scaling law',
      got: `losses that do not fall with compute${risesIn(points)
        .map(({ from, to }) => `, up from ${from} to ${to} FLOP`)
        .join('')}`,
      expected: 'a loss that falls: inverse scaling is reported, not forced into the law',
      fix: 'report the runs as they are',
    })
  }
  return law
}

function closest(points: readonly LawPoint[], constant: boolean): Law {
  const scale = Math.exp(points.reduce((sum, { flops }) => sum + Math.log(flops), 0) / points.length)
  const weights = weightsOf(points)
  const at = (b: number) => solveLinear(points, weights, (flops) => (flops / scale) ** b, constant)
  const b = minimise((b) => at(b).error, exponents)
  const { a, c, error } = at(b)
  return { a: a * scale ** -b, b, c, error }
}

/** Neighbouring budgets where the mean loss is higher for the larger one. */
export function risesIn(points: readonly LawPoint[]): { readonly from: number; readonly to: number }[] {
  const budgets = [...new Set(points.map(({ budget }) => budget))].toSorted((a, b) => a - b)
  const means = budgets.map((budget) => {
    const own = points.filter((point) => point.budget === budget)
    return own.reduce((sum, { loss }) => sum + loss, 0) / own.length
  })
  return budgets.slice(1).flatMap((to, i) => (means[i + 1]! > means[i]! ? [{ from: budgets[i]!, to }] : []))
}

const weightsOf = (points: readonly LawPoint[]): number[] => {
  const count = (budget: number): number => points.filter((point) => point.budget === budget).length
  const budgets = new Set(points.map(({ budget }) => budget)).size
  return points.map(({ budget }) => 1 / count(budget) / budgets)
}

/** loss = a x + c with the least relative error; c is held at 0 where it would be negative. */
function solveLinear(
  points: readonly LawPoint[],
  weights: readonly number[],
  xOf: (flops: number) => number,
  constant: boolean,
): { a: number; c: number; error: number } {
  // In terms of relative errors: a x/L + c/L = 1.
  let [uu, uv, vv, u, v] = [0, 0, 0, 0, 0]
  const xs = points.map(({ flops }) => xOf(flops))
  points.forEach(({ loss }, i) => {
    const [w, p, q] = [weights[i]!, xs[i]! / loss, 1 / loss]
    uu += w * p * p
    uv += w * p * q
    vv += w * q * q
    u += w * p
    v += w * q
  })
  const determinant = uu * vv - uv * uv
  let [a, c] = constant ? [(u * vv - v * uv) / determinant, (v * uu - u * uv) / determinant] : [u / uu, 0]
  if (!(c >= 0)) [a, c] = [u / uu, 0]
  const squares = points.reduce(
    (sum, { loss }, i) => sum + weights[i]! * ((a * xs[i]! + c) / loss - 1) ** 2,
    0,
  )
  return { a, c, error: Math.sqrt(squares) }
}

/** A grid finds the valley, golden sections its floor. */
function minimise(f: (b: number) => number, { from, to }: typeof exponents): number {
  const grid = Array.from({ length: 121 }, (_, i) => from * (to / from) ** (i / 120))
  const values = grid.map(f)
  const best = values.indexOf(Math.min(...values))
  let [low, high] = [grid[Math.max(0, best - 1)]!, grid[Math.min(grid.length - 1, best + 1)]!]
  const golden = (Math.sqrt(5) - 1) / 2
  for (let turn = 0; turn < 60; turn++) {
    const [left, right] = [high - golden * (high - low), low + golden * (high - low)]
    if (f(left) < f(right)) high = right
    else low = left
  }
  return (low + high) / 2
}

export interface Forecast {
  readonly loss: number
  readonly interval: Interval
  /** Of the constant; [0, 0] for a law without. */
  readonly constant: Interval
  readonly exponent: Interval
  readonly confidence: number
  readonly draws: number
}

/** The loss that a law fitted to `points` gives for `flops`, with intervals. */
export function forecast(
  points: readonly LawPoint[],
  flops: number,
  constant: boolean,
  { draws = 1000, confidence = 0.9, seed = 1 } = {},
): Forecast {
  const law = fitLaw(points, constant)
  const budgets = new Set(points.map(({ budget }) => budget)).size
  const inflate = Math.sqrt(budgets / Math.max(1, budgets - (constant ? 3 : 2)))
  const residuals = points.map(({ flops: at, loss }) => inflate * Math.log(loss / lawAt(law, at)))
  const use = { seed, step: 0, stream: 0, salt: 0x1a3 }
  const seen = { loss: [] as number[], c: [] as number[], b: [] as number[] }
  for (let draw = 0; draw < draws; draw++) {
    const residual = (i: number): number => {
      const u = philoxUniform(use, draw * (points.length + 1) + i)
      return residuals[Math.floor(u * residuals.length)]!
    }
    const again = closest(
      points.map((point, i) => ({ ...point, loss: lawAt(law, point.flops) * Math.exp(residual(i)) })),
      constant,
    )
    seen.loss.push(lawAt(again, flops) * Math.exp(residual(points.length)))
    seen.c.push(again.c)
    seen.b.push(again.b)
  }
  const interval = (values: readonly number[]): Interval => {
    const sorted = Float64Array.from(values).toSorted()
    return [quantile(sorted, (1 - confidence) / 2), quantile(sorted, (1 + confidence) / 2)]
  }
  const [loss, constants, exponent] = [interval(seen.loss), interval(seen.c), interval(seen.b)]
  return { loss: lawAt(law, flops), interval: loss, constant: constants, exponent, confidence, draws }
}
