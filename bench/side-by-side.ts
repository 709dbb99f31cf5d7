/**
 * A training step of ours beside the peers' in one run: slices alternate, the peak is measured in every round, one table
 * comes out and one line of history. FLOPs are those of our program, exactly counted, for all sides: what one side
 * computes beyond them does not make it look faster.
 */
import { setTimeout as sleep } from 'node:timers/promises'
import { formatCount, formatFlopRate, formatFlops, formatPercent, formatTable } from '../src/cli/format.ts'
import { measurePeak } from '../src/compiler/runtime/peak.ts'
import type { Peak } from '../src/compiler/runtime/peak.ts'
import type { StepBench } from '../src/train/bench-step.ts'
import { machineLine, peakLine } from './facts.ts'
import type { BenchOptions } from './options.ts'
import type { Peer } from './peer.ts'
import { busyCores, disturbances } from './quiet.ts'
import { record } from './record.ts'
import { alternate, median, speedRatio } from './slices.ts'
import type { Timing } from './slices.ts'

export interface SideBySide {
  readonly bench: string
  /** Name of the configuration. */
  readonly name: string
  /** The configuration in words. */
  readonly title: string
  /** Ours by name, for example in two precisions; the first is what the others are compared with. */
  readonly ours: ReadonlyMap<string, StepBench>
  readonly peers: readonly Peer[]
  /** Lines under the heading: what is not quite the same on all sides. */
  readonly notes?: readonly string[]
}

/** Measures, prints and records; closes all contestants. */
export async function sideBySide(given: SideBySide, options: BenchOptions): Promise<void> {
  const { bench, name, ours, peers } = given
  const [first] = [...ours.values()]
  if (!first) return
  const { flopsPerStep, tokensPerStep } = first
  await settled()
  const busyBefore = await busyCores()
  console.error(`${name}: ${options.rounds} rounds of ${options.seconds} s each…`)
  const peaks: Peak[] = []
  const beforeRound = async (): Promise<void> => {
    peaks.push(await measurePeak(options))
  }
  const mine = [...ours].map(([name, step]) => ({ name, run: (k: number) => step.run(k) }))
  const timings = await alternate([...mine, ...peers], { ...options, beforeRound }).finally(() => {
    for (const contestant of [...peers, ...ours.values()]) contestant.close()
  })
  await settled()
  const othersCores = Math.max(busyBefore, await busyCores())
  const problems = disturbances(
    othersCores,
    peaks.map(({ flopsF32 }) => flopsF32),
  )
  const work = { flopsPerStep, tokensPerStep, peaks, problems }
  console.log([await machineLine(), ...describe(given, work, timings), ''].join('\n'))
  if (problems.length > 0) return
  record({
    bench,
    config: name,
    threads: options.threads,
    peers: peers.map((peer) => `${peer.name} ${peer.version}`),
    flopsPerStep,
    tokensPerStep,
    peakFlopsF32: peaks.map(({ flopsF32 }) => flopsF32),
    othersCores,
    timings,
  })
}

/** Peers compile in the background after their first steps, and tidy up when told to stop: not another program's work. */
const settled = (): Promise<void> => sleep(2500)

interface Work {
  readonly flopsPerStep: number
  readonly tokensPerStep: number
  /** One a round. */
  readonly peaks: readonly Peak[]
  /** Why this run should not be trusted, if so. */
  readonly problems: readonly string[]
}

function describe(
  { name, title, notes = [] }: SideBySide,
  { flopsPerStep, tokensPerStep, peaks, problems }: Work,
  timings: readonly Timing[],
): readonly string[] {
  const peak = median(peaks.map(({ flopsF32 }) => flopsF32))
  const rows = timings.map((timing) => {
    const seconds = median(timing.secondsPerStep)
    const rate = flopsPerStep / seconds
    return [
      timing.name,
      `${(seconds * 1000).toFixed(seconds < 0.1 ? 2 : 0)} ms`,
      `${formatCount(tokensPerStep / seconds)} tok/s`,
      formatFlopRate(rate),
      formatPercent(rate / peak),
    ]
  })
  const [ours, ...others] = timings
  const ratios = others.map((other) => {
    const { median, low, high } = speedRatio(ours!, other)
    const spread = `${low.toFixed(2)} to ${high.toFixed(2)} within a round`
    return `${ours!.name} is ${median.toFixed(2)}x ${other.name} (medians of ${other.secondsPerStep.length}; ${spread})`
  })
  return [
    `${name}: ${title}; ${formatFlops(flopsPerStep)} a step`,
    peakLine(peaks),
    ...notes,
    ...problems,
    formatTable([['', 'step', 'speed', 'rate', 'of f32 peak'], ...rows]),
    ...ratios,
  ]
}
