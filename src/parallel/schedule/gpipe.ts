/**
 * GPipe ("GPipe: Efficient Training of Giant Neural Networks using Pipeline Parallelism"): all forward passes, then all
 * backward passes. Simple, and every rank keeps the activations of all microbatches.
 */
import { oneStageARank, range } from './orders.ts'
import type { Schedule, ScheduleSize } from './schedule.ts'

export function gpipe({ ranks, microbatches }: ScheduleSize): Schedule {
  return oneStageARank('gpipe', ranks, microbatches, false, (_stage, at) =>
    (['F', 'B'] as const).flatMap((kind) => range(microbatches).flatMap((i) => at(kind, i))),
  )
}
