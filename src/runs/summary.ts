/**
 * A run in one row: where it stands and, per metric, its first, last, smallest and largest value with the step of
 * each. What `anneal runs` lists and the SQLite index stores. NaN and infinities are counted, never compared, so a
 * diverged run still shows the best loss it had.
 */
import type { PointLine, RunStatus } from './lines.ts'
import type { Run } from './reader.ts'
import type { JsonObject, RunOrigin } from './writer.ts'

export interface RunSummary {
  readonly id: string
  readonly recipe: string
  readonly created: string
  readonly status: RunStatus
  /** Last step of the history, with the totals at it. */
  readonly step: number
  readonly tokens: number
  readonly seconds: number
  readonly flops: number
  readonly segments: number
  /** The settings in force. */
  readonly config: JsonObject
  readonly tags: readonly string[]
  readonly note: string
  readonly archived: boolean
  /** Of a fork: where it started from. */
  readonly parent: RunOrigin | null
  readonly metrics: Readonly<Record<string, MetricSummary>>
}

/** `min`, `max` are null when no finite value was measured. */
export interface MetricSummary {
  readonly count: number
  readonly nonFinite: number
  readonly last: At
  readonly min: At | null
  readonly max: At | null
}

export interface At {
  readonly value: number
  readonly step: number
}

/** Sums up a run that was read. */
export function summarise(run: Run): RunSummary {
  const end = run.points.at(-1)
  return {
    id: run.meta.id,
    recipe: run.meta.recipe,
    created: run.meta.created,
    status: run.status,
    step: end?.step ?? 0,
    tokens: end?.tokens ?? 0,
    seconds: end?.seconds ?? 0,
    flops: end?.flops ?? 0,
    segments: run.segments.length,
    config: run.config,
    ...run.annotations,
    parent: run.meta.parent ?? null,
    metrics: summariseMetrics(run.points),
  }
}

/** Per metric over points ascending by step. Of equal extremes the earliest step is kept. */
export function summariseMetrics(points: readonly PointLine[]): Record<string, MetricSummary> {
  const metrics: Record<string, MetricSummary> = {}
  for (const { step, metrics: values } of points) {
    for (const [name, value] of Object.entries(values)) {
      const old = metrics[name]
      const here: At = { value, step }
      const finite = Number.isFinite(value)
      metrics[name] = {
        count: (old?.count ?? 0) + 1,
        nonFinite: (old?.nonFinite ?? 0) + (finite ? 0 : 1),
        last: here,
        min: finite && !(old?.min && old.min.value <= value) ? here : (old?.min ?? null),
        max: finite && !(old?.max && old.max.value >= value) ? here : (old?.max ?? null),
      }
    }
  }
  return metrics
}
