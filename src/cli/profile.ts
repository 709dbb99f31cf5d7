/**
 * A profile as a table: the costliest kernel calls first, each with its share of the step and how near it came to the
 * limit of the machine that it runs against (docs/profiling.md says how to read it).
 */
import { judge, memoryRate, type SiteProfile, type Verdict } from '../compiler/index.ts'
import type { StepProfile } from '../train/profile.ts'
import { formatBytes, formatFlopRate, formatFlops, formatTable } from './format.ts'

/** Calls that the table lists one by one; the rest is one line. */
const listed = 30

interface Row extends SiteProfile, Verdict {
  /** Of the wall clock. */
  readonly shareOfStep: number
}

const rowsOf = ({ profile, peak }: StepProfile): Row[] =>
  profile.sites
    .map((site): Row => {
      const { limit, share } = judge(site, peak)
      return { ...site, limit, share, shareOfStep: site.seconds / profile.seconds }
    })
    .toSorted((a, b) => b.seconds - a.seconds)

/** The same for programs: every call, costliest first, without the events, which are in the trace. */
export function profileRows(found: StepProfile): object {
  const { profile, peak, profilePath, tracePath } = found
  const { runs, threads, seconds, waitingSeconds } = profile
  return {
    steps: runs,
    threads,
    seconds,
    waitingSeconds,
    peak,
    profilePath,
    tracePath,
    kernels: rowsOf(found),
  }
}

export function describeProfile(found: StepProfile): string {
  const { profile, peak, profilePath, tracePath } = found
  const { runs, seconds, waitingSeconds, threads } = profile
  const rows = rowsOf(found)
  const rest = rows.slice(listed)
  const stepMs = (secondsOfAll: number): string => ((secondsOfAll / runs) * 1000).toFixed(3)
  const sum = (list: readonly Row[], of: (row: Row) => number): number =>
    list.reduce((total, row) => total + of(row), 0)
  const line = (row: Row): string[] => [
    stepMs(row.seconds),
    percent(row.shareOfStep),
    String(row.callsPerRun),
    row.kernel,
    row.limit === 'memory'
      ? `${formatBytes(row.totalBytes / row.seconds)}/s`
      : formatFlopRate(row.totalFlops / row.seconds),
    `${percent(row.share)} of ${row.limit}`,
    shorten(row.ops),
    row.source,
  ]
  const flops = sum(rows, (row) => row.totalFlops)
  const bytes = sum(rows, (row) => row.totalBytes)
  const table = formatTable([
    ['ms', 'share', 'calls', 'kernel', 'rate', 'of peak', 'work', 'caused by'],
    ...rows.slice(0, listed).map(line),
    ...(rest.length === 0
      ? []
      : [
          [
            stepMs(sum(rest, (row) => row.seconds)),
            percent(sum(rest, (row) => row.shareOfStep)),
            String(sum(rest, (row) => row.callsPerRun)),
            `${rest.length} more kernels`,
          ],
        ]),
    [stepMs(waitingSeconds), percent(waitingSeconds / seconds), '', 'waiting for other threads'],
  ])
  const rate = flops / seconds
  const bf16 = peak.flopsBf16 === undefined ? '' : `bf16 ${formatFlopRate(peak.flopsBf16)}, `
  return [
    table,
    '',
    `a step   ${stepMs(seconds)} ms on ${threads} ${threads === 1 ? 'thread' : 'threads'}, mean of ${runs}: ` +
      `${formatFlops(flops / runs)}, ${formatFlopRate(rate)} (${percent(rate / peak.flopsF32)} of f32), ` +
      `${formatBytes(bytes / runs)} read and written by kernels`,
    `peaks    f32 ${formatFlopRate(peak.flopsF32)}, ${bf16}memory ${formatBytes(memoryRate(peak))}/s, as measured here; ` +
      `a kernel that does less than ${(peak.flopsF32 / memoryRate(peak)).toFixed(1)} FLOP a byte is held against memory ` +
      `(more than 100%: it worked in cache)`,
    `trace    ${tracePath} (open it in Perfetto or another viewer of Chrome traces); all numbers in ${profilePath}`,
  ].join('\n')
}

const percent = (share: number): string => `${(share * 100).toFixed(1)}%`

const shorten = (text: string): string => (text.length <= 44 ? text : `${text.slice(0, 43)}…`)
