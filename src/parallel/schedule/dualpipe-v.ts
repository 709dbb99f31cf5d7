/**
 * DualPipe-V (DeepSeek's DualPipe cut in half): each rank holds one stage on the way down and one on the way back up, as
 * the letter V, so the rank with the first stage also has the last one, and the second half of the pipeline feeds the
 * backward passes that fill the first half's wait. A rank's two stages are called `down` and `up` here.
 * Subtle: where the published schedule runs a forward and a backward pass at the same time, hiding the one's messages
 * behind the other's arithmetic, the two stand here one after the other; a simulation with messages overlaps them anyway.
 * Needs at least two microbatches a rank.
 */
import { badUsage } from '../../errors.ts'
import { range } from './orders.ts'
import type { Action, ActionKind, Schedule, ScheduleSize } from './schedule.ts'

export function dualPipeV({ ranks, microbatches }: ScheduleSize): Schedule {
  if (microbatches < 2 * ranks) {
    throw badUsage({
      where: 'schedule dualpipe-v',
      got: `${microbatches} microbatches on ${ranks} pipeline ranks`,
      expected: `at least ${2 * ranks}, two for each rank`,
      fix: 'take more microbatches, or the schedule zb-h1',
    })
  }
  return {
    name: 'dualpipe-v',
    ranks,
    stages: 2 * ranks,
    microbatches,
    splitBackward: true,
    rankOfStage: range(2 * ranks).map((stage) => (stage < ranks ? stage : 2 * ranks - 1 - stage)),
    actions: range(ranks).map((rank) => orderOf(rank, ranks, microbatches)),
  }
}

function orderOf(rank: number, ranks: number, microbatches: number): Action[] {
  const down = rank
  const up = 2 * ranks - 1 - rank
  const behind = ranks - 1 - rank
  const actions: Action[] = []
  const next = new Map<string, number>()
  const act = (kind: ActionKind, stage: number): void => {
    const key = `${kind}${stage}`
    const microbatch = next.get(key) ?? 0
    next.set(key, microbatch + 1)
    actions.push({ kind, stage, microbatch })
  }
  const late: number[] = []
  const forward = (stage: number): void => act('F', stage)
  const backward = (stage: number, weightsLater = false): void => {
    act('B', stage)
    if (weightsLater) late.push(stage)
    else act('W', stage)
  }
  const weights = (): void => {
    const stage = late.shift()
    if (stage !== undefined) act('W', stage)
  }
  const times = (count: number, body: (i: number) => void): void => range(Math.max(0, count)).forEach(body)

  // Fill: until the first microbatch has come down to the last rank and up again.
  times(2 * behind, () => forward(down))
  times(rank + 1, () => {
    forward(down)
    forward(up)
  })
  times(behind, () => {
    backward(up)
    forward(up)
  })
  // Steady state: both stages take turns.
  times(microbatches - 2 * ranks + rank + 1, () => {
    forward(down)
    backward(up)
    forward(up)
    backward(down)
  })
  times(behind, () => {
    backward(up)
    forward(up)
    backward(down)
  })
  // Drain: from the middle on, gradients of weights are kept for the gaps at the end.
  const pairs = rank + 1
  times(2 * pairs, (i) => backward(i % 2 === 0 ? up : down, i >= pairs))
  times(behind, () => {
    weights()
    backward(down, true)
  })
  while (late.length > 0) weights()
  return actions
}
