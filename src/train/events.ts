/**
 * What a training run tells whoever watches it. Recipes (`train/language.ts`) call a `TrainObserver`; the CLI draws
 * a status line from it and a server can forward it. Types only: nothing here runs.
 *
 * Units everywhere: seconds, bytes, floating-point operations counted exactly by the compiler. `tokens`, `seconds`
 * and `flops` of a point are totals since the first step of the run, kept up across resumes.
 */
import type { Operations, RecomputeReport } from '../compiler/index.ts'
import type { StepProfile } from './profile.ts'

/** What a run will do and cost, known before its first step. */
export interface TrainPlan {
  readonly parameters: number
  /** Those that one token uses: fewer than all of them when there are experts. */
  readonly activeParameters: number
  /** Training tokens the run will read in all. */
  readonly tokens: number
  readonly flops: number
  readonly flopsPerStep: number
  /** Those of a step by phase and by other conventions, and those of one evaluation, which `flops` leaves out. */
  readonly operations: Operations & { readonly evaluation: number }
  /** The one block of memory every buffer of the step lives in. */
  readonly arenaBytes: number
  /** What lies in a file beside it, and what a step moves to that file and from it (of all ranks). */
  readonly offloadedBytes: number
  readonly movedBytes: number
  /** What of it is computed again instead of kept, where that was asked for. */
  readonly recompute?: RecomputeReport
  /** The most memory the process is expected to hold at once, Node and all: within 5 %. */
  readonly processBytes: number
  readonly steps: number
  /** Measured f32 multiply-add peak of this machine with `threads` threads, FLOP/s. */
  readonly peakFlops: number
  readonly threads: number
  readonly etaSeconds: number
  readonly compileSeconds: number
  /** True when the compiled program was found in the cache. */
  readonly cached: boolean
  readonly data: PlanData
}

export interface PlanData {
  readonly name: string
  readonly trainTokens: number
  readonly validationTokens: number
  readonly vocabSize: number
  readonly tokenizer: string
  /** Files of the data folder that were left out, and why. */
  readonly skipped: readonly { readonly name: string; readonly reason: string }[]
}

/**
 * One measured step. `metrics` holds `loss`, `gradNorm`, `lr`, with experts `imbalance`, with fp16 `lossScale` as well (a step that was skipped
 * because gradients overflowed has no `gradNorm`); an evaluation holds `validationLoss`.
 */
export interface TrainPoint {
  readonly step: number
  readonly tokens: number
  readonly seconds: number
  readonly flops: number
  readonly metrics: Readonly<Record<string, number>>
}

/** Called synchronously from the training loop: every method must return quickly. */
export interface TrainObserver {
  plan?(plan: TrainPlan): void
  /** Something slow begins, e.g. `compiling the training step`. */
  phase?(text: string): void
  /** Something the person should know although the run goes on, e.g. a damaged checkpoint passed over. */
  note?(text: string): void
  point?(point: TrainPoint): void
  evaluation?(point: TrainPoint): void
  sample?(sample: { readonly step: number; readonly prompt: string; readonly text: string }): void
  checkpoint?(checkpoint: { readonly step: number; readonly file: string; readonly bytes: number }): void
}

export interface TrainResult {
  readonly runId: string
  readonly runDir: string
  readonly status: 'finished' | 'interrupted'
  /** Last completed step. */
  readonly step: number
  readonly validationLoss: number | null
  readonly flops: number
  readonly seconds: number
  readonly sample: string | null
  /** Only of a run that was asked for it. */
  readonly profile?: StepProfile
}
