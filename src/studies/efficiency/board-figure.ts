/** The two pictures of a board: compute against the year a recipe came into use, and compute against the target. */
import { colours, dashes, grey, line, marker, path, shapes, svg, text, type Shape } from '../drawing.ts'
import { monthsOf } from '../halving.ts'
import { giga, type Board } from './board-report.ts'
import { summarise } from './compare.ts'

const [width, height] = [960, 560]
const plot = { left: 72, right: 730, top: 64, bottom: 500 }

interface Scale {
  readonly at: (flop: number) => number
  readonly lines: readonly string[]
}

/** A logarithmic axis of FLOP that holds all values, with a line at every power of two, or of four. */
function flopScale(values: readonly number[]): Scale {
  const logs = values.map(Math.log2)
  const [low, high] = [Math.min(...logs) - 0.35, Math.max(...logs) + 0.5]
  const at = (flop: number): number =>
    plot.bottom - ((Math.log2(flop) - low) / (high - low)) * (plot.bottom - plot.top)
  const every = high - low > 9 ? 2 : 1
  const lines: string[] = []
  for (let power = Math.ceil(low - Math.log2(1e9)); power <= high - Math.log2(1e9); power++) {
    if (power % every !== 0) continue
    const flop = 1e9 * 2 ** power
    lines.push(
      line(plot.left, round(at(flop)), plot.right, round(at(flop)), `stroke="${grey}" stroke-opacity="0.3"`),
      text(plot.left - 8, at(flop) + 4, power < 0 ? giga(flop) : String(2 ** power), { anchor: 'end' }),
    )
  }
  return { at, lines }
}

const round = (value: number): number => Math.round(10 * value) / 10

const look = (i: number): { colour: string; dash: string; shape: Shape } => ({
  colour: colours[i % colours.length]!,
  dash: dashes[i % dashes.length]!,
  shape: shapes[i % shapes.length]!,
})

interface Label {
  readonly y: number
  readonly words: string
  readonly fill: string
  readonly shape?: Shape
}

/** Labels with the heights they are put at: those that would overlap are moved apart, from top to bottom. */
function apart(labels: readonly Label[], gap: number): (readonly [label: Label, y: number])[] {
  let last = -Infinity
  return labels
    .toSorted((a, b) => a.y - b.y)
    .map((label) => {
      last = Math.max(label.y, last + gap)
      return [label, last] as const
    })
}

export function trendFigure({ task, entries, trend }: Board): string {
  const targets = task.ladder.map((target) => ({ target, sense: task.sense }))
  const cells = targets.map((target) =>
    entries.map((entry) => ({ entry, summary: summarise(entry.runs, target) })),
  )
  const all = cells.flat().map(({ summary }) => summary.flop ?? summary.atLeast)
  const months = entries.map(({ entry }) => monthsOf(entry.dates.adopted))
  const [from, to] = [Math.min(...months) - 8, Math.max(...months) + 8]
  const x = (month: number): number => plot.left + ((month - from) / (to - from)) * (plot.right - plot.left)
  const { at: y, lines } = flopScale(all)
  const parts = [
    text(plot.left, 22, task.title, { size: 14, weight: 600 }),
    text(
      plot.left,
      42,
      `GFLOP to each target (${task.metric}) against the date a recipe came into use; filled: cheapest so far`,
      {},
    ),
    ...lines,
  ]
  for (let year = Math.ceil(2012 + (from + 5) / 12); year <= 2012 + (to + 5) / 12; year++) {
    const at = round(x(monthsOf(`${year}-01-01`)))
    parts.push(line(at, plot.bottom, at, plot.bottom + 5, `stroke="${grey}"`))
    parts.push(text(at, plot.bottom + 20, String(year), { anchor: 'middle' }))
  }
  const onFrontier = new Set(trend.frontier.map(({ name }) => name))
  const ends: Label[] = []
  cells.forEach((row, i) => {
    const headline = targets[i]!.target === task.headline
    // The target that ranks has the plainest look, whatever its place on the ladder.
    const { colour, dash, shape } = look(headline ? 0 : i + 1)
    const reached = row.filter(({ summary }) => summary.flop !== null)
    const points = reached.map(
      ({ entry, summary }) => [x(monthsOf(entry.entry.dates.adopted)), y(summary.flop!)] as const,
    )
    parts.push(
      path(points, `stroke="${colour}" stroke-width="${headline ? 2.5 : 1.3}" stroke-dasharray="${dash}"`),
    )
    for (const { entry, summary } of row) {
      const at = x(monthsOf(entry.entry.dates.adopted))
      const missed = summary.flop === null
      const says = `${entry.entry.title}, ${targets[i]!.target}: ${missed ? `more than ${giga(summary.atLeast)}` : giga(summary.flop)} GFLOP`
      if (summary.interval && headline)
        parts.push(
          line(
            round(at),
            round(y(summary.interval[0])),
            round(at),
            round(y(summary.interval[1])),
            `stroke="${colour}" stroke-width="2"`,
          ),
        )
      const fill = headline && onFrontier.has(entry.entry.id) ? colour : 'none'
      parts.push(
        marker(
          shape,
          at,
          y(summary.flop ?? summary.atLeast),
          headline ? 6 : 4.5,
          `fill="${fill}" stroke="${colour}" stroke-width="1.6"`,
          says,
        ),
      )
      // An arrow: the true cost lies above.
      if (missed)
        parts.push(
          path(
            [
              [at - 4, y(summary.atLeast) - 12],
              [at, y(summary.atLeast) - 19],
              [at + 4, y(summary.atLeast) - 12],
            ],
            `stroke="${colour}" stroke-width="1.6"`,
          ),
        )
    }
    const last = points.at(-1)
    if (last)
      ends.push({ y: last[1], words: `${targets[i]!.target}${headline ? ' (ranks)' : ''}`, fill: colour })
  })
  const { halving, moore, frontier } = trend
  if (halving && moore) {
    const [start, end] = [frontier[0]!, frontier.at(-1)!]
    const [x1, y1, x2, y2] = [
      x(monthsOf(start.date)),
      y(start.cost),
      x(monthsOf(end.date)),
      y(start.cost / moore.factor),
    ]
    // It may fall out of the picture, which is made for our costs.
    const part = Math.min(1, (plot.bottom - y1) / (y2 - y1))
    const stop = [round(x1 + part * (x2 - x1)), round(y1 + part * (y2 - y1))] as const
    parts.push(
      line(round(x1), round(y1), ...stop, `stroke="${grey}" stroke-width="1.5" stroke-dasharray="1 3"`),
      text(stop[0] + 6, stop[1] - 6, `Moore’s Law: ${moore.factor.toFixed(1)}x`, {}),
    )
  }
  for (const [{ words, fill }, place] of apart(ends, 16))
    parts.push(text(plot.right + 8, place + 4, words, { fill }))
  const names = entries.map(({ entry }, i) => ({ id: entry.id, at: x(months[i]!) }))
  names.forEach(({ id, at }, i) =>
    parts.push(text(at, plot.bottom + 36 + 13 * (i % 2), id, { anchor: 'middle', size: 11 })),
  )
  return svg({ width, height, says: trend.says }, parts)
}

