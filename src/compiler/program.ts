/**
 * What `compile` returns, whatever it was compiled for: costs that are known before it runs, memory by path, and a step.
 */
import { failure, type UserError } from '../errors.ts'
import { whole as wholeLayout } from './graph/mesh.ts'
import type { Func } from './graph/node.ts'
import type { Operations } from './meter.ts'
import { typeError, type ValueType } from './graph/types.ts'
import type { Profile } from './profile.ts'
import type { Memory, Traffic } from './ranked-native.ts'
import type { HeldPiece, Partitioned } from './ranked.ts'
import type { RecomputeReport } from './recompute.ts'
import type { ArenaLayout } from './targets/c/build.ts'
import type { OutlinedPhase } from './targets/c/outline.ts'

export type Values = Memory

export interface ProgramMemory {
  /** Everything: what the program allocates, once, when it is opened. */
  readonly arenaBytes: number
  /** What lies in a file instead. */
  readonly offloadedBytes: number
  /** What one run moves to the file and from it, all ranks together. */
  readonly movedBytes: number
  readonly stateBytes: number
  readonly inputBytes: number
  readonly outputBytes: number
  readonly temporaryBytes: number
  /** The most bytes of temporaries alive at once; no plan can need less. */
  readonly lowerBound: number
}

/** One process of those that run a program together. */
export interface RankProcess {
  readonly rank: number
  /** What every process has in the place of `mine`, in the order of ranks. All must call it. */
  exchange(mine: Uint8Array): Uint8Array[]
  /** Messages about a rank that does not come name the step: this many are done. */
  countFrom(step: number): void
}

export interface Program {
  /** Floating-point operations of one run, of all ranks together. */
  readonly flops: number
  /** The same by phase of training, and by other conventions. */
  readonly operations: Operations
  readonly memory: ProgramMemory
  /** The emitted C program; empty for the reference target. */
  readonly source: string
  /** Where inputs and outputs lie in the arena of the C program; state is both. None for the reference target. */
  readonly layout: ArenaLayout
  /** The function after all common passes. */
  readonly func: Func
  /** What was chosen, where something was: `recompute` is 'full' or a budget. */
  readonly recomputed?: RecomputeReport
  readonly compileSeconds: number
  /** The native code came from the cache. */
  readonly cached: boolean
  /** Of a program over several ranks: their mesh, the local programs, and how their inputs and results lie. */
  readonly cut?: Partitioned
  /** What ranks do in a step, call by call; those of a pipeline stage alike. Empty for the reference target. */
  readonly outline: readonly {
    readonly ranks: readonly number[]
    readonly phases: readonly OutlinedPhase[]
  }[]
  /** Only where ranks are processes: this one among them. */
  readonly process?: RankProcess
  /** Paths and types of inputs and outputs, whole. */
  readonly inputs: ReadonlyMap<string, ValueType>
  readonly outputs: ReadonlyMap<string, ValueType>
  /** Memory of an input or output: a live view for native programs. bf16 and f16 show as their 16 bits. */
  view(path: string): Values
  /** What each rank in this process holds of an input or output: live windows of its memory. One device is one rank. */
  pieces(path: string): readonly HeldPiece[]
  /** Copies values into an input (or state). */
  write(path: string, values: ArrayLike<number>): void
  /** Writes the given inputs and runs once. Outputs are then read with `view`. */
  run(inputs?: Readonly<Record<string, ArrayLike<number>>>): Promise<void>
  /** Runs once on the calling thread, which it blocks; worth it for programs of microseconds. */
  runBlocking(): void
  /** FLOPs counted so far by a checking build. */
  countedFlops(): number
  /** What each collective of a program over several ranks has sent so far; empty for others and for the reference. */
  traffic(): Traffic[]
  /** Bytes that have moved so far, to the file of what is offloaded and from it; of all ranks in this process. */
  movedBytes(): number
  /**
   * Compares the state that ranks hold alike, by hashes.
   * @throws UserError naming the ranks that have other bits than most.
   */
  checkReplicas(): void
  /**
   * Compares the state of each rank in this process with what the last `checkReplicas` saw; nothing may have run since.
   * @throws UserError naming the rank, also where no other holds the same part.
   */
  checkUnchanged(): void
  /**
   * What the runs since the last call of `profile` cost, kernel by kernel.
   * @throws UserError for a program compiled without `profile: true`.
   */
  profile(): Profile
  close(): void
}

/** What one device holds: everything. */
export const wholePiece = (data: HeldPiece['data'], { shape }: ValueType): HeldPiece => ({
  rank: 0,
  layout: wholeLayout(shape.length),
  data,
})

export function checkLength(program: string, path: string, wanted: number, values: ArrayLike<number>): void {
  if (values.length === wanted) return
  throw typeError(`${program}: input '${path}'`, `${values.length} values`, `${wanted}`, 'check the shape')
}

export function fillView(program: string, path: string, target: Values, values: ArrayLike<number>): void {
  checkLength(program, path, target.length, values)
  target.set(values)
}

export const notProfiled = (program: string): UserError =>
  failure({
    where: `profile of ${program}`,
    got: 'a program that does not record what its kernels cost',
    expected: 'a native program compiled for it',
    fix: 'compile it with { profile: true }',
  })
