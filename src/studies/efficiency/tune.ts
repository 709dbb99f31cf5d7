/**
 * Choosing the settings of a baseline: every entry of a task gets the same number of trials from a published list, on a seed
 * that no reported run has. The trial that reaches the headline target with the fewest operations wins. A trial ends at its
 * target, and when it has cost more than the best so far, which cannot change who wins; what it cost is kept and shown.
 */
import type { Trial } from './board-files.ts'
import { chargedFlop, withSettings, type Baseline, type Recipe, type Task } from './task.ts'
import { firstCrossing } from './time-to-target.ts'
import { trainOnce, type Watch } from './train-once.ts'

export const tuningSeed = 1000

/** How much further than its trial an endless recipe goes: seeds differ by less. */
const reserve = 1.25

/** Null when interrupted. `best`: the cheapest trial so far. */
export async function runTrial(
  task: Task,
  { recipe, trials }: Baseline,
  trial: number,
  best: () => number,
  { signal, point: see }: Watch,
): Promise<Trial | null> {
  const settings = trials[trial]!
  const { headline: target, sense } = task
  const reached: { flop: number | null; step: number | null } = { flop: null, step: null }
  let dearer = false
  const done = await trainOnce(task, withSettings(recipe, settings), tuningSeed, {
    ...(signal ? { signal } : {}),
    point(curve, measured) {
      see?.(curve, measured)
      const crossing = firstCrossing(curve, target, sense)
      if (crossing) [reached.flop, reached.step] = crossing
      else dearer = curve.at(-1)![0] > best()
      return crossing !== null || dearer
    },
  })
  if (!done) return null
  return {
    trial,
    settings,
    ended: done.ended === 'enough' ? (dearer ? 'dearer' : 'reached') : done.ended,
    ...reached,
    last: done.ended === 'diverged' ? null : (done.curve.at(-1)?.[3] ?? null),
    spent: chargedFlop(done.phases),
  }
}

export const cheapest = (trials: readonly Trial[]): number =>
  Math.min(Infinity, ...trials.map(({ flop }) => flop ?? Infinity))

/** The recipe that tuning decides on. */
export function chosenRecipe(task: Task, baseline: Baseline, trials: readonly Trial[]): Recipe {
  const worth = ({ last }: Trial): number =>
    last === null ? Infinity : task.sense === 'lower' ? last : -last
  const [best] = trials.toSorted(
    (a, b) => (a.flop ?? Infinity) - (b.flop ?? Infinity) || worth(a) - worth(b) || a.trial - b.trial,
  )
  if (!best) return baseline.recipe
  const recipe = withSettings(baseline.recipe, best.settings)
  if (!baseline.endless || best.step === null) return recipe
  const steps = Math.ceil((reserve * best.step) / task.evalEvery) * task.evalEvery
  return { ...recipe, steps }
}
