/**
 * A picture of ranks against time, as SVG text. Made to be read in grey and by colour-blind readers: kinds differ in
 * lightness and carry their letter; on light and dark pages alike: no background, text outside of bars in a middle grey,
 * and each bar brings the colour of its own text.
 */
import type { Schedule, Timeline } from '../schedule/index.ts'
import type { SimulatedRun } from './engine.ts'
import type { Category } from './plan.ts'

export interface TimelineRow {
  readonly name: string
  readonly bars: readonly TimelineBar[]
  /** Drawn thin below: communication. */
  readonly under?: readonly TimelineBar[]
}

export interface TimelineBar {
  readonly category: Category
  readonly label: string
  readonly start: number
  readonly end: number
  /** Which of its rank's stages, from 0: all but the first are underlined, so often. */
  readonly turn?: number
  /** The parts of it that are work, where something comes between: the rest is drawn faint. */
  readonly pieces?: readonly (readonly [from: number, to: number])[]
}

export interface TimelineOptions {
  readonly title?: string
  readonly width?: number
  /** What a time is called; seconds are written in s, ms or µs. */
  readonly unit?: 'seconds' | 'steps'
}

const looks: Readonly<
  Record<Category, { readonly fill: string; readonly text: string; readonly name: string }>
> = {
  F: { fill: '#b5d9f5', text: '#10202e', name: 'forward' },
  B: { fill: '#23508f', text: '#ffffff', name: 'backward' },
  W: { fill: '#e69a2e', text: '#1f1300', name: 'gradient of weights' },
  optimizer: { fill: '#6b6b6b', text: '#ffffff', name: 'optimizer' },
  collective: { fill: '#b0417f', text: '#ffffff', name: 'collective' },
  message: { fill: '#3f9c7a', text: '#ffffff', name: 'message received' },
}

const [labelWidth, rowHeight, underHeight, gap, margin] = [64, 24, 6, 6, 8]
/** Read on light and on dark pages. */
export const grey = '#7d7d7d'

export function timelineSvg(rows: readonly TimelineRow[], options: TimelineOptions = {}): string {
  const { title, width = 960, unit = 'seconds' } = options
  const all = rows.flatMap(({ bars, under = [] }) => bars.concat(under))
  const end = all.reduce((time, bar) => Math.max(time, bar.end), 0)
  const left = margin + labelWidth
  const scale = (width - left - margin) / (end || 1)
  const x = (time: number): number => left + time * scale
  const parts: string[] = []
  let y = margin
  if (title) {
    parts.push(text(margin, y + 14, title, { size: 14, weight: 600 }))
    y += 26
  }
  for (const { name, bars, under } of rows) {
    parts.push(text(margin, y + rowHeight / 2 + 4, name))
    parts.push(
      `<rect x="${round(left)}" y="${y}" width="${round(end * scale)}" height="${rowHeight}" fill="${grey}" opacity="0.14"/>`,
    )
    for (const bar of bars) parts.push(drawBar(bar, left, y, scale))
    y += rowHeight
    if (under) {
      for (const { category, start, end: to } of under) {
        parts.push(
          `<rect x="${round(x(start))}" y="${y + 1}" width="${round(Math.max(0.4, (to - start) * scale))}" height="${underHeight}" fill="${looks[category].fill}"/>`,
        )
      }
      y += underHeight + 1
    }
    y += gap
  }
  for (const time of ticks(end)) {
    const label = unit === 'steps' ? String(time) : formatSeconds(time, end)
    parts.push(
      `<line x1="${round(x(time))}" y1="${y}" x2="${round(x(time))}" y2="${y + 4}" stroke="${grey}"/>`,
    )
    parts.push(text(x(time), y + 16, label, { anchor: 'middle' }))
  }
  y += 28
  let at = left
  for (const category of (Object.keys(looks) as Category[]).filter((c) =>
    all.some((bar) => bar.category === c),
  )) {
    const { fill, name } = looks[category]
    parts.push(`<rect x="${round(at)}" y="${y}" width="14" height="12" fill="${fill}"/>`)
    parts.push(text(at + 19, y + 10, name))
    at += 19 + 6.2 * name.length + 18
  }
  const turns = Math.max(0, ...all.map(({ turn = 0 }) => turn))
  if (turns > 0) parts.push(text(at, y + 10, 'underlined: a later stage of the same rank'))
  const height = y + 12 + margin
  return svgPage(width, height, title, parts)
}

export const svgPage = (
  width: number,
  height: number,
  title: string | undefined,
  parts: readonly string[],
): string =>
  [
    `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${width} ${height}" width="${width}" height="${height}" font-family="system-ui, sans-serif" font-size="11" role="img">`,
    ...(title ? [`<title>${escape(title)}</title>`] : []),
    ...parts,
    '</svg>',
    '',
  ].join('\n')

