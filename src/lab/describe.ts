/** One run in words and figures, for the page: what `readRun` would tell, from a history that is kept up to date. */
import { summarise } from '../runs/index.ts'
import type { MetricSummary, Run } from '../runs/index.ts'
import type { Columns, MetricColumn } from '../runs/columns.ts'
import { runOf, toSegment } from '../runs/reader.ts'
import { settingsOf, typedSetting } from '../runs/settings.ts'
import type { History } from './history.ts'
import type { RunReply } from './wire.ts'

/** Damage that is listed one by one. */
const mostNotes = 50

/** Describes the run in `dir`. `self` is how this command line is called. */
export function describe(dir: string, id: string, history: History, self: string): RunReply {
  const run = withoutPoints(dir, id, history)
  const { meta, config, status, reason, annotations, segments, samples, checkpoints, notes } = run
  const more = notes.length - mostNotes
  return {
    summary: { ...summarise(run), ...totals(history.columns), metrics: figures(history.columns) },
    status,
    reason,
    annotations,
    config,
    plan: meta.plan,
    machine: meta.machine,
    parent: meta.parent ?? null,
    segments: segments.map(({ number, fromStep, time, status: last }) => ({
      number,
      fromStep,
      time,
      points: history.segments.get(number)!.points,
      status: last?.status ?? null,
    })),
    samples,
    checkpoints,
    notes: more > 0 ? [...notes.slice(0, mostNotes), `and ${more} more`] : notes,
    commandLine: [
      self,
      'train',
      meta.recipe,
      ...settingsOf(config).map(([key, value]) => typedSetting(key, value)),
    ].join(' '),
  }
}

/** The run as `readRun` gives it, but for its points. */
function withoutPoints(dir: string, id: string, history: History): Run {
  const records = [...history.segments.values()]
  const segments = records.flatMap(({ number, lines: [header, ...rest] }) =>
    header?.kind === 'segment' ? [toSegment(number, header, rest)] : [],
  )
  return runOf(dir, id, segments, [...records.flatMap(({ notes }) => notes), ...history.foreign])
}

function totals({ axes, length }: Columns): { step: number; tokens: number; seconds: number; flops: number } {
  const at = (axis: keyof typeof axes): number => (length === 0 ? 0 : axes[axis].at(length - 1))
  return { step: at('step'), tokens: at('tokens'), seconds: at('seconds'), flops: at('flops') }
}

const figures = ({ axes, metrics }: Columns): Record<string, MetricSummary> =>
  Object.fromEntries([...metrics].map(([name, column]) => [name, figuresOf(column, axes.step.values)]))

/** What `summariseMetrics` says of a metric. */
function figuresOf({ rows, values }: MetricColumn, steps: Float64Array): MetricSummary {
  const all = values.values
  let [least, most, nonFinite] = [-1, -1, 0]
  for (let i = 0; i < all.length; i++) {
    const value = all[i]!
    if (!Number.isFinite(value)) nonFinite++
    else {
      if (least < 0 || value < all[least]!) least = i
      if (most < 0 || value > all[most]!) most = i
    }
  }
  const at = (i: number): { value: number; step: number } => ({ value: all[i]!, step: steps[rows.at(i)]! })
  return {
    count: all.length,
    nonFinite,
    last: at(all.length - 1),
    min: least < 0 ? null : at(least),
    max: most < 0 ? null : at(most),
  }
}
