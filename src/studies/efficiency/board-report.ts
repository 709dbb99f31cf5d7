/**
 * The board of a task, from its files alone: the report that becomes BOARD.md, and board.csv with every number in full. The
 * same files give the same bytes, so a board that was edited by hand is found out.
 */
import type { Report, Section } from '../report.ts'
import type { BoardEntry } from './board-files.ts'
import { ratio, recordVerdict, summarise, type Summary } from './compare.ts'
import { chargedFlop, type Task } from './task.ts'
import { declaredStop } from './time-to-target.ts'
import { trendOf, type Trend } from './trend.ts'
import { chosenTrial } from './tune.ts'

export interface Board {
  readonly task: Task
  /** Oldest idea in use first. */
  readonly entries: readonly BoardEntry[]
  readonly trend: Trend
}

export function boardOf(task: Task, found: readonly BoardEntry[]): Board {
  const entries = found.toSorted(
    (a, b) =>
      Date.parse(a.entry.dates.adopted) - Date.parse(b.entry.dates.adopted) ||
      a.entry.id.localeCompare(b.entry.id),
  )
  return { task, entries, trend: trendOf(entries, { target: task.headline, sense: task.sense }, 'adopted') }
}

export const giga = (flop: number): string => {
  const value = flop / 1e9
  if (value < 1) return value.toPrecision(2)
  return value >= 100 ? value.toFixed(0) : value.toFixed(1)
}

const range = ([low, high]: readonly [number, number], show: (value: number) => string): string =>
  `${show(low)} to ${show(high)}`

const cost = ({ flop, reached, seeds, atLeast }: Summary): string =>
  flop === null ? `> ${giga(atLeast)} (${reached} of ${seeds})` : giga(flop)

/** `pictures`: what the names of its pictures begin with. */
export function boardReport(board: Board, pictures = ''): Report {
  const { task } = board
  return {
    title: task.title,
    commands: [`anneal study efficiency run ${task.id}`, `anneal study efficiency board ${task.id}`],
    sections: [
      headline(board, pictures),
      ladder(board, pictures),
      declared(board),
      comparison(board),
      tuning(board),
      phasesOf(board),
      rules(board),
    ],
  }
}

function headline({ task, entries, trend }: Board, pictures: string): Section {
  const target = { target: task.headline, sense: task.sense }
  return {
    title: `GFLOP to ${task.headline} ${task.metric}`,
    paragraphs: [
      trend.says,
      'Geometric means over seeds at the first crossing, and their 95 % intervals (Student’s t on the logarithm). Every operation of training is counted, the optimizer’s too; evaluation and tuning are not charged. FLOP are not seconds.',
      ...(trend.censored.length > 0
        ? [
            `Seeds that missed the target are kept: ${trend.censored.map(({ entry }) => entry.id).join(', ')} cost more than what is shown, and stand in no fit.`,
          ]
        : []),
    ],
    picture: {
      file: `${pictures}trend.svg`,
      says: `Compute to ${task.headline} against the year each recipe came into use. ${trend.says}`,
    },
    table: [
      ['entry', 'adopted', 'GFLOP', '95 %', 'spread of ln FLOP', task.samples, 'FLOP a sample', 'seeds'],
      ...entries.map(({ entry, runs }) => {
        const summary = summarise(runs, target)
        const { flop, interval, spread, samples, seeds } = summary
        return [
          entry.title,
          entry.dates.adopted,
          cost(summary),
          interval ? range(interval, giga) : '',
          spread === null ? '' : spread.toFixed(3),
          samples === null ? '' : Math.round(samples).toLocaleString('en'),
          flop === null || samples === null ? '' : Math.round(flop / samples).toLocaleString('en'),
          String(seeds),
        ]
      }),
    ],
  }
}

const ladder = ({ task, entries }: Board, pictures: string): Section => ({
  title: 'The whole ladder',
  paragraphs: ['GFLOP to every target, from the same runs: which recipe is cheapest depends on the target.'],
  picture: {
    file: `${pictures}ladder.svg`,
    says: `Compute of each entry to each target: ${task.ladder.join(', ')}`,
  },
  table: [
    ['entry', ...task.ladder.map(String)],
    ...entries.map(({ entry, runs }) => [
      entry.title,
      ...task.ladder.map((target) => cost(summarise(runs, { target, sense: task.sense }))),
    ]),
  ],
})

const declared = ({ task, entries }: Board): Section => ({
  title: 'Declared stop',
  paragraphs: [
    `What counts for a record: each recipe says where it ends, and there the mean over seeds must beat ${task.headline} (one-sided t-test, p < 0.01).`,
  ],
  table: [
    ['entry', 'GFLOP', 'mean', 'p', 'beats the target', 'test set'],
    ...entries.map(({ entry, runs }) => {
      const stop = declaredStop(runs, task.headline, task.sense)
      const tests = runs.flatMap(({ test }) => test ?? [])
      const test = tests.length > 0 ? (tests.reduce((a, b) => a + b, 0) / tests.length).toFixed(4) : ''
      return stop
        ? [
            entry.title,
            giga(stop.flop),
            stop.mean.toFixed(4),
            stop.p.toPrecision(2),
            stop.beats ? 'yes' : 'no',
            test,
          ]
        : [entry.title, '', '', '', 'a seed did not get there', test]
    }),
  ],
})

