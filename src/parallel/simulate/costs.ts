/**
 * What a plan costs each rank, as the builder (build.ts) takes it: seconds and bytes read off graphs and hardware files, or
 * made up in a test. All of it is per rank: a stage's seconds are those of one rank's share of the stage.
 */
import type { LinkLevel } from '../hardware/index.ts'
import type { ActionTimes, Schedule } from '../schedule/index.ts'
import type { Algorithm, CollectiveKind } from './collective-cost.ts'
import type { Axis } from './symmetry.ts'

export interface PlanCosts {
  readonly name: string
  /** Of the mesh, the last running fastest: its ranks are neighbours. */
  readonly axes: readonly Axis[]
  /** The axis that the ranks of the schedule lie along; without one the schedule has one rank. */
  readonly pipelineAxis?: string
  readonly schedule: Schedule
  /** By virtual stage. */
  readonly stages: readonly StageCosts[]
  /** Innermost first, as in hardware files. */
  readonly links: readonly LinkLevel[]
  readonly optimizer: OptimizerCosts
  readonly algorithm?: Algorithm
  /**
   * Whether messages between stages hold up the rank that sends or receives them (`blocking`), or travel while it
   * calculates and hold up only what reads them. Overlapped unless said otherwise.
   */
  readonly messages?: 'overlapped' | 'blocking'
  /** For the utilisation. */
  readonly work?: { readonly modelFlops: number; readonly peakFlops: number }
  readonly injected?: Injected
  /** Simulate every rank, even those that do the same. */
  readonly everyRank?: boolean
}

/** A stage of equal pieces, its layers, that collectives may come between. */
export interface StageCosts {
  readonly pieces: number
  /** Of the whole stage for one microbatch; `B` and `W` are the gradients of input and weights. */
  readonly seconds: ActionTimes
  /** Around each piece of the forward pass, of the gradient of the input, of the gradient of the weights. */
  readonly collectives?: Readonly<Partial<Record<'F' | 'B' | 'W', readonly PieceCollective[]>>>
  /** What one rank hands to the next stage for a microbatch, and gets back as a gradient. */
  readonly outputBytes: number
}

export interface GroupCollective {
  readonly kind: CollectiveKind
  /** Size of the whole value (collective-cost.ts). */
  readonly bytes: number
  /** Names of the mesh axes it runs over. */
  readonly axes: readonly string[]
  /** As so many collectives of equal parts of `bytes`, one after the other; 1 unless said. */
  readonly calls?: number
}

export interface PieceCollective extends GroupCollective {
  /**
   * - `before`: the piece waits for it, and it for the piece before: nothing hides it.
   * - `prefetch`: the piece waits for it; it may run beside the piece before, as gathered weights do.
   * - `after`: it waits for the piece, and the next piece for it: nothing hides it.
   * - `drain`: it waits for the piece, and only the optimizer for it, as reduced gradients do.
   */
  readonly when: 'before' | 'prefetch' | 'after' | 'drain'
  /** Only with the first or the last microbatch that a rank takes through the stage; with each unless said. */
  readonly only?: 'first' | 'last'
}

export interface OptimizerCosts {
  /** By pipeline rank. */
  readonly seconds: readonly number[]
  /** Before it, such as the norm of all gradients, and after it, such as gathering the new weights. Nothing hides them. */
  readonly before?: readonly GroupCollective[]
  readonly after?: readonly GroupCollective[]
}

/** What may go wrong, by real rank. */
export interface Injected {
  /** Arithmetic takes `factor` times as long. */
  readonly slowRanks?: readonly { readonly rank: number; readonly factor: number }[]
  /** A byte through the rank's port of a level takes `factor` times as long. */
  readonly slowLinks?: readonly { readonly rank: number; readonly level: string; readonly factor: number }[]
  readonly failure?: { readonly rank: number; readonly at: number }
}
