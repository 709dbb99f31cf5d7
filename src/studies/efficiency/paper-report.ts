/**
 * What `anneal study efficiency paper` says: the table re-derived, the fit, its intervals, Moore's Law, the sensitivity
 * of it all, and the disputed cells. Intervals are called "computed here" wherever they stand: the paper has none.
 */
import type { Bootstrap } from '../bootstrap.ts'
import type { Halving } from '../halving.ts'
import type { Report, Section } from '../report.ts'
import type { PaperAnalysis } from './paper.ts'
import { disputesOf } from './tables.ts'

export const paperReportName = 'efficiency-paper'
const marked = ' [disputed]'

export function paperReport(analysis: PaperAnalysis): Report {
  return {
    title: 'Algorithmic efficiency, 2012 to 2019: the 2020 analysis computed again',
    commands: ['anneal study efficiency paper --out docs/studies'],
    sections: [
      headline(analysis),
      intervals(analysis),
      sensitivity(analysis),
      networks(analysis),
      ratios(analysis),
      speedrun(analysis),
      disputes(analysis),
    ],
  }
}

function headline({ halving, moore, frontier, rederivedFactor, tables }: PaperAnalysis): Section {
  const { line, months, factor, span } = halving
  const [printed] = tables.factors
  const [first, last] = [frontier[0]!, frontier.at(-1)!]
  return {
    title: 'The fit',
    paragraphs: [
      `From ${first.name} (${first.date}) to ${last.name} (${last.date}), ${span.toFixed(3)} months, the training compute to reach AlexNet's level fell ${factor.toFixed(2)} times; the paper prints ${printed!.factor} times and a halving in ${printed!.doubling_time_as_printed}.`,
      `Ordinary least squares of log2 cost on months, over the ${line.points} networks that were the cheapest so far. They are running minima and depend on each other, so every interval is indicative.`,
    ],
    picture: {
      file: `${paperReportName}.svg`,
      says: `Training compute to AlexNet's level against the date: the frontier falls ${factor.toFixed(1)} times, Moore's Law ${moore.factor.toFixed(1)} times`,
    },
    table: [
      ['figure', 'computed here'],
      ['factor, printed values', `${factor.toFixed(2)}x`],
      ['factor, epochs x multiply-adds', `${rederivedFactor.toFixed(2)}x`],
      [
        'slope',
        `${line.slope.toFixed(7)} log2/month (${(12 * line.slope * Math.log10(2)).toFixed(4)} log10/year, ${(2 ** (-12 * line.slope)).toFixed(3)}x/year)`,
      ],
      ['halving time', `${months.toFixed(2)} months`],
      ['R2', line.r2.toFixed(4)],
      [`Moore's Law over ${span.toFixed(3)} months`, `${moore.factor.toFixed(2)}x`],
      [
        'slope against a doubling in 24 months',
        `t = ${moore.t.toFixed(2)}, ${moore.freedom} degrees of freedom, one-sided p = ${moore.p.toFixed(4)}`,
      ],
    ],
  }
}

function intervals({ halving, details }: PaperAnalysis): Section {
  const resampled = ({ exact, resamples, degenerate }: Bootstrap): string =>
    `${exact ? `all ${resamples}` : `${resamples} seeded`} resamples, ${degenerate} degenerate`
  const row = (name: string, one: Bootstrap): string[] => [
    `${name} (${resampled(one)})`,
    one.low.toFixed(2),
    one.median.toFixed(2),
    one.high.toFixed(2),
  ]
  return {
    title: 'Intervals, computed here',
    paragraphs: ['The paper publishes no interval. Months per halving, 95 %, computed here:'],
    table: [
      ['method', 'low', 'middle', 'high'],
      ["Student's t", ...bracket(halving)],
      row('bootstrap of networks', details.pairs),
      row('bootstrap of networks', details.seededPairs),
      row('bootstrap of residuals, unscaled', details.residuals),
      ['Theil-Sen', '', details.theilSen.toFixed(2), ''],
      ['first and last only', '', details.endpoints.toFixed(2), ''],
    ],
  }
}

