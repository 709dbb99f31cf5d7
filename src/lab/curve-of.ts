/**
 * One curve of a run: a metric over an axis, or a rate that is not recorded but follows from the totals. Used by the page
 * and by the server alike.
 */
import type { Axis, Columns } from '../runs/columns.ts'
import type { Curve } from './thinning.ts'

/** Computed from totals: how much of them went by in a second, over the last points. */
export const rateTotals: Readonly<Record<string, Axis>> = { 'tokens / s': 'tokens', 'FLOP / s': 'flops' }

/** Points a rate is taken over. */
export const rateWindow = 20

/** One metric over an axis; undefined when the run has none of it. */
export function curveOf(columns: Columns, metric: string, axis: Axis): Curve | undefined {
  const total = rateTotals[metric]
  if (total) return rateOf(columns, total, axis)
  const column = columns.metrics.get(metric)
  if (column === undefined) return undefined
  const rows = column.rows.values
  const places = columns.axes[axis].values
  const x = new Float64Array(rows.length)
  for (let i = 0; i < rows.length; i++) x[i] = places[rows[i]!]!
  return { x, y: column.values.values.slice() }
}

function rateOf(columns: Columns, of: Axis, axis: Axis): Curve | undefined {
  const [amount, seconds, places] = [
    columns.axes[of].values,
    columns.axes.seconds.values,
    columns.axes[axis].values,
  ]
  const n = amount.length
  if (n < 3) return undefined
  const x = new Float64Array(n - 1)
  const y = new Float64Array(n - 1)
  for (let i = 1; i < n; i++) {
    const from = Math.max(0, i - rateWindow)
    const time = seconds[i]! - seconds[from]!
    x[i - 1] = places[i]!
    y[i - 1] = time > 0 ? (amount[i]! - amount[from]!) / time : Number.NaN
  }
  return { x, y }
}
