/**
 * A pipeline schedule: what each pipeline rank computes, in which order. The model is cut into *virtual stages*, each on
 * one rank, and the batch into microbatches; an action takes one microbatch through one stage. A schedule says nothing of
 * time and names no message: how long it takes is the timeline's matter (timeline.ts), what is sent when is a
 * rank program's (rank-program.ts). Subtle: `B` is the whole backward pass of a stage unless the schedule splits it; then
 * `B` is the gradient of the stage's input, which the stage before waits for, and `W` that of its weights, which nobody
 * waits for before the optimizer.
 */

/** Forward; backward, or the gradient of the input if the backward pass is split; the gradient of the weights. */
export type ActionKind = 'F' | 'B' | 'W'

export interface Action {
  readonly kind: ActionKind
  /** The virtual stage. */
  readonly stage: number
  readonly microbatch: number
}

export interface Schedule {
  readonly name: string
  readonly ranks: number
  readonly stages: number
  readonly microbatches: number
  /** The backward pass is two actions, `B` and `W`. */
  readonly splitBackward: boolean
  /** The rank of each virtual stage. */
  readonly rankOfStage: readonly number[]
  /** What each rank does, in order. */
  readonly actions: readonly (readonly Action[])[]
}

/** How a schedule is asked for. */
export interface ScheduleSize {
  readonly ranks: number
  readonly microbatches: number
  /** Virtual stages on each rank, for schedules that let one choose. */
  readonly stagesPerRank?: number
}

/** The action whose end completes a microbatch's gradient of weights, and with it frees what its forward pass kept. */
export const lastKind = (schedule: Schedule): 'B' | 'W' => (schedule.splitBackward ? 'W' : 'B')

/** The kinds that must happen to each microbatch at each stage. */
export const kindsOf = (schedule: Schedule): readonly ActionKind[] =>
  schedule.splitBackward ? ['F', 'B', 'W'] : ['F', 'B']

/** What must have ended before an action can begin, whatever the order of its rank. */
export function dependencies(schedule: Schedule, { kind, stage, microbatch }: Action): Action[] {
  switch (kind) {
    case 'F':
      return stage === 0 ? [] : [{ kind: 'F', stage: stage - 1, microbatch }]
    case 'B': {
      const own: Action = { kind: 'F', stage, microbatch }
      return stage === schedule.stages - 1 ? [own] : [own, { kind: 'B', stage: stage + 1, microbatch }]
    }
    case 'W':
      return [{ kind: 'B', stage, microbatch }]
  }
}

/** A number for each possible action, dense from 0 to 3 * stages * microbatches. */
export function actionIndex(schedule: Schedule, { kind, stage, microbatch }: Action): number {
  const offset = kind === 'F' ? 0 : kind === 'B' ? 1 : 2
  return (offset * schedule.stages + stage) * schedule.microbatches + microbatch
}

/** `F3` for microbatch 3; `F3.1` where stages need telling apart. */
export const actionName = ({ kind, stage, microbatch }: Action, withStage = true): string =>
  withStage ? `${kind}${microbatch}.${stage}` : `${kind}${microbatch}`
