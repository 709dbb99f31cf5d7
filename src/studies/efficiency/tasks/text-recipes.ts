/** What the tasks on characters share: a recipe in which everything stands at its usual value, and lists of settings. */
import type { Baseline, Recipe, Setting } from '../task.ts'

/** Settings that the chosen optimizer does not read stand at these too. */
export const plainOptimizer = {
  name: 'sgd',
  rate: 1,
  adamRate: 0.01,
  momentum: 0.9,
  beta1: 0.9,
  beta2: 0.999,
  weightDecay: 0,
  clip: 0,
} as const
export const constantRate = { kind: 'constant', warmup: 0, cooldown: 0 } as const

export interface TextChanges {
  readonly steps: number
  readonly model: { readonly [key: string]: Setting }
  readonly optimizer?: { readonly [key: string]: Setting }
  readonly schedule?: { readonly [key: string]: Setting }
}

/** Windows of 32 characters, 16 a step. */
export const textRecipe = ({ steps, model, optimizer = {}, schedule = {} }: TextChanges): Recipe => ({
  steps,
  batch: 16,
  context: 32,
  model,
  optimizer: { ...plainOptimizer, ...optimizer },
  schedule: { ...constantRate, ...schedule },
})

/** Every pair of two lists of settings, the best guess first. */
export const pairs = (
  first: readonly [key: string, values: readonly Setting[]],
  second: readonly [key: string, values: readonly Setting[]],
): Baseline['trials'] => first[1].flatMap((a) => second[1].map((b) => ({ [first[0]]: a, [second[0]]: b })))

/** The day the first boards were made. */
export const entered = '2026-11-25'
