/**
 * Other people's series as read-only boards, each labelled by what it measures: almost none measures operations, and a factor
 * in seconds is no factor in FLOP. Only what is dated and of one unit is fitted; the rest is listed.
 */
import { join } from 'node:path'
import { readTable, type Columns } from '../csv.ts'
import { colours, dashes, grey, line, marker, path, round, shapes, svg, text } from '../drawing.ts'
import { fitHalving, frontierOf, monthsOf, type Dated, type Halving } from '../halving.ts'
import type { Report } from '../report.ts'
import { efficiencyData, speedrunColumns } from './tables.ts'

interface Series {
  readonly name: string
  readonly file: string
  /** Unit, hardware and target; and what it is not. */
  readonly measures: string
  readonly columns: Columns
  /** Column of the cost. */
  readonly cost: string
  readonly only?: { readonly column: string; readonly is: string | number }
  readonly note?: string
}

const dawn: Columns = {
  task: 'text',
  target: 'text',
  date: 'date',
  team: 'text',
  model: 'text',
  hardware: 'text',
  epochs: 'amount?',
  seconds: 'amount?',
  usd: 'amount?',
  frontier: 'text',
}

const rulesChanged = 'Rules of timing changed after record 21, so one line over all of it hides two.'

const dated: readonly Series[] = [
  {
    name: 'nanoGPT speedrun, seconds',
    file: 'nanogpt_speedrun_track1.csv',
    measures: 'seconds on 8 H100 to a validation loss of 3.28; not FLOP, which it never logs',
    columns: speedrunColumns,
    cost: 'seconds_8xH100',
    note: rulesChanged,
  },
  {
    name: 'nanoGPT speedrun, tokens',
    file: 'nanogpt_speedrun_track1.csv',
    measures: 'training tokens to the same loss; not FLOP, since models and contexts change',
    columns: speedrunColumns,
    cost: 'train_tokens',
    note: rulesChanged,
  },
  {
    name: 'nanoGPT speedrun, optimizers, steps',
    file: 'nanogpt_speedrun_track3_steps.csv',
    measures: 'steps to the same loss with model, batch and data fixed; hides what an optimizer costs',
    columns: {
      result: 'amount',
      date: 'date',
      'steps_to_3.28': 'amount',
      n_seeds: 'amount',
      mean_val_loss: 'amount',
      record: 'amount',
      optimiser: 'text',
    },
    cost: 'steps_to_3.28',
    only: { column: 'record', is: 1 },
    note: 'Two months; a rate of years cannot be read from it.',
  },
  {
    name: 'DAWNBench CIFAR-10, seconds',
    file: 'dawnbench_frontier.csv',
    measures: 'seconds to 94 % on any hardware, one run each',
    columns: dawn,
    cost: 'seconds',
    only: { column: 'task', is: 'CIFAR10' },
  },
  {
    name: 'DAWNBench ImageNet, seconds',
    file: 'dawnbench_frontier.csv',
    measures: 'seconds to 93 % top-5 on any hardware, one run each',
    columns: dawn,
    cost: 'seconds',
    only: { column: 'task', is: 'ImageNet' },
  },
  {
    name: 'DAWNBench ImageNet, dollars',
    file: 'dawnbench_frontier.csv',
    measures: 'dollars of rented machines to 93 % top-5; prices fell too',
    columns: dawn,
    cost: 'usd',
    only: { column: 'task', is: 'ImageNet' },
  },
]

/** Series without a date for every row, or without one unit. */
const listed: readonly {
  readonly title: string
  readonly file: string
  readonly measures: string
  readonly columns: Columns
}[] = [
  {
    title: 'nanochat',
    file: 'nanochat_leaderboard.csv',
    measures:
      'Hours on 8 H100 to the CORE score of GPT-2. Record 4 changed the data, so bits per byte before and after it do not compare.',
    columns: {
      record: 'amount',
      date: 'text',
      hours_8xH100: 'amount',
      val_bpb: 'amount?',
      core: 'amount',
      what_changed: 'text',
    },
  },
  {
    title: 'CIFAR-10 airbench',
    file: 'cifar10_airbench.csv',
    measures: 'Seconds on one A100, and petaFLOP counted by hand.',
    columns: {
      entry: 'text',
      accuracy: 'amount',
      a100_seconds: 'amount',
      pflop: 'amount?',
      n_runs: 'amount?',
      note: 'text',
    },
  },
  {
    title: 'AlgoPerf',
    file: 'algoperf_scores.csv',
    measures:
      'A score between 0 and 1 of seconds over eight workloads: how often, and by how little, a submission is behind the fastest. No cost.',
    columns: { version: 'text', ruleset: 'text', rank: 'amount', submission: 'text', score: 'amount' },
  },
  {
    title: 'Doubling times that studies state',
    file: 'doubling_times.csv',
    measures: 'Months; each study measures something else, by its own method.',
    columns: {
      domain: 'text',
      study: 'text',
      central_months: 'amount?',
      low_months: 'amount?',
      high_months: 'amount?',
      interval: 'text',
      note: 'text',
    },
  },
]

export interface PublishedSeries extends Pick<Series, 'name' | 'measures'> {
  /** Empty where there is nothing to say. */
  readonly note: string
  readonly rows: readonly Dated[]
  readonly frontier: readonly Dated[]
  /** Of all records, and of those cheaper than every earlier one. */
  readonly halving: Halving
  readonly frontierHalving: Halving | null
}

export interface Published {
  readonly series: readonly PublishedSeries[]
  readonly lists: readonly {
    readonly title: string
    readonly measures: string
    readonly table: readonly (readonly string[])[]
  }[]
}

type Cells = Readonly<Record<string, string | number | null>>

