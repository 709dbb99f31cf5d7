/** Small parts that the generators share. */
import type { Action, ActionKind, Schedule } from './schedule.ts'

/** 0, 1, ... length - 1. */
export const range = (length: number): number[] => Array.from({ length }, (_, i) => i)

/**
 * A schedule in which rank i holds stage i and nothing else. `order` gets a function that gives an action of the stage as
 * a list, empty for a microbatch that does not exist.
 */
export function oneStageARank(
  name: string,
  ranks: number,
  microbatches: number,
  splitBackward: boolean,
  order: (stage: number, at: (kind: ActionKind, microbatch: number) => Action[]) => readonly Action[],
): Schedule {
  return {
    name,
    ranks,
    stages: ranks,
    microbatches,
    splitBackward,
    rankOfStage: range(ranks),
    actions: range(ranks).map((stage) =>
      order(stage, (kind, i) => (i >= 0 && i < microbatches ? [{ kind, stage, microbatch: i }] : [])),
    ),
  }
}
