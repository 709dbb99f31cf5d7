/** Learning-rate schedules as functions of the step, in the graph and (for plans and plots) as plain numbers. */
import { Tensor } from '../compiler/index.ts'

export interface Schedule {
  readonly steps: number
  /** Steps of linear warm-up. */
  readonly warmup: number
  /** Fraction of the steps spent on a linear decay to zero at the end. */
  readonly cooldown: number
}

/** Factor on the peak rate: trapezoid (Zhai et al.; Hägele et al., Scaling Laws and Compute-Optimal Training). */
export function scheduleFactor({ steps, warmup, cooldown }: Schedule, step: number): number {
  const decaySteps = Math.max(1, Math.round(steps * cooldown))
  const up = warmup > 0 ? Math.min(1, (step + 1) / warmup) : 1
  const down = cooldown > 0 ? Math.min(1, (steps - step) / decaySteps) : 1
  return Math.max(0, Math.min(up, down))
}

/** The same factor in the graph, from an f32 scalar step. */
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
