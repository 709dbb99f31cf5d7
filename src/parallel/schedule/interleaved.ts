/**
 * Interleaved 1F1B ("Efficient Large-Scale Language Model Training on GPU Clusters Using Megatron-LM"): each rank has v
 * stages, p apart, so a microbatch passes every rank v times and the bubble shrinks v-fold, for v times the messages and
 * somewhat more activations. Microbatches travel in groups of p: a rank takes a group through its first stage, then the
 * same group through its second, and so on; backward in the opposite order of stages. A group that is not full would
 * leave holes, and with many ranks even a deadlock, so the microbatches must divide into groups.
 */
import { badUsage } from '../../errors.ts'
import { range } from './orders.ts'
import type { Action, Schedule, ScheduleSize } from './schedule.ts'

export function interleaved({ ranks, microbatches, stagesPerRank = 2 }: ScheduleSize): Schedule {
  if (microbatches % ranks !== 0) {
    throw badUsage({
      where: 'schedule interleaved',
      got: `${microbatches} microbatches on ${ranks} pipeline ranks`,
      expected: 'a multiple of the ranks',
      fix: `take ${Math.ceil(microbatches / ranks) * ranks} microbatches, or the schedule 1f1b`,
    })
  }
  const chunks = range(stagesPerRank)
  const groups = range(microbatches / ranks).map((group) => range(ranks).map((i) => group * ranks + i))
  /** A rank's actions of one kind, with its stages in the order of `order`. */
  const passes = (kind: 'F' | 'B', rank: number, order: readonly number[]): Action[] =>
    groups.flatMap((group) =>
      order.flatMap((chunk) =>
        group.map((microbatch) => ({ kind, stage: chunk * ranks + rank, microbatch })),
      ),
    )
  const actions = range(ranks).map((rank) => {
    const forward = passes('F', rank, chunks)
    const backward = passes('B', rank, chunks.toReversed())
    // Until the first microbatch comes back to this rank's last stage.
    const ahead = Math.min(forward.length, 2 * (ranks - 1 - rank) + (stagesPerRank - 1) * ranks)
    return forward
      .slice(0, ahead)
      .concat(backward.flatMap((action, i) => forward.slice(ahead + i, ahead + i + 1).concat(action)))
  })
  return {
    name: 'interleaved',
    ranks,
    stages: ranks * stagesPerRank,
    microbatches,
    splitBackward: false,
    rankOfStage: range(ranks * stagesPerRank).map((stage) => stage % ranks),
    actions,
  }
}
