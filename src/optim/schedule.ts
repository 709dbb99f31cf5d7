/** Learning-rate schedules, computed in the graph from the step number. */
import { Tensor } from '../compiler/index.ts'

export interface Schedule {
  readonly steps: number
  /** Steps of linear warm-up. */
  readonly warmup: number
  /** Fraction of the steps spent on a linear decay to zero at the end. */
  readonly cooldown: number
}

/**
 * Factor on the peak rate from an f32 scalar step (from 0): a trapezoid (Zhai et al., Scaling Vision Transformers;
 * Hägele et al., Scaling Laws and Compute-Optimal Training Beyond Fixed Training Durations).
 */
export function scheduleTensor({ steps, warmup, cooldown }: Schedule, step: Tensor): Tensor {
  const decaySteps = Math.max(1, Math.round(steps * cooldown))
  let factor = step.mul(0).add(1)
  if (warmup > 0) factor = factor.min(step.add(1).mul(1 / warmup))
  if (cooldown > 0)
    factor = factor.min(
      step
        .neg()
        .add(steps)
        .mul(1 / decaySteps),
    )
  return factor.max(0)
}
