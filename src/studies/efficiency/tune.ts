/**
 * Choosing the settings of a baseline, by one rule for all. First every entry of a task tries the same number of settings,
 * a published list, once; then the best few are run with two more seeds, since an old optimizer may be lucky once. The one
 * that misses the headline target least, and among those the cheapest by geometric mean, is the entry's recipe. No seed here
 * is one of a reported run. What all this cost is kept and shown.
 *
 * A trial ends at its target, and once it has cost half as much again as the best so far: it could not be among the best few,
 * which must lie within that, so that who they are does not depend on which trial ran first.
 */
import type { Trial } from './board-files.ts'
import { moments } from './compare.ts'
import { chargedFlop, withSettings, type Baseline, type Recipe, type Task } from './task.ts'
import { firstCrossing } from './time-to-target.ts'
import { trainOnce, type Watch } from './train-once.ts'

const firstSeed = 1000
const moreSeeds = [1001, 1002]
const finalists = 3
const slack = 1.5

/** How much further than the slowest of its trials an endless recipe goes: other seeds differ. */
const reserve = 1.25

export interface TrialJob {
  readonly trial: number
  readonly seed: number
}

/** What is still to be run: the first round, and when that is complete the second. */
export function missingTrials({ trials: settings }: Baseline, done: readonly Trial[]): readonly TrialJob[] {
  const isDone = (job: TrialJob): boolean =>
    done.some(({ trial, seed }) => trial === job.trial && seed === job.seed)
  const first = settings.map((_, trial) => ({ trial, seed: firstSeed })).filter((job) => !isDone(job))
  if (first.length > 0) return first
  return bestFew(done)
    .flatMap(({ trial }) => moreSeeds.map((seed) => ({ trial, seed })))
    .filter((job) => !isDone(job))
}

/** Of the first round: those within half as much again as the best; where none reached the target, the nearest. */
function bestFew(done: readonly Trial[]): readonly Trial[] {
  const first = done.filter(({ seed }) => seed === firstSeed)
  const limit = slack * cheapest(first)
  const within = Number.isFinite(limit) ? first.filter(({ flop }) => flop !== null && flop <= limit) : first
  return within
    .toSorted((a, b) => (a.flop ?? 0) - (b.flop ?? 0) || a.miss - b.miss || a.trial - b.trial)
    .slice(0, finalists)
}

const cheapest = (trials: readonly Trial[]): number =>
  Math.min(Infinity, ...trials.filter(({ seed }) => seed === firstSeed).map(({ flop }) => flop ?? Infinity))

/** Null when interrupted. `done` grows while trials run. */
export async function runTrial(
  task: Task,
  { recipe, trials }: Baseline,
  { trial, seed }: TrialJob,
  done: readonly Trial[],
  { signal, point: see }: Watch,
): Promise<Trial | null> {
  const settings = trials[trial]!
  const { headline: target, sense } = task
  const reached: { flop: number | null; step: number | null } = { flop: null, step: null }
  let dearer = false
  const found = await trainOnce(task, withSettings(recipe, settings), seed, {
    ...(signal ? { signal } : {}),
    point(curve, measured) {
      see?.(curve, measured)
      const crossing = firstCrossing(curve, target, sense)
      if (crossing) [reached.flop, reached.step] = crossing
      else dearer = seed === firstSeed && curve.at(-1)![0] > slack * cheapest(done)
      return crossing !== null || dearer
    },
  })
  if (!found) return null
  const last = found.curve.at(-1)?.[3]
  return {
    trial,
    seed,
    settings,
    ended: found.ended === 'enough' ? (dearer ? 'dearer' : 'reached') : found.ended,
    ...reached,
    miss:
      last === undefined || found.ended === 'diverged'
        ? 1e9
        : sense === 'lower'
          ? last - target
          : target - last,
    spent: chargedFlop(found.phases),
  }
}

/** The setting that tuning decides on, with its trials. */
export function chosenTrial(done: readonly Trial[]): readonly Trial[] {
  const rows = bestFew(done).map(({ trial }) => done.filter((one) => one.trial === trial))
  const missed = (row: readonly Trial[]): number => row.filter(({ flop }) => flop === null).length
  const mean = (row: readonly Trial[]): number =>
    moments(row.flatMap(({ flop }) => (flop === null ? [] : Math.log(flop)))).mean
  const miss = (row: readonly Trial[]): number => moments(row.map((one) => one.miss)).mean
  const order = (a: readonly Trial[], b: readonly Trial[]): number =>
    missed(a) - missed(b) || (missed(a) === a.length ? miss(a) - miss(b) : mean(a) - mean(b))
  return rows.toSorted(order)[0] ?? []
}

/** The recipe that tuning decides on. */
export function chosenRecipe(task: Task, baseline: Baseline, done: readonly Trial[]): Recipe {
  const trials = chosenTrial(done)
  const [best] = trials
  if (!best) return baseline.recipe
  const recipe = withSettings(baseline.recipe, best.settings)
  const slowest = Math.max(...trials.map(({ step }) => step ?? Infinity))
  if (!baseline.endless || !Number.isFinite(slowest)) return recipe
  return { ...recipe, steps: Math.ceil((reserve * slowest) / task.evalEvery) * task.evalEvery }
}
