/** What the page has in common with the command line, so that both print the same figures. */
export {
  formatBytes,
  formatCount,
  formatDuration,
  formatFlopRate,
  formatFlops,
  formatMetric,
  formatPercent,
} from '../../../src/cli/format.ts'
export { axes, Columns } from '../../../src/runs/columns.ts'
export type { Axis, MetricColumn } from '../../../src/runs/columns.ts'
export type { RunSummary } from '../../../src/runs/index.ts'