export function ladderFigure({ task, entries }: Board): string {
  const rows = entries.map(({ entry, runs }) => ({
    entry,
    costs: task.ladder.map((target) => summarise(runs, { target, sense: task.sense })),
  }))
  const { at: y, lines } = flopScale(rows.flatMap(({ costs }) => costs.map((one) => one.flop ?? one.atLeast)))
  const x = (i: number): number =>
    plot.left + 30 + (i / Math.max(1, task.ladder.length - 1)) * (plot.right - plot.left - 60)
  const parts = [
    text(plot.left, 22, task.title, { size: 14, weight: 600 }),
    text(plot.left, 42, `GFLOP of each entry to each target; bars are 95 % intervals over seeds`, {}),
    ...lines,
    ...task.ladder.map((target, i) => text(x(i), plot.bottom + 20, String(target), { anchor: 'middle' })),
    text((plot.left + plot.right) / 2, plot.bottom + 42, `${task.metric}, harder to the right`, {
      anchor: 'middle',
    }),
  ]
  const ends: Label[] = []
  rows.forEach(({ entry, costs }, i) => {
    const { colour, dash, shape } = look(i)
    const reached = costs.flatMap((one, rung) => (one.flop === null ? [] : [[x(rung), y(one.flop)] as const]))
    parts.push(path(reached, `stroke="${colour}" stroke-width="1.8" stroke-dasharray="${dash}"`))
    costs.forEach((one, rung) => {
      if (one.flop === null) return
      if (one.interval)
        parts.push(
          line(
            round(x(rung)),
            round(y(one.interval[0])),
            round(x(rung)),
            round(y(one.interval[1])),
            `stroke="${colour}" stroke-width="1.6"`,
          ),
        )
      parts.push(
        marker(
          shape,
          x(rung),
          y(one.flop),
          5,
          `fill="${colour}" stroke="${colour}" stroke-width="1.6"`,
          `${entry.title}, ${task.ladder[rung]}: ${giga(one.flop)} GFLOP`,
        ),
      )
    })
    const last = reached.at(-1)
    if (last)
      ends.push({
        y: last[1],
        words: `${entry.id}${reached.length < costs.length ? ' (not further)' : ''}`,
        fill: colour,
        shape,
      })
  })
  for (const [{ words, fill, shape = 'circle' }, place] of apart(ends, 18)) {
    parts.push(
      marker(shape, plot.right + 14, place, 5, `fill="${fill}" stroke="${fill}" stroke-width="1.6"`),
      text(plot.right + 26, place + 4, words, { fill }),
    )
  }
  return svg({ width, height, says: `GFLOP of ${rows.length} entries to ${task.ladder.join(', ')}` }, parts)
}