/** Each entry against the one before it. */
function comparison({ task, entries }: Board): Section {
  const target = { target: task.headline, sense: task.sense }
  return {
    title: 'Each against the one before it',
    paragraphs: [
      'Cost of the older over cost of the newer, above 1 a gain; it is the product of the ratio of samples and the ratio of FLOP a sample.',
    ],
    table: [
      ['older', 'newer', 'ratio', '95 %', 'samples', 'FLOP a sample', 'record by the rules'],
      ...entries.slice(1).map((newer, i) => {
        const older = entries[i]!
        const both = ratio(older.runs, newer.runs, target)
        const verdict = recordVerdict(newer.runs, older.runs, target)
        return [
          older.entry.id,
          newer.entry.id,
          both ? both.flop.toFixed(2) : 'a seed missed the target',
          both?.interval ? range(both.interval, (value) => value.toFixed(2)) : '',
          both ? both.split.samples.toFixed(2) : '',
          both ? both.split.perSample.toFixed(2) : '',
          verdict.record ? 'yes' : `no: ${verdict.reasons.join('; ')}`,
        ]
      }),
    ],
  }
}

const tuning = ({ entries }: Board): Section => ({
  title: 'What tuning cost',
  paragraphs: [
    'Shown beside the result and never added to it. Every entry had the same number of settings to try, on a seed of its own; the best three within 1.5 times the best were run with two more seeds, and the one that missed least and cost least was chosen. A trial ended once it was 1.5 times as dear as the best. All are in tuning.jsonl.',
  ],
  table: [
    ['entry', 'settings', 'runs', 'reached', 'too dear', 'diverged', 'TFLOP in all', 'chosen'],
    ...entries.map(({ entry, trials }) => {
      const ended = (how: string): string => String(trials.filter((trial) => trial.ended === how).length)
      const [best] = chosenTrial(trials)
      return [
        entry.title,
        entry.tuning === 'unknown' ? 'unknown' : String(new Set(trials.map(({ trial }) => trial)).size),
        String(trials.length),
        ended('reached'),
        ended('dearer'),
        ended('diverged'),
        entry.tuning === 'unknown' ? 'unknown' : (entry.tuning.flop / 1e12).toFixed(2),
        best
          ? Object.entries(best.settings)
              .map(([key, value]) => `${key}=${value}`)
              .join(' ')
          : '',
      ]
    }),
  ],
})

const phasesOf = ({ entries }: Board): Section => ({
  title: 'Where operations go',
  paragraphs: [
    'Shares of what is charged; evaluation beside it. Seconds are of one thread, several runs at a time.',
  ],
  table: [
    ['entry', 'forward', 'backward', 'optimizer', 'rest', 'evaluation, not charged', 'seconds a run'],
    ...entries.map(({ entry, runs }) => {
      const sum = (count: (run: BoardEntry['runs'][number]) => number): number =>
        runs.reduce((total, run) => total + count(run), 0)
      const charged = sum((run) => chargedFlop(run.phases))
      const share = (flop: number): string => `${((100 * flop) / charged).toFixed(1)} %`
      const [forward, backward, optimizer] = (['forward', 'backward', 'optimizer'] as const).map((phase) =>
        sum((run) => run.phases[phase]),
      ) as [number, number, number]
      return [
        entry.title,
        share(forward),
        share(backward),
        share(optimizer),
        share(charged - forward - backward - optimizer),
        share(sum((run) => run.phases.evaluation)),
        (sum((run) => run.wallMs) / runs.length / 1000).toFixed(0),
      ]
    }),
  ],
})

const rules = ({ task, entries }: Board): Section => ({
  title: 'Rules',
  paragraphs: [
    `A record: at least 2 % less compute (geometric mean) than the standing one, one-sided Welch test on ln FLOP with p < 0.01, at least ten seeds 0, 1, 2 … with none left out, at most one in ten that missed the target. Baselines, and reruns by those who doubt a row, are welcome too.`,
    `Data: ${task.data ? `${task.data.file}, sha256 ${task.data.sha256}` : 'none, the environment is code'}. Run on: ${[...new Set(entries.flatMap(({ runs }) => runs.map(({ machine }) => machine)))].join(' and ') || 'nothing yet'}.`,
    `Check a row: anneal study efficiency verify ${task.id}/${entries[0]?.entry.id ?? '<entry>'}`,
  ],
})

/** One line an entry and target, numbers in full. */
export function boardCsv({ task, entries }: Board): string {
  const heading = [
    'task',
    'entry',
    'idea',
    'adopted',
    'entered',
    'target',
    'seeds',
    'reached',
    'flop',
    'flop_low',
    'flop_high',
    'flop_at_least',
    'samples',
    'tuning_flop',
  ]
  const rows = entries.flatMap(({ entry, runs }) =>
    task.ladder.map((target) => {
      const one = summarise(runs, { target, sense: task.sense })
      const cell = (value: number | null | undefined): string =>
        value === null || value === undefined ? '' : String(Math.round(value))
      const { idea, adopted, entered } = entry.dates
      return [
        task.id,
        entry.id,
        idea,
        adopted,
        entered,
        String(target),
        String(one.seeds),
        String(one.reached),
        cell(one.flop),
        cell(one.interval?.[0]),
        cell(one.interval?.[1]),
        cell(one.atLeast),
        cell(one.samples),
        entry.tuning === 'unknown' ? '' : String(entry.tuning.flop),
      ]
    }),
  )
  return `${[heading, ...rows].map((row) => row.join(',')).join('\n')}\n`
}
