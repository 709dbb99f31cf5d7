/**
 * What the benchmarks of single operations share: each case is a small program of ours, timed in slices that alternate
 * with PyTorch's, and held against a peak of the machine that is measured again in every round.
 */
import { formatBytes, formatFlopRate, formatTable } from '../src/cli/format.ts'
import type { Program } from '../src/compiler/index.ts'
import { measurePeak } from '../src/compiler/runtime/peak.ts'
import type { Peak } from '../src/compiler/runtime/peak.ts'
import { machineLine, peakLine } from './facts.ts'
import type { BenchOptions } from './options.ts'
import { startTorchMicro, torchInstalled } from './peer.ts'
import type { MicroPeer } from './peer.ts'
import { busyCores, disturbances } from './quiet.ts'
import { record } from './record.ts'
import { alternate, median } from './slices.ts'
import type { Contestant, Timing } from './slices.ts'

export interface MicroCase {
  readonly name: string
  readonly program: Program
  /** FLOPs, or bytes read and written, of one run. */
  readonly work: number
  /** How many times a run does the named thing; the time shown is of one. Default 1. */
  readonly copies?: number
  /** The same for PyTorch, in the words of peers/torch_micro.py. */
  readonly torch?: object
}

export interface Micro {
  readonly bench: string
  readonly cases: readonly MicroCase[]
  /** What `work` counts. */
  readonly unit: 'FLOP' | 'byte'
  /** The peak that a rate is held against, in the same unit. */
  readonly peak: (peak: Peak) => number
  /** What each thread copies from, where that is the peak; see `measurePeak`. */
  readonly copyMegabytes?: number
  /** Lines under the heading: what is measured, against which target. */
  readonly about: readonly string[]
}

/** Measures all cases in one run, prints the table and appends it to the history. */
export async function runMicro(micro: Micro, options: BenchOptions): Promise<void> {
  const { bench, cases, unit, peak, about, copyMegabytes = 16 } = micro
  const torch = torchInstalled() ? await startTorchMicro(options.threads) : undefined
  const contestants = cases.flatMap((entry) => contestantsOf(entry, torch))
  const peaks: Peak[] = []
  const othersCores = await busyCores()
  console.error(`${bench}: ${options.rounds} rounds of ${contestants.length} slices…`)
  const beforeRound = async (): Promise<void> => {
    peaks.push(await measurePeak({ ...options, copyMegabytes }))
  }
  const timings = await alternate(contestants, { ...options, beforeRound }).finally(() => {
    torch?.close()
    for (const { program } of cases) program.close()
  })
  const problems = disturbances(
    othersCores,
    peaks.map(({ flopsF32 }) => flopsF32),
  )
  const best = peaks.map(peak)
  const rate = (entry: MicroCase, seconds: number): string =>
    unit === 'FLOP' ? formatFlopRate(entry.work / seconds) : `${formatBytes(entry.work / seconds)}/s`
  const rows = cases.map((entry) => {
    const [ours, theirs] = [entry.name, torchName(entry)].map((name) => timings.find((t) => t.name === name))
    if (!ours) return [entry.name]
    const seconds = median(ours.secondsPerStep)
    const row = [
      entry.name,
      duration(seconds / (entry.copies ?? 1)),
      rate(entry, seconds),
      ...shares(entry, ours, best),
    ]
    if (!theirs) return row
    const other = median(theirs.secondsPerStep)
    return [...row, rate(entry, other), shares(entry, theirs, best)[0]!, `${(other / seconds).toFixed(2)}x`]
  })
  const heading = ['', 'time', 'rate', 'of peak', 'in rounds']
  if (torch) heading.push('PyTorch', 'of peak', 'ours is')
  console.log(
    [
      await machineLine(),
      peakLine(peaks, copyMegabytes),
      ...about,
      ...(torch ? [] : ['PyTorch is not installed here (bench/peers/install.sh): ours only']),
      ...problems,
      formatTable([heading, ...rows]),
      '',
    ].join('\n'),
  )
  const peer = torch ? { peer: `PyTorch ${torch.version}` } : {}
  const work = Object.fromEntries(cases.map((entry) => [entry.name, entry.work]))
  if (problems.length === 0)
    record({ bench, threads: options.threads, ...peer, unit, peaks: best, othersCores, work, timings })
}

const torchName = ({ name }: MicroCase): string => `PyTorch ${name}`

function contestantsOf(entry: MicroCase, torch: MicroPeer | undefined): readonly Contestant[] {
  const ours: Contestant = {
    name: entry.name,
    async run(k) {
      const started = performance.now()
      for (let i = 0; i < k; i++) entry.program.runBlocking()
      return (performance.now() - started) / 1000
    },
  }
  return torch && entry.torch ? [ours, torch.contestant(torchName(entry), entry.torch)] : [ours]
}

/** The share of the peak by medians, and the lowest and highest within a round. */
function shares({ work }: MicroCase, { secondsPerStep }: Timing, peaks: readonly number[]): [string, string] {
  const rounds = secondsPerStep.map((seconds, i) => (work / seconds / peaks[i]!) * 100)
  const share = (work / median(secondsPerStep) / median(peaks)) * 100
  return [`${share.toFixed(1)}%`, `${Math.min(...rounds).toFixed(0)} to ${Math.max(...rounds).toFixed(0)}%`]
}

/** Three digits and a unit: `4.85 us`, `131 us`, `16.9 ms`. */
function duration(seconds: number): string {
  const [value, unit] = seconds < 1e-3 ? [seconds * 1e6, 'us'] : [seconds * 1e3, 'ms']
  return `${value.toFixed(value < 10 ? 2 : value < 100 ? 1 : 0)} ${unit}`
}