const bracket = ({ months, interval: [low, high] }: Halving): string[] => [
  low.toFixed(2),
  months.toFixed(2),
  high.toFixed(2),
]

function sensitivity({ variants, details, frontier, halving }: PaperAnalysis): Section {
  const row = (name: string, one: Halving): string[] => [
    name,
    one.line.slope.toFixed(7),
    ...bracket(one),
    one.line.r2.toFixed(4),
    `${one.factor.toFixed(2)}x`,
  ]
  return {
    title: 'Sensitivity, computed here',
    paragraphs: [
      'The same fit for other readings of the data; low and high are the 95 % interval of Student’s t.',
      `Leaving one network out, months per halving: ${frontier.map(({ name }, i) => `${details.leaveOneOut[i]!.toFixed(2)} without ${name}`).join(', ')}.`,
    ],
    table: [
      ['reading', 'slope', 'low', 'months', 'high', 'R2', 'first to last'],
      row('as printed', halving),
      ...variants.map(({ name, halving: one }) => row(name, one)),
    ],
  }
}

function networks({ rows, tables }: PaperAnalysis): Section {
  const mark = (line: number, column: string): string =>
    disputesOf(tables, 'paper_alexnet_level.csv', line, column).length > 0 ? marked : ''
  const worst = Math.max(...rows.map(({ deviation }) => Math.abs(deviation)))
  return {
    title: 'All sixteen networks, derived again',
    paragraphs: [
      `PetaFLOP, a multiply-add as one: epochs x multiply-adds x 1.28e6 images x 3. The largest deviation from a printed value is ${percent(worst)}. A star is the frontier.`,
    ],
    table: [
      [
        'network',
        'date',
        'epochs',
        'GMAC',
        `printed${mark(1, 'printed_value')}`,
        'derived',
        'off by',
        'gain',
      ],
      ...rows.map(({ network, onFrontier, rederived, deviation, efficiency }) => [
        `${network.model}${onFrontier ? ' *' : ''}`,
        `${network.date}${mark(network.line, 'date')}`,
        String(network['epochs_to_79.1pct_top5']),
        network.gmac_per_image_forward.toFixed(2),
        network.printed_value.toFixed(1),
        rederived.toFixed(2),
        percent(deviation),
        `${efficiency.toFixed(2)}x`,
      ]),
    ],
  }
}

const ratios = ({ ratios: rows }: PaperAnalysis): Section => ({
  title: 'Other tasks',
  table: [
    ['pair', 'printed', 'from its own numbers'],
    ...rows.map(({ name, printed, computed }) => [name, `${printed}x`, `${computed.toFixed(2)}x`]),
  ],
})

const speedrun = ({ speedrun: rows }: PaperAnalysis): Section => ({
  title: 'The nanoGPT speedrun beside it, computed here',
  paragraphs: [
    'Seconds on 8 H100 to a validation loss of 3.28: time, not FLOP. Rules of timing changed after record 21, so one line over all of it hides two; records depend on each other and intervals are too narrow.',
  ],
  table: [
    ['', 'low', 'months to halve', 'high', 'first to last'],
    ...rows.map(({ name, halving }) => [name, ...bracket(halving), `${halving.factor.toFixed(1)}x`]),
  ],
})

const disputes = ({ tables }: PaperAnalysis): Section => ({
  title: 'Disputed cells',
  paragraphs: ['Values stay as published; these are marked. Line 1 is a heading.'],
  table: [
    ['table', 'line', 'column', 'reading'],
    ...tables.disputes.map(({ table, table_line: line, column, reading }) => [
      table,
      String(line),
      column,
      reading,
    ]),
  ],
})

const percent = (share: number): string => `${(100 * share).toFixed(2)} %`
