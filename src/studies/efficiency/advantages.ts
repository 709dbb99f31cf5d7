/** How much better than expected an action turned out: what policy gradients weigh it by. */
import type { SwingRecipe } from './models/policy.ts'

/** What happened in a round, [horizon, worlds]. */
export interface Rewards {
  readonly reward: Float32Array
  readonly value: Float32Array
  /** The value of what came after a step, 0 where it arrived. */
  readonly next: Float32Array
  /** Whether the episode ended there, arrived or cut off. */
  readonly ended: Uint8Array
}

export type Advantages = Readonly<Record<'advantage' | 'target' | 'counted', Float32Array>>

/**
 * Advantages and targets of values of a round, and which rows count. By a value: generalised advantages (Schulman et al.,
 * 2015). By returns: an episode that the round did not see to its end does not count.
 */
export function advantagesOf(
  { reward, value, next, ended }: Rewards,
  worlds: number,
  { kind, discount, lambda, standardised }: SwingRecipe['advantage'],
): Advantages {
  const [advantage, target] = [new Float32Array(reward.length), new Float32Array(reward.length)]
  const counted = new Float32Array(reward.length).fill(1)
  for (let world = 0; world < worlds; world++) {
    let [later, whole] = [0, kind === 'value']
    for (let at = reward.length - worlds + world; at >= 0; at -= worlds) {
      if (ended[at]! > 0) [later, whole] = [0, true]
      later =
        kind === 'value'
          ? reward[at]! + discount * next[at]! - value[at]! + discount * lambda * later
          : reward[at]! + discount * later
      advantage[at] = later
      target[at] = kind === 'value' ? later + value[at]! : 0
      if (!whole) counted[at] = 0
    }
  }
  if (kind === 'return' || standardised) centre(advantage, counted, standardised)
  return { advantage, target, counted }
}

function centre(values: Float32Array, counted: Float32Array, standardise: boolean): void {
  let [n, sum, squares] = [0, 0, 0]
  values.forEach((value, i) => {
    n += counted[i]!
    sum += counted[i]! * value
    squares += counted[i]! * value * value
  })
  if (n === 0) return
  const mean = sum / n
  const scale = standardise ? 1 / (Math.sqrt(Math.max(0, squares / n - mean * mean)) + 1e-8) : 1
  values.forEach((value, i) => (values[i] = scale * (value - mean)))
}
