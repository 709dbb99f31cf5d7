/**
 * What a page needs of a run that is too long to be sent whole: a table of the rows at which something was smallest or
 * largest within a pixel's width, and single curves, smoothed over every point before they are thinned. The page asks for
 * those again as one zooms, pans or smooths.
 */
import { axes, Columns, Growing } from '../runs/columns.ts'
import type { Axis, MetricColumn } from '../runs/columns.ts'
import { badUsage } from '../errors.ts'
import { curveOf, rateWindow } from './curve-of.ts'
import { showable, smooth, thin } from './thinning.ts'
import type { Curve } from './thinning.ts'

/** A metric measured more often is thinned. */
const mostWhole = 16_000
/** More than a wide screen has pixels. */
const overviewBuckets = 2000
const mostBuckets = 8000

/** A table of fewer rows with the same extremes, first and last values; undefined when the whole is small enough. */
export function overview(columns: Columns): Columns | undefined {
  if ([...columns.metrics.values()].every(({ rows }) => rows.length <= mostWhole)) return undefined
  const chosen = new Map<string, MetricColumn>()
  const wanted = new Set<number>([0])
  // So that rates go on from here as they would have.
  for (let row = Math.max(0, columns.length - 1 - rateWindow); row < columns.length; row++) wanted.add(row)
  for (const [name, { rows, values }] of columns.metrics) {
    const thinned = thinMetric(rows.values, values.values)
    for (const row of thinned.x) wanted.add(row)
    chosen.set(name, { rows: Growing.of(thinned.x), values: Growing.of(thinned.y) })
  }
  const kept = Float64Array.from(wanted).toSorted()
  const placeOf = new Map(Array.from(kept, (row, place) => [row, place]))
  const pick = (axis: Axis): Growing => Growing.of(kept.map((row) => columns.axes[axis].at(row)))
  const [step, tokens, seconds, flops] = axes.map(pick) as [Growing, Growing, Growing, Growing]
  const metrics = new Map(
    [...chosen].map(([name, { rows, values }]) => [
      name,
      { rows: Growing.of(rows.values.map((row) => placeOf.get(row)!)), values },
    ]),
  )
  return new Columns({ step, tokens, seconds, flops }, metrics)
}

/** Of a metric over its rows, the last value always among it. */
function thinMetric(rows: Float64Array, values: Float64Array): Curve {
  const { x, y } = thin({ x: rows, y: values }, -Infinity, Infinity, overviewBuckets)
  const last = rows.length - 1
  if (last < 0 || x[x.length - 1] === rows[last]) return { x: x.slice(), y: y.slice() }
  return { x: Float64Array.of(...x, rows[last]!), y: Float64Array.of(...y, values[last]!) }
}

/** Which curve, how smooth, and the part and fineness that a screen can show. */
export interface View {
  readonly metric: string
  readonly axis: Axis
  readonly smoothing: number
  readonly logX: boolean
  readonly logY: boolean
  readonly from: number
  readonly to: number
  readonly buckets: number
}

/** As `View`, from the words of an address. */
export function readView(query: Readonly<Record<string, string>>): View {
  const number = (key: string, missing: number): number => {
    const value = query[key] === undefined ? missing : Number(query[key])
    if (!Number.isNaN(value)) return value
    throw badUsage({
      where: key,
      got: `'${query[key]!.slice(0, 40)}'`,
      expected: 'a number',
      fix: `e.g. ${key}=1`,
    })
  }
  const axis = query['axis'] ?? 'step'
  if (!(axes as readonly string[]).includes(axis))
    throw badUsage({
      where: 'axis',
      got: `'${axis.slice(0, 40)}'`,
      expected: axes.join(', '),
      fix: 'choose one',
    })
  return {
    metric: query['metric'] ?? 'loss',
    axis: axis as Axis,
    smoothing: Math.min(0.999, Math.max(0, number('smoothing', 0))),
    logX: query['logX'] === '1',
    logY: query['logY'] === '1',
    from: number('from', -Infinity),
    to: number('to', Infinity),
    buckets: Math.min(mostBuckets, Math.max(1, Math.floor(number('buckets', overviewBuckets)))),
  }
}

/** A curve and its smoothed form, both thinned; empty when the run has no such metric. */
export function drawing(columns: Columns, view: View): readonly [raw: Curve, smoothed: Curve] {
  const { metric, axis, smoothing, logX, logY, from, to, buckets } = view
  const whole = curveOf(columns, metric, axis) ?? { x: new Float64Array(0), y: new Float64Array(0) }
  const drawn = (curve: Curve): Curve => thin(showable(curve, logX, logY), from, to, buckets, logX)
  return [drawn(whole), drawn(smooth(whole, smoothing))]
}
