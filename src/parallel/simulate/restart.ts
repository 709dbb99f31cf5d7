/**
 * What failures cost a run that restarts from its last checkpoint: the work since then is done again, after the failure
 * has been noticed, the processes started and the state loaded.
 */

export interface RestartCosts {
  readonly stepSeconds: number
  readonly stepsPerCheckpoint: number
  /** By which a checkpoint holds up the run. */
  readonly checkpointSeconds: number
  /** From the failure until the run knows of it. */
  readonly detectSeconds: number
  /** Until all processes are up again and hold the checkpoint. */
  readonly restartSeconds: number
}

export interface FailureCost {
  /** Whole steps that are done again. */
  readonly lostSteps: number
  /** Work done again, the failed step's beginning included. */
  readonly lostSeconds: number
  /** Without work at all. */
  readonly downSeconds: number
}

/** The cost of a failure `secondsIntoStep` after step `step` began; steps count from 0, a checkpoint stands before 0. */
export function failureCost(costs: RestartCosts, step: number, secondsIntoStep: number): FailureCost {
  const lostSteps = step % costs.stepsPerCheckpoint
  return {
    lostSteps,
    lostSeconds: lostSteps * costs.stepSeconds + secondsIntoStep,
    downSeconds: costs.detectSeconds + costs.restartSeconds,
  }
}

/**
 * The share of time that makes progress when failures come once in `meanSeconds` on average: to first order, each costs
 * its down time and half an interval. Not below 0: then no step is ever kept.
 */
export function goodput(costs: RestartCosts, meanSeconds: number): number {
  const work = costs.stepsPerCheckpoint * costs.stepSeconds
  const interval = work + costs.checkpointSeconds
  const lost = interval / 2 + costs.detectSeconds + costs.restartSeconds
  return Math.max(0, (work / interval) * (1 - lost / meanSeconds))
}

/** The best number of steps between checkpoints (Young, "A First Order Approximation to the Optimum Checkpoint Interval"). */
export const bestStepsPerCheckpoint = (
  { stepSeconds, checkpointSeconds }: RestartCosts,
  meanSeconds: number,
): number => Math.max(1, Math.round(Math.sqrt(2 * checkpointSeconds * meanSeconds) / stepSeconds))