export function readPublished(folder: string = efficiencyData): Published {
  const rowsOf = (file: string, columns: Columns): readonly Cells[] => readTable(join(folder, file), columns)
  return {
    series: dated.map((series) => {
      const { name, measures, note = '', file, columns, cost, only } = series
      const rows = rowsOf(file, columns).flatMap((row) =>
        row[cost] === null || (only && row[only.column] !== only.is)
          ? []
          : [{ name: `line ${row['line']}`, date: String(row['date']), cost: Number(row[cost]) }],
      )
      const frontier = frontierOf(rows)
      const byDate = rows.toSorted((a, b) => Date.parse(a.date) - Date.parse(b.date))
      return {
        name,
        measures,
        note,
        rows: byDate,
        frontier,
        halving: fitHalving(byDate),
        frontierHalving: frontier.length >= 3 ? fitHalving(frontier) : null,
      }
    }),
    lists: listed.map(({ title, file, measures, columns }) => {
      const names = Object.keys(columns)
      return {
        title,
        measures: `${measures} From data/efficiency/${file}.`,
        table: [
          names,
          ...rowsOf(file, columns).map((row) => names.map((name) => cellText(row[name] ?? null))),
        ],
      }
    }),
  }
}

const cellText = (cell: string | number | null): string => (cell === null ? '' : String(cell))

const rate = ({ months, interval: [low, high] }: Halving): string =>
  `${months.toFixed(2)} [${low.toFixed(2)}, ${high.toFixed(2)}]`

/** `picture`: name of its picture. */
export function publishedReport({ series, lists }: Published, picture = 'published.svg'): Report {
  return {
    title: 'Published series, read-only',
    commands: ['anneal study efficiency board published'],
    sections: [
      {
        title: 'What fell, and what it is that fell',
        paragraphs: [
          'Facts from the sources named in data/efficiency/README.md; fits and their 95 % intervals (Student’s t) are computed here, none is published there. Records depend on each other, so intervals are too narrow.',
          ...new Set(series.flatMap(({ note }) => note || [])),
        ],
        picture: {
          file: picture,
          says: 'Cheapest so far of each series over its first cost, against the date; units differ',
        },
        table: [
          [
            'series',
            'measures',
            'rows',
            'first',
            'cheapest',
            'factor',
            'months to halve, all rows',
            'frontier only',
          ],
          ...series.map(({ name, measures, rows, frontier, halving, frontierHalving }) => [
            name,
            measures,
            String(rows.length),
            `${rows[0]!.cost} (${rows[0]!.date})`,
            `${frontier.at(-1)!.cost} (${frontier.at(-1)!.date})`,
            `${(frontier[0]!.cost / frontier.at(-1)!.cost).toFixed(1)}x`,
            rate(halving),
            frontierHalving ? rate(frontierHalving) : 'too few',
          ]),
        ],
      },
      ...lists.map(({ title, measures, table }) => ({ title, paragraphs: [measures], table })),
      {
        title: 'The 2020 paper',
        paragraphs: [
          'Its networks, its own board and its disputed cells are in docs/studies/efficiency-paper.md (anneal study efficiency paper).',
        ],
      },
    ],
  }
}

const [width, height] = [960, 520]
const plot = { left: 64, right: 600, top: 56, bottom: 470 }

export function publishedFigure({ series }: Published): string {
  const factors = series.map(({ frontier }) => frontier[0]!.cost / frontier.at(-1)!.cost)
  const most = Math.log2(Math.max(...factors)) + 0.5
  const [from, to] = [monthsOf('2017-07-01'), monthsOf('2026-10-01')]
  const x = (date: string): number =>
    plot.left + ((monthsOf(date) - from) / (to - from)) * (plot.right - plot.left)
  const y = (share: number): number => plot.top - (Math.log2(share) / most) * (plot.bottom - plot.top)
  const parts = [
    text(plot.left, 22, 'Published series: the cheapest so far over the first', { size: 16, weight: 600 }),
    text(plot.left, 42, 'one step down is a quarter; units differ, see the names', {}),
  ]
  for (let power = 0; power <= most; power += 2) {
    const at = round(y(2 ** -power))
    parts.push(
      line(plot.left, at, plot.right, at, `stroke="${grey}" stroke-opacity="0.3"`),
      text(plot.left - 8, at + 4, power === 0 ? '1' : `1/${2 ** power}`, { anchor: 'end' }),
    )
  }
  for (let year = 2018; year <= 2026; year++)
    parts.push(text(x(`${year}-01-01`), plot.bottom + 20, String(year), { anchor: 'middle' }))
  const legendTop = plot.top + 20
  series.forEach(({ name, frontier }, i) => {
    const [colour, dash, shape] = [colours[i]!, dashes[i]!, shapes[i]!]
    const points = frontier.map(({ date, cost }) => [x(date), y(cost / frontier[0]!.cost)] as const)
    const stroke = `stroke="${colour}" stroke-width="1.8"`
    parts.push(path(points, `${stroke} stroke-dasharray="${dash}"`))
    for (const [px, py] of points) parts.push(marker(shape, px, py, 3.5, `fill="none" ${stroke}`))
    const at = legendTop + 26 * i
    parts.push(
      line(plot.right + 16, at, plot.right + 52, at, `${stroke} stroke-dasharray="${dash}"`),
      marker(shape, plot.right + 34, at, 4.5, `fill="none" ${stroke}`),
      text(plot.right + 60, at + 4, `${name}: ${factors[i]!.toFixed(factors[i]! < 10 ? 1 : 0)}x`, {
        fill: colour,
        size: 12,
      }),
    )
  })
  return svg(
    {
      width,
      height,
      says: series.map(({ name }, i) => `${name}: ${factors[i]!.toFixed(1)} times`).join('; '),
    },
    parts,
  )
}
