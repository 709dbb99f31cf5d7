/**
 * Small pictures made of characters: a sparkline on one line, and a plot of a few series against steps. Points that
 * fall into one column are averaged, so that a noisy loss shows its course; values that are not finite are left out.
 */
import { formatCount, formatMetric } from './format.ts'

export interface Series {
  /** One character that draws it. */
  readonly mark: string
  readonly name: string
  readonly points: readonly { readonly step: number; readonly value: number }[]
}

const bars = '▁▂▃▄▅▆▇█'

/** The course of `values` in at most `width` characters; empty when nothing is finite. */
export function sparkline(values: readonly number[], width = 40): string {
  const finite = values.filter((value) => Number.isFinite(value))
  const columns = Math.min(width, finite.length)
  const means = Array.from({ length: columns }, (_, i) =>
    mean(
      finite.slice(
        Math.floor((i * finite.length) / columns),
        Math.floor(((i + 1) * finite.length) / columns),
      ),
    ),
  )
  const low = Math.min(...means)
  const range = Math.max(...means) - low
  return means
    .map((m) => bars[range === 0 ? 0 : Math.round(((m - low) / range) * (bars.length - 1))])
    .join('')
}

/** A plot `width` x `height` characters inside its axes; later series draw over earlier ones. Empty without points. */
export function plot(series: readonly Series[], { width = 64, height = 12 } = {}): string {
  const finite = series.map((s) => ({ ...s, points: s.points.filter(({ value }) => Number.isFinite(value)) }))
  const all = finite.flatMap(({ points }) => points)
  if (all.length === 0) return ''
  const [firstStep, lastStep] = extent(all.map(({ step }) => step))
  const columnOf = (step: number): number =>
    Math.round(((step - firstStep) / Math.max(1, lastStep - firstStep)) * (width - 1))
  const curves = finite.map(({ mark, points }) => ({
    mark,
    means: [...Map.groupBy(points, ({ step }) => columnOf(step))].map(
      ([column, group]) => [column, mean(group.map(({ value }) => value))] as const,
    ),
  }))
  const [low, high] = extent(curves.flatMap(({ means }) => means.map(([, value]) => value)))
  const rows = Array.from({ length: height }, () => Array<string>(width).fill(' '))
  for (const { mark, means } of curves) {
    for (const [column, value] of means) {
      const row = high === low ? height - 1 : Math.round(((high - value) / (high - low)) * (height - 1))
      rows[row]![column] = mark
    }
  }
  const labels = rows.map((_, row) =>
    row === 0 ? formatMetric(high) : row === height - 1 ? formatMetric(low) : '',
  )
  const margin = Math.max(...labels.map((label) => label.length))
  const body = rows.map((row, i) => `${labels[i]!.padStart(margin)} │${row.join('')}`.trimEnd())
  const [left, right] = [`step ${formatCount(firstStep)}`, formatCount(lastStep)]
  const axis = `${' '.repeat(margin)} └${'─'.repeat(width)}`
  const steps = `${' '.repeat(margin + 2)}${left}${right.padStart(Math.max(1, width - left.length))}`
  const legend = finite.filter(({ points }) => points.length > 0).map(({ mark, name }) => `${mark} ${name}`)
  return [...body, axis, steps, `${' '.repeat(margin + 2)}${legend.join('   ')}`].join('\n')
}

const mean = (values: readonly number[]): number =>
  values.reduce((sum, value) => sum + value, 0) / values.length

function extent(values: readonly number[]): [low: number, high: number] {
  let low = Infinity
  let high = -Infinity
  for (const value of values) {
    low = Math.min(low, value)
    high = Math.max(high, value)
  }
  return [low, high]
}
