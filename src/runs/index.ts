/**
 * The run store: what happened in a run, when, at which step, token and FLOP. Append-only files are the truth
 * (`lines.ts` says what is in them), everything else is derived. Start with `createRun` to write and `readRun` to
 * read; the SQLite index is `index-db.ts`, apart so that training never loads SQLite.
 */
export { createRun, reopenRun, RunWriter } from './writer.ts'
export type { JsonObject, NewRun, RunMeta } from './writer.ts'
export { readRun } from './reader.ts'
export type { Checkpoint, Run, Segment } from './reader.ts'
export { findRun, listRuns } from './find.ts'
export type { RunList, Skipped } from './find.ts'
export { summarise, summariseMetrics } from './summary.ts'
export type { At, MetricSummary, RunSummary } from './summary.ts'
export type { PointLine, RunStatus, SampleLine } from './lines.ts'
