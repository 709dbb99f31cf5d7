/**
 * What the simulator executes: tasks on ranks. A task begins when all tasks in `after` have ended; tasks on one *lane* of
 * a rank (its arithmetic, or one communicator) moreover follow each other in the order of the list, as kernels on a stream
 * do. Ranks that do the same stand here once, with a count (symmetry.ts). Times are seconds.
 */
import type { CollectiveCost, CollectiveKind } from './collective-cost.ts'

export interface SimulatedPlan {
  readonly name: string
  readonly ranks: readonly SimulatedRank[]
  /** Names of lanes; lane 0 is arithmetic. */
  readonly lanes: readonly string[]
  /** Names of the levels of links, innermost first. */
  readonly levels: readonly string[]
  /** Each direction of each port. */
  readonly links: readonly Link[]
  readonly tasks: readonly Task[]
  readonly collectives: readonly Collective[]
  /** For the utilisation: operations of the whole model in this step, and a rank's peak. */
  readonly work?: { readonly modelFlops: number; readonly peakFlops: number }
  readonly failure?: Failure
}

export interface SimulatedRank {
  /** The first of the real ranks that this one stands for. */
  readonly rank: number
  readonly count: number
  readonly name: string
}

export interface Link {
  readonly level: number
  /** Ranks `port * ranksPerPort` and following. */
  readonly port: number
  readonly direction: 'out' | 'in'
}

/** `F`, `B`, `W` as in schedules. */
export type Category = 'F' | 'B' | 'W' | 'optimizer' | 'collective' | 'message'

interface TaskBase {
  /** Index into `ranks`. */
  readonly rank: number
  readonly category: Category
  readonly label: string
  /** The virtual stage and microbatch, where a task belongs to one. */
  readonly stage?: number
  readonly microbatch?: number
  /** Indices of tasks. */
  readonly after: readonly number[]
}

export interface ComputeTask extends TaskBase {
  readonly kind: 'compute'
  readonly seconds: number
  /** A core that ranks share: it serves one task at a time, in the order in which they become ready. */
  readonly core?: number
}

export interface SendTask extends TaskBase {
  readonly kind: 'send'
  /** Index into `ranks`. */
  readonly to: number
  readonly bytes: number
  readonly level: number
  /** The links it holds, both at once, for `busySeconds`; it arrives `latency` after it has left them. */
  readonly links: readonly number[]
  readonly busySeconds: number
  readonly latency: number
}

/** One rank's part in a collective, which begins when all parts have come to it. */
export interface CollectiveTask extends TaskBase {
  readonly kind: 'collective'
  /** Index into `collectives`. */
  readonly collective: number
  readonly lane: number
}

export type Task = ComputeTask | SendTask | CollectiveTask

export interface Collective {
  readonly kind: CollectiveKind
  readonly label: string
  /** How many tasks take part: fewer than real ranks where ranks stand for others. */
  readonly parts: number
  readonly cost: CollectiveCost
  /** For each entry of `cost.levels`, the links it holds for its seconds. */
  readonly links: readonly (readonly number[])[]
}

/** A rank stops at a time: what it has not ended by then never ends. */
export interface Failure {
  /** Index into `ranks`. */
  readonly rank: number
  readonly at: number
}
