/**
 * Zero-bubble schedules ("Zero Bubble Pipeline Parallelism"): the backward pass is split, and the gradients of weights,
 * which nobody waits for, fill what would be bubbles. A rank runs them late, the later the further back it stands in the
 * pipeline, so that every rank keeps equally many activations in the end.
 * H1 keeps as many as the first rank of 1F1B, p, for a third of its bubble when the three parts last equally long. H2
 * keeps 2p - 1 and has no bubble between a rank's first and last action; the ranks then begin and end at different
 * times, so it pays off when the optimizer of one rank need not wait for the others.
 */
import { oneStageARank, range } from './orders.ts'
import type { Schedule, ScheduleSize } from './schedule.ts'

export const zeroBubbleH1 = (size: ScheduleSize): Schedule =>
  zeroBubble('zb-h1', size, (rank) => ({ ahead: size.ranks - rank, behind: rank }))

export const zeroBubbleH2 = (size: ScheduleSize): Schedule =>
  zeroBubble('zb-h2', size, (rank) => ({ ahead: 2 * (size.ranks - rank) - 1, behind: 2 * rank }))

/** `ahead` forward passes come before the first backward pass; gradients of weights follow `behind` microbatches late. */
function zeroBubble(
  name: string,
  { ranks, microbatches }: ScheduleSize,
  lead: (rank: number) => { readonly ahead: number; readonly behind: number },
): Schedule {
  return oneStageARank(name, ranks, microbatches, true, (stage, at) => {
    const { ahead, behind } = lead(stage)
    return [
      range(ahead).flatMap((i) => at('F', i)),
      range(microbatches).flatMap((i) => at('B', i).concat(at('W', i - behind), at('F', i + ahead))),
      range(behind).flatMap((i) => at('W', microbatches - behind + i)),
    ].flat()
  })
}
