/**
 * The pictures of docs/parallel.md and docs/parallel-schedules.md, drawn by plans, schedules and the simulator
 * themselves. Run `node src/parallel/pictures.ts` to write them anew; a test holds the files to what this gives.
 */
import { writeFileSync } from 'node:fs'
import { hardwareByName } from './hardware/index.ts'
import { layoutPictures } from './layout-pictures.ts'
import { idleTimes, makeSchedule, timeline } from './schedule/index.ts'
import {
  buildPlan,
  runRows,
  scheduleRows,
  simulate,
  summarize,
  timelineSvg,
  type Injected,
  type PlanCosts,
} from './simulate/index.ts'
import { techniquePictures } from './technique-pictures.ts'

export const imageFolder = new URL('../../docs/images/', import.meta.url)

const ranks = 4
const microbatches = 8

const titles: Readonly<Record<string, string>> = {
  gpipe: 'GPipe',
  '1f1b': '1F1B',
  interleaved: 'Interleaved 1F1B, 2 stages a rank, each half as long',
  'zb-h1': 'Zero bubble H1',
  'zb-h2': 'Zero bubble H2',
  'dualpipe-v': 'DualPipe-V, 2 stages a rank, each half as long',
}

function schedulePicture(name: string, title: string): string {
  const schedule = makeSchedule(name, { ranks, microbatches })
  // Equal models: where a rank has two stages, each has half the work.
  const part = ranks / schedule.stages
  const line = timeline(schedule, { F: part, B: part, W: part })
  const idle = Math.max(...idleTimes(line)) / line.end
  return timelineSvg(scheduleRows(schedule, line), {
    title: `${title}: ${line.end} steps, ${Math.round(100 * idle)} % idle`,
    unit: 'steps',
  })
}

/** A pipeline of four, each stage on two nodes' worth of data-parallel ranks, with made-up but likely costs on H100. */
function trainingStep(injected: Injected): PlanCosts {
  const schedule = makeSchedule('1f1b', { ranks, microbatches })
  const milliseconds = 1e-3
  return {
    name: 'a training step',
    axes: [
      { name: 'data', size: 16 },
      { name: 'pipeline', size: ranks },
      { name: 'tensor', size: 8 },
    ],
    pipelineAxis: 'pipeline',
    schedule,
    stages: schedule.rankOfStage.map(() => ({
      pieces: 2,
      seconds: { F: 12 * milliseconds, B: 12 * milliseconds, W: 12 * milliseconds },
      outputBytes: 128e6,
      collectives: {
        F: [{ kind: 'allReduce', bytes: 256e6, axes: ['tensor'], when: 'after' }],
        B: [{ kind: 'allReduce', bytes: 256e6, axes: ['tensor'], when: 'after' }],
        W: [{ kind: 'reduceScatter', bytes: 800e6, axes: ['data'], when: 'drain', only: 'last' }],
      },
    })),
    links: hardwareByName('h100').links,
    optimizer: {
      seconds: Array<number>(ranks).fill(2 * milliseconds),
      after: [{ kind: 'allGather', bytes: 800e6, axes: ['data'] }],
    },
    injected,
  }
}

function stepPicture(title: string, injected: Injected): string {
  const run = simulate(buildPlan(trainingStep(injected)))
  const { bubbleShare, exposedShare } = summarize(run)
  const percent = (share: number): string => `${Math.round(100 * share)} %`
  // Of each tensor-parallel group one rank is enough: all wait for each other after every piece.
  const shown = runRows(run).filter((_, row) => run.plan.ranks[row]!.rank % 8 === 0)
  return timelineSvg(shown, {
    title: `${title}: bubble ${percent(bubbleShare)}, exposed communication ${percent(exposedShare)}`,
  })
}

/** File names and their text. */
export function pictures(): Readonly<Record<string, string>> {
  const drawn = Object.entries(titles).map(([name, title]) => [
    `schedule-${name}.svg`,
    schedulePicture(name, title),
  ])
  return {
    ...(Object.fromEntries(drawn) as Record<string, string>),
    ...techniquePictures(),
    ...layoutPictures(),
    'simulated-step.svg': stepPicture('512 GPUs, of which 4 differ', {}),
    'simulated-straggler.svg': stepPicture('One GPU 1.3 times as slow', {
      slowRanks: [{ rank: 40, factor: 1.3 }],
    }),
  }
}

if (import.meta.main) {
  for (const [file, svg] of Object.entries(pictures())) writeFileSync(new URL(file, imageFolder), svg)
}
