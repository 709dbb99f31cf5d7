/** A curve of a run as a chart takes it: its points, and where more of them can be had when the page holds only some. */
import { curveOf, rateTotals } from '../../../src/lab/curve-of.ts'
import type { Curve } from '../../../src/lab/thinning.ts'
import { runPath } from './api.ts'
import type { LiveRun } from './run-store.ts'
import type { Axis } from './shared.ts'

export interface ChartCurve extends Curve {
  readonly name: string
  /** Index into the palette. */
  readonly color: number
  /** Few points that are exact: drawn with marks, never smoothed. */
  readonly sparse?: boolean
  /** Where the server has the whole of it; undefined when nothing is missing here. */
  readonly address?: string
}

/** Undefined when the run has no such metric. */
export function chartCurve(
  run: LiveRun,
  metric: string,
  axis: Axis,
): Omit<ChartCurve, 'name' | 'color'> | undefined {
  const { columns, whole } = run
  const curve = curveOf(columns, metric, axis)
  if (curve === undefined) return undefined
  const isRate = metric in rateTotals
  const here = columns.metrics.get(metric)?.rows.length ?? Infinity
  const count = isRate ? Infinity : Math.max(here, whole?.metrics[metric] ?? 0)
  // An evaluation is a few exact values among thousands of steps.
  const sparse = count * 10 < Math.max(columns.length, whole?.points ?? 0) || count < 3
  const isThinned = whole !== undefined && (isRate || here < (whole.metrics[metric] ?? 0))
  const words = new URLSearchParams({ metric, axis })
  return { ...curve, sparse, ...(isThinned ? { address: runPath(run.id, `/curve?${words}`) } : {}) }
}
