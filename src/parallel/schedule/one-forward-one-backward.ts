/**
 * 1F1B, also PipeDream-flush ("Memory-Efficient Pipeline-Parallel DNN Training"): a rank takes in as many microbatches as
 * there are ranks behind it, then alternates one forward and one backward pass. As slow as GPipe, but stage i of p keeps
 * the activations of at most p - i microbatches.
 */
import { oneStageARank, range } from './orders.ts'
import type { Schedule, ScheduleSize } from './schedule.ts'

export function oneForwardOneBackward({ ranks, microbatches }: ScheduleSize): Schedule {
  return oneStageARank('1f1b', ranks, microbatches, false, (stage, at) => {
    const ahead = ranks - 1 - stage
    return [
      range(ahead).flatMap((i) => at('F', i)),
      range(microbatches).flatMap((i) => at('F', i + ahead).concat(at('B', i))),
    ].flat()
  })
}
