/**
 * The run store: what happened in a run, when, at which step, token and FLOP. Append-only files are the truth
 * (`lines.ts` says what is in them), everything else is derived. Start with `createRun` to write and `readRun` to
 * read; the SQLite index is `index-db.ts`, apart so that training never loads SQLite.
 */
export { createRun, reopenRun, RunWriter } from './writer.ts'
export type { JsonObject, NewRun, RunMeta, RunOrigin } from './writer.ts'
export { readRun } from './reader.ts'
export type { Checkpoint, Run, Segment } from './reader.ts'
export { annotate } from './annotations.ts'
export type { Annotations } from './annotations.ts'
export { findRun, isRunFolder, listRuns } from './find.ts'
export type { RunList, Skipped } from './find.ts'
export { summarise, summariseMetrics } from './summary.ts'
export type { At, MetricSummary, RunSummary } from './summary.ts'
export { parseQuery, searchRuns } from './query.ts'
export { readStatus, readTail } from './tail.ts'
export type { Tail } from './tail.ts'
export { lockHolder } from './lock.ts'
export type { CheckpointLine, PointLine, RunLine, RunStatus, SampleLine } from './lines.ts'
