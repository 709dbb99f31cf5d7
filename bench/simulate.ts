/**
 * `npm run bench simulate`: how long the simulator takes for a step of a 70B model on 1,024 H100, once with ranks that do
 * the same simulated once, and (`--every`) with all of them one by one. The costs are those of one transformer layer by
 * hand, split over 8 tensor-parallel ranks: what the plan would take is printed, but is no claim about any run.
 */
import { parseArgs } from 'node:util'
import { hardwareByName, memorySeconds, productSeconds } from '../src/parallel/hardware/index.ts'
import { makeSchedule } from '../src/parallel/schedule/index.ts'
import {
  buildPlan,
  shardedCollectives,
  simulate,
  summarize,
  type PieceCollective,
  type PlanCosts,
} from '../src/parallel/simulate/index.ts'
import { machineLine } from './facts.ts'

const hardware = hardwareByName('h100')
const [layers, width, inner, keyWidth, tokens] = [80, 8192, 28_672, 1024, 8192]
const [data, pipeline, tensor, microbatches] = [32, 4, 8, 16]

function plan(schedule: ReturnType<typeof makeSchedule>, everyRank: boolean): PlanCosts {
  const product = (n: number, k: number): number => productSeconds(hardware, 'bf16', tokens, n, k)
  // Two products over half of the pairs, at less than half of the peak, as attention kernels do.
  const attention = (2 * 2 * tokens * (tokens / 2) * width) / tensor / (0.45 * hardware.peak.bf16!)
  const forward =
    product((width + 2 * keyWidth) / tensor, width) +
    attention +
    product(width, width / tensor) +
    product((2 * inner) / tensor, width) +
    product(width, inner / tensor) +
    memorySeconds(hardware, (20 * tokens * width * 2) / tensor)
  const parameters = (2 * width * width + 2 * width * keyWidth + 3 * width * inner) / tensor
  const rankParameters = (parameters * layers) / pipeline
  const sharded = shardedCollectives(1, ['data'], {
    pieceParameters: 2 * parameters,
    pieceGradients: 4 * parameters,
    rankParameters: 2 * rankParameters,
  })
  // Tensor and sequence parallel: gather before, scatter after, for attention and for the MLP.
  const activation = { bytes: 2 * tokens * width, axes: ['tensor'] }
  const around: PieceCollective[] = [
    { kind: 'allGather', when: 'before', ...activation },
    { kind: 'reduceScatter', when: 'after', ...activation },
    { kind: 'allGather', when: 'before', ...activation },
    { kind: 'reduceScatter', when: 'after', ...activation },
  ]
  const pieces = layers / schedule.stages
  const seconds = { F: forward * pieces, B: forward * pieces, W: forward * pieces }
  const perToken = 6 * (layers * parameters * tensor) + 6 * layers * width * tokens
  return {
    name: `70B, ${schedule.name}`,
    axes: [
      { name: 'data', size: data },
      { name: 'pipeline', size: pipeline },
      { name: 'tensor', size: tensor },
    ],
    pipelineAxis: 'pipeline',
    schedule,
    stages: schedule.rankOfStage.map(() => ({
      pieces,
      seconds,
      outputBytes: activation.bytes / tensor,
      collectives: { F: around, B: around, W: sharded.pieces.W },
    })),
    links: hardware.links,
    optimizer: {
      seconds: Array<number>(pipeline).fill(memorySeconds(hardware, (40 * rankParameters) / data)),
      after: sharded.after,
    },
    work: { modelFlops: perToken * tokens * microbatches * data, peakFlops: hardware.peak.bf16! },
    everyRank,
  }
}

export async function main(args: readonly string[]): Promise<void> {
  const { values } = parseArgs({ args: [...args], options: { every: { type: 'boolean', default: false } } })
  console.log(await machineLine())
  for (const [name, stagesPerRank] of [
    ['1f1b', 1],
    ['interleaved', 5],
    ['zb-h1', 1],
  ] as const) {
    const schedule = makeSchedule(name, { ranks: pipeline, microbatches, stagesPerRank })
    const began = performance.now()
    const built = buildPlan(plan(schedule, values.every))
    const run = simulate(built)
    const summary = summarize(run)
    const took = (performance.now() - began) / 1000
    const percent = (share: number): string => `${(100 * share).toFixed(1)} %`
    console.log(
      `${name.padEnd(12)} ${built.ranks.length} of ${data * pipeline * tensor} ranks, ${built.tasks.length} tasks: ${took.toFixed(2)} s` +
        `   (step ${summary.seconds.toFixed(2)} s, bubble ${percent(summary.bubbleShare)}, exposed ${percent(summary.exposedShare)}, utilisation ${percent(summary.utilisation!)})`,
    )
  }
}
