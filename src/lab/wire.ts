/**
 * What crosses between the lab's API and its page, as types. NaN and infinities, which JSON lacks, cross as the strings
 * that the run files use for them.
 */
import type {
  Annotations,
  Checkpoint,
  RunLine,
  RunOrigin,
  RunStatus,
  RunSummary,
  SampleLine,
} from '../runs/index.ts'
import type { JsonObject } from '../runs/index.ts'

export interface RunsReply {
  readonly runs: readonly RunSummary[]
  /** Before the limit. */
  readonly total: number
  readonly skipped: readonly { readonly name: string; readonly reason: string }[]
}

/** One run, all but its curves. */
export interface RunReply {
  readonly summary: RunSummary
  readonly status: RunStatus
  readonly reason: string | null
  readonly annotations: Annotations
  readonly config: JsonObject
  readonly plan: JsonObject
  readonly machine: JsonObject
  readonly parent: RunOrigin | null
  readonly segments: readonly {
    readonly number: number
    readonly fromStep: number
    readonly time: string
    readonly points: number
    readonly status: RunStatus | null
  }[]
  readonly samples: readonly SampleLine[]
  readonly checkpoints: readonly Checkpoint[]
  /** Damage that was passed over. */
  readonly notes: readonly string[]
  /** What one would type to train it again. */
  readonly commandLine: string
}

/** Server-sent events about one run. Each event carries, as its id, the cursor after it. */
export interface RunEvents {
  /** Lines that were written since. */
  readonly lines: readonly RunLine[]
  /** How far that was, for a reader that connects again by itself. */
  readonly cursor: { readonly cursor: string }
  /** The run's status, when it changed, with or without a line about it: a dead process writes none. */
  readonly status: { readonly status: RunStatus; readonly reason: string | null }
  /** The run was replaced or removed: load it again. */
  readonly reset: { readonly gone: boolean }
  /** Nothing happened, and the server is alive. */
  readonly beat: Record<string, never>
}

/** Server-sent events about the list of runs: what changed since the last one. */
export interface ListEvents {
  readonly runs: {
    readonly changed: readonly RunSummary[]
    readonly gone: readonly string[]
    readonly skipped: RunsReply['skipped']
  }
  readonly beat: Record<string, never>
}

/** A process that was asked to train. */
export interface JobReply {
  readonly job: string
  readonly state: 'starting' | 'running' | 'ended' | 'failed'
  /** Once it has one. */
  readonly run: string | null
  /** The last thing it said. */
  readonly message: string
}

export interface ErrorReply {
  readonly error: {
    readonly message: string
    readonly where?: string
    readonly got?: string
    readonly expected?: string
    readonly fix?: string
  }
}

/** Names of settings with their values as text, as on the command line. */
export type Settings = Readonly<Record<string, string>>