function drawBar(bar: TimelineBar, left: number, y: number, scale: number): string {
  const { category, label, start, end, turn = 0, pieces = [] } = bar
  const { fill, text: ink } = looks[category]
  const box = (from: number, to: number, faint = ''): string => {
    const width = Math.max(0.3, (to - from) * scale - 1)
    return `<rect x="${round(left + from * scale)}" y="${y}" width="${round(width)}" height="${rowHeight}" rx="1.5" fill="${fill}"${faint}/>`
  }
  const parts =
    pieces.length > 1
      ? [box(start, end, ' opacity="0.5"'), ...pieces.map(([from, to]) => box(from, to))]
      : [box(start, end)]
  const x = left + start * scale
  const width = (end - start) * scale - 1
  for (let i = 0; i < (width > 4 ? turn : 0); i++) {
    const line = y + rowHeight - 3 - 3 * i
    parts.push(
      `<line x1="${round(x + 2)}" y1="${line}" x2="${round(x + width - 2)}" y2="${line}" stroke="${ink}" stroke-width="1.2"/>`,
    )
  }
  if (6.2 * label.length < width) {
    const lift = turn > 0 ? 2 : 4
    parts.push(text(x + width / 2, y + rowHeight / 2 + lift, label, { anchor: 'middle', fill: ink }))
  }
  return parts.join('')
}

export function text(
  x: number,
  y: number,
  content: string,
  style: { anchor?: string; fill?: string; size?: number; weight?: number } = {},
): string {
  const { anchor, fill = grey, size, weight } = style
  const extra = [
    anchor ? ` text-anchor="${anchor}"` : '',
    size ? ` font-size="${size}"` : '',
    weight ? ` font-weight="${weight}"` : '',
  ].join('')
  return `<text x="${round(x)}" y="${round(y)}" fill="${fill}"${extra}>${escape(content)}</text>`
}

const escape = (content: string): string =>
  content.replaceAll('&', '&amp;').replaceAll('<', '&lt;').replaceAll('>', '&gt;')
export const round = (value: number): number => Math.round(value * 100) / 100

/** At most about eight round numbers from 0 to the end. */
function ticks(end: number): number[] {
  if (!(end > 0)) return [0]
  const rough = end / 8
  const power = 10 ** Math.floor(Math.log10(rough))
  const step = [1, 2, 5, 10].map((n) => n * power).find((size) => size >= rough)!
  return Array.from({ length: Math.floor(end / step + 1e-9) + 1 }, (_, i) =>
    Number((i * step).toPrecision(6)),
  )
}

function formatSeconds(time: number, end: number): string {
  const [factor, name] = end >= 1 ? [1, 's'] : end >= 1e-3 ? [1e3, 'ms'] : [1e6, 'µs']
  return time === 0 ? '0' : `${Number((time * factor).toPrecision(4))} ${name}`
}

/** A schedule's timeline as rows. */
export function scheduleRows(schedule: Schedule, { ranks }: Timeline): TimelineRow[] {
  return ranks.map((actions, rank) => ({
    name: `rank ${rank}`,
    bars: actions.map(({ kind, stage, microbatch, start, end }) => ({
      category: kind,
      label: `${kind}${microbatch}`,
      start,
      end,
      turn: turnOf(schedule.rankOfStage, stage),
    })),
  }))
}

/** A simulated step as rows: its arithmetic, and below it collectives and messages received. */
export function runRows({ plan, start, end }: SimulatedRun): TimelineRow[] {
  const rows = plan.ranks.map(({ rank, count }) => ({
    name: count === 1 ? `rank ${rank}` : `${rank} (×${count})`,
    bars: [] as TimelineBar[],
    under: [] as TimelineBar[],
    stages: [] as number[],
  }))
  for (const [index, task] of plan.tasks.entries()) {
    if (Number.isNaN(end[index]!)) continue
    const row = rows[task.kind === 'send' ? task.to : task.rank]!
    const { category, label, stage } = task
    if (task.kind !== 'compute') {
      row.under.push({ category, label, start: start[index]!, end: end[index]! })
      continue
    }
    if (stage !== undefined && !row.stages.includes(stage)) row.stages.push(stage)
    const turn = stage === undefined ? 0 : row.stages.indexOf(stage)
    const piece = [start[index]!, end[index]!] as const
    const last = row.bars.at(-1)
    if (last?.label === label && last.turn === turn) {
      row.bars[row.bars.length - 1] = { ...last, end: piece[1], pieces: (last.pieces ?? []).concat([piece]) }
    } else row.bars.push({ category, label, start: piece[0], end: piece[1], turn, pieces: [piece] })
  }
  return rows.map(({ name, bars, under }) => ({ name, bars, under }))
}

/** How many stages the rank of a stage has before it. */
const turnOf = (rankOfStage: readonly number[], stage: number): number =>
  rankOfStage.slice(0, stage).filter((rank) => rank === rankOfStage[stage]).length
