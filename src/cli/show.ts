/**
 * `anneal show <run>`: everything the store knows about one run on one screen, the loss drawn as a plot.
 */
import { findRun, readRun, summarise } from '../runs/index.ts'
import type { At, MetricSummary, Run } from '../runs/index.ts'
import type { Command } from './command.ts'
import { runHelp, runsOption } from './command.ts'
import { formatBytes, formatCount, formatDuration, formatFlops, formatMetric, formatTable } from './format.ts'
import { plot } from './plot.ts'
import { printSetting } from './settings.ts'

export const show: Command = {
  arguments: [runHelp],
  options: [runsOption],
  examples: ['anneal show latest', 'anneal show kq3f --json'],
  async run(io, [word = ''], options) {
    const runsDir = String(options['runs'])
    const run = readRun(runsDir, findRun(runsDir, word))
    for (const note of run.notes) io.note(`note: ${note}`)
    const { meta, dir, status, reason, segments, points, samples, checkpoints, notes } = run
    io.result(describeRun(run), {
      run: meta,
      dir,
      status,
      reason,
      summary: summarise(run),
      segments: segments.map(({ number, parent, fromStep, time, points: own, status: last }) => ({
        segment: number,
        parent,
        fromStep,
        time,
        points: own.length,
        status: last?.status ?? null,
      })),
      points,
      samples,
      checkpoints,
      notes,
    })
    return 0
  },
}

/** The whole page. */
export function describeRun(run: Run): string {
  const { meta, segments, points, checkpoints } = run
  const summary = summarise(run)
  const last = run.samples.at(-1)
  const seriesOf = (name: string): { step: number; value: number }[] =>
    points.flatMap(({ step, metrics }) =>
      metrics[name] === undefined ? [] : [{ step, value: metrics[name] }],
    )
  const sections = [
    formatTable([
      ['run', meta.id],
      ['recipe', meta.recipe],
      ['created', meta.created],
      ['status', run.reason === null ? run.status : `${run.status}: ${run.reason}`],
      [
        'reached',
        `step ${summary.step}, ${formatCount(summary.tokens)} tokens, ${formatFlops(summary.flops)}, ${formatDuration(summary.seconds)}`,
      ],
      ...evaluated(run, summary.metrics['validationLoss']?.count ?? 0),
    ]),
    `settings\n${describeConfig(meta.config)}`,
    ...(Object.keys(meta.plan).length > 0 ? [`plan\n${describeConfig(meta.plan, printQuantity)}`] : []),
    ...(points.length > 0 ? [describeMetrics(summary.metrics)] : []),
    plot([
      { mark: '·', name: 'loss', points: seriesOf('loss') },
      { mark: 'o', name: 'validation loss', points: seriesOf('validationLoss') },
    ]),
    formatTable([
      ['segment', 'from step', 'points', 'started', 'status'],
      ...segments.map((s) => [
        String(s.number),
        String(s.fromStep),
        String(s.points.length),
        s.time,
        s === segments.at(-1) ? run.status : (s.status?.status ?? '-'),
      ]),
    ]),
    ...(checkpoints.length > 0
      ? [
          formatTable([
            ['checkpoint', 'size', ''],
            ...checkpoints.map((c) => [c.file, sizeOf(c), c.present ? '' : 'removed since']),
          ]),
        ]
      : []),
    ...(last === undefined ? [] : [`sample at step ${last.step}\n${indent(last.prompt + last.text)}`]),
  ]
  return sections.filter((section) => section !== '').join('\n\n')
}

/** What evaluating took; older runs do not say. */
function evaluated({ meta }: Run, times: number): string[][] {
  const { evaluation } = (meta.plan['operations'] ?? {}) as { readonly evaluation?: number }
  if (evaluation === undefined) return []
  return [['evaluated', `${times} times, ${formatFlops(times * evaluation)} beside those of training`]]
}

const sizeOf = ({ bytes, files }: Run['checkpoints'][number]): string =>
  files === undefined
    ? formatBytes(bytes)
    : `${formatBytes(bytes)} in ${files} ${files === 1 ? 'file' : 'files'}`

function describeMetrics(metrics: Readonly<Record<string, MetricSummary>>): string {
  const rows = Object.entries(metrics).map(([name, m]) => [
    name,
    at(m.last),
    at(m.min),
    at(m.max),
    m.nonFinite === 0 ? '' : `${m.nonFinite} not finite`,
  ])
  return formatTable([['metric', 'last @ step', 'min', 'max', ''], ...rows])
}

/** Plain values of a level on one line each group: `model  size=nano layers=3 ...`. */
function describeConfig(config: object, print: Print = printSetting): string {
  const entries = Object.entries(config)
  const plain = entries.filter(([, value]) => !isGroup(value))
  const groups = entries.filter((entry): entry is [string, object] => isGroup(entry[1]))
  return [
    `  ${printSettings(plain, print)}`,
    ...groups.map(([name, group]) => `  ${name}: ${printSettings(Object.entries(group), print)}`),
  ].join('\n')
}

const indent = (text: string): string =>
  text
    .trim()
    .split('\n')
    .map((row) => `    ${row}`)
    .join('\n')

const at = (place: At | null): string =>
  place === null ? '-' : `${formatMetric(place.value)} @ ${place.step}`

const isGroup = (value: unknown): value is object =>
  typeof value === 'object' && value !== null && !Array.isArray(value)

type Print = (value: unknown) => string

const printSettings = (fields: readonly (readonly [string, unknown])[], print: Print): string =>
  fields.map(([key, value]) => `${key}=${print(value)}`).join(' ')

/** Plans hold FLOPs and bytes: large numbers, of which three digits are enough. */
const printQuantity = (value: unknown): string =>
  typeof value === 'number' && (value >= 1e5 || !Number.isInteger(value))
    ? formatCount(value).replace(' ', '')
    : printSetting(value)
