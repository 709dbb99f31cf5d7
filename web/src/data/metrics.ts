/**
 * Which charts a run has: metrics that belong on one chart stand together, everything else gets one of its own. Speed is
 * not recorded but follows from the totals. A new metric shows up by itself; a line here only gives it company or a name.
 */
import type { Curve } from './curves.ts'
import type { Axis, Columns } from './shared.ts'
import { formatCount, formatFlopRate } from './shared.ts'

export interface Panel {
  readonly title: string
  readonly metrics: readonly string[]
  readonly format?: (value: number) => string
}

const together: readonly Panel[] = [{ title: 'loss', metrics: ['loss', 'validationLoss'] }]

/** Computed from totals: a rate over the last points. */
export const rates: Readonly<
  Record<string, { readonly of: Axis; readonly format: (value: number) => string }>
> = {
  'tokens / s': { of: 'tokens', format: (v) => formatCount(v) },
  'FLOP / s': { of: 'flops', format: (v) => formatFlopRate(v) },
}

/** The charts for some runs' metrics, the shared ones first. */
export function panelsOf(names: readonly string[]): Panel[] {
  const grouped = together.filter(({ metrics }) => metrics.some((name) => names.includes(name)))
  const alone = names
    .filter((name) => !grouped.some(({ metrics }) => metrics.includes(name)))
    .map((name): Panel => ({ title: name, metrics: [name] }))
  const computed = Object.entries(rates).map(([name, { format }]): Panel => ({
    title: name,
    metrics: [name],
    format,
  }))
  return [...grouped, ...alone, ...(names.length > 0 ? computed : [])]
}

/** Points a rate is taken over. */
const rateWindow = 20

/** One metric over an axis; undefined when the run has none of it. */
export function curveOf(columns: Columns, metric: string, axis: Axis): Curve | undefined {
  const rate = rates[metric]
  if (rate) return rateOf(columns, rate.of, axis)
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
