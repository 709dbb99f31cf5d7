/**
 * What a task of the efficiency study is: a fixed performance to be reached on fixed data, and the entries that try. A task
 * brings its own trainer, which yields what it measured together with exact counts of operations; everything else (seeds,
 * tuning, ladders, boards, statistics) is shared and knows nothing of the task.
 *
 * A new task is a file in tasks/ and a line in tasks/index.ts.
 */
import { trainingPhases, type Program } from '../../compiler/index.ts'

/** What operations were spent on. All but `evaluation` are charged. */
export const phases = [...trainingPhases, 'evaluation'] as const
export type Phase = (typeof phases)[number]
/** Exact integers. */
export type PhaseCounts = Readonly<Record<Phase, number>>

/** What is charged to a run. */
export const chargedFlop = (counts: PhaseCounts): number =>
  phases.reduce((sum, phase) => (phase === 'evaluation' ? sum : sum + counts[phase]), 0)

/** Counts of `times` steps. */
export const timesPhases = (counts: PhaseCounts, times: number): PhaseCounts =>
  mapPhases((phase) => counts[phase] * times)

export const addPhases = (a: PhaseCounts, b: PhaseCounts): PhaseCounts =>
  mapPhases((phase) => a[phase] + b[phase])

export function mapPhases(count: (phase: Phase) => number): PhaseCounts {
  return Object.fromEntries(phases.map((phase) => [phase, count(phase)])) as Record<Phase, number>
}

export const noPhases: PhaseCounts = mapPhases(() => 0)

/** Of one run of a training program, by the meter. */
export const phasesOf = ({ operations }: Pick<Program, 'operations'>): PhaseCounts =>
  mapPhases((phase) => (phase === 'evaluation' ? 0 : operations[phase]))

/** One evaluation during training. `phases` counts everything since the start. */
export interface Measurement {
  readonly phases: PhaseCounts
  /** Optimizer steps taken. */
  readonly step: number
  /** Characters, images or steps of an environment seen so far. */
  readonly samples: number
  /** On the fixed validation set (or episodes). */
  readonly metric: number
}

/** What is read once, when a run has come to its end. */
export interface Ending {
  /** The metric on the test set, where a task has one besides its validation set. */
  readonly test?: number
}

/** Plain JSON, so that it can lie in a file: settings, in groups or not. The trainer checks it. */
export type Recipe = { readonly [key: string]: Setting | { readonly [key: string]: Setting } }
export type Setting = number | string | boolean

export interface Job {
  readonly recipe: Recipe
  readonly seed: number
  /** A measurement is due after so many steps, and at the end. */
  readonly evalEvery: number
}

/**
 * Trains from the start to the end that the recipe declares (its `steps`), and yields a measurement every `evalEvery` steps.
 * Whoever consumes it may stop earlier. The same job gives the same integers everywhere and the same bits on one kind of
 * machine: one thread, no clock, no chance besides the seed. It frees what it holds in a `finally`.
 */
export type Trainer = (job: Job) => AsyncGenerator<Measurement, Ending, void>

/** `fixed-model`: model, batch and data are given, the optimizer is what differs. `open`: anything but the data. */
export type Track = 'fixed-model' | 'open'

/** ISO dates. Which of them a fit uses is always said. */
export interface EntryDates {
  /** Paper of the youngest technique in it. */
  readonly idea: string
  /** First use of the whole as a standard recipe. */
  readonly adopted: string
  /** Into our board. */
  readonly entered: string
}

/** A recipe of an era, before it is tuned. */
export interface Baseline {
  /** Of its folder and of the command line, e.g. `sgd`. */
  readonly id: string
  readonly title: string
  readonly dates: EntryDates
  /** Where idea and adoption are from: titles of papers. */
  readonly sources: string
  readonly recipe: Recipe
  /** Settings tried, the same number for every entry of a task: values by dotted key of the recipe. Best guess first. */
  readonly trials: readonly Readonly<Record<string, Setting>>[]
  /**
   * `steps` of the recipe is only where it ends, nothing is scheduled by it: the tuner may then declare a later or earlier
   * end than the trial had.
   */
  readonly endless: boolean
}

export interface Task {
  /** Of its folder in leaderboards/, e.g. `shakespeare-opt`. */
  readonly id: string
  readonly title: string
  readonly track: Track
  /** What is trained on; null for an environment that is code. */
  readonly data: { readonly file: string; readonly sha256: string } | null
  readonly metric: string
  readonly sense: 'lower' | 'higher'
  /** Targets from easy to hard; the last one is the hardest. */
  readonly ladder: readonly number[]
  /** The target of the ladder that ranks entries. */
  readonly headline: number
  /** The target of suite=quick. */
  readonly quick: number
  /** Of suite=smoke, which also takes only the entries of these ids. */
  readonly smoke: { readonly target: number; readonly entries: readonly string[] }
  readonly evalEvery: number
  /** A run that was charged more than this ends, reached or not. */
  readonly budgetFlop: number
  /** What a sample is: `characters`, `images`, `environment steps`. */
  readonly samples: string
  readonly baselines: readonly Baseline[]
  readonly train: Trainer
}

/** A recipe with some settings changed, each by its dotted key. */
export function withSettings(recipe: Recipe, settings: Readonly<Record<string, Setting>>): Recipe {
  const changed: Record<string, Recipe[string]> = { ...recipe }
  for (const [key, value] of Object.entries(settings)) {
    const [group = '', name] = key.split('.')
    changed[group] =
      name === undefined ? value : ({ ...(changed[group] as Recipe), [name]: value } as Recipe[string])
  }
  return changed
}

/** A baseline whose recipe, until it is tuned, has the settings of its first trial. */
export const withBestGuess = (baseline: Baseline): Baseline => ({
  ...baseline,
  recipe: withSettings(baseline.recipe, baseline.trials[0] ?? {}),
})
