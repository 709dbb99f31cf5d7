/** A plan in a few words for a table's row, and why others are not possible: the same under every way of ranking them. */
import type { Candidate, SearchResult } from '../parallel/planner/index.ts'
import { formatTable } from './format.ts'

/** Short enough for a row; `--json` has the settings. */
export function describePlan(plan: Candidate): string {
  const { data, pipe, context, tensor, zero, recompute, microbatch, microbatches, schedule, stagesPerRank } =
    plan
  return [
    ...Object.entries({ data, pipe, context, tensor }).flatMap(([name, size]) =>
      size > 1 ? [`${name}=${size}`] : [],
    ),
    ...(context > 1 ? [plan.attention] : []),
    ...(zero > 0 ? [`zero=${zero}`] : []),
    ...(pipe > 1 ? [stagesPerRank > 1 ? `${schedule} x${stagesPerRank}` : schedule] : []),
    `${microbatches} x ${microbatch}`,
    ...(recompute ? ['recompute'] : []),
  ].join(' ')
}

export function rejectedLines(rejected: SearchResult['rejected']): string[] {
  const count = rejected.reduce((sum, one) => sum + one.count, 0)
  return [
    `not possible: ${count}`,
    formatTable(rejected.map((one) => [`  ${one.count}`, one.kind, `e.g. ${one.example}`])),
  ]
}
