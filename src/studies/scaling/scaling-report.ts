/** What the scaling study says: its plan, its runs, the law, the prediction as registered, and what came of it. */
import { existsSync } from 'node:fs'
import { join } from 'node:path'
import type { Report, Section } from '../report.ts'
import { context, heads, layers, tokensPerParameter } from './family.ts'
import { expectationsOf } from './grammar.ts'
import { fitLaw, lawAt, risesIn } from './law.ts'
import {
  analyse,
  check,
  readRegistration,
  registrationPath,
  type Analysis,
  type Check,
} from './registration.ts'
import { scalingFigure } from './scaling-figure.ts'
import { isDone, pointsOf, readFitRuns, readPlan, readStoredRun, type Plan, type StoredRun } from './store.ts'
import { readSweep, type Trial } from './sweep.ts'
import { studyGrammar, studyText } from './text.ts'

type Table = readonly (readonly string[])[]

export const scalingReportName = (series: string): string => `scaling-${series}`

const precise = (nats: number): string => nats.toFixed(4)
const percent = (share: number): string => `${(100 * share).toFixed(2)} %`
const between = ([low, high]: readonly [number, number]): string => `${precise(low)} to ${precise(high)}`

export const planTable = ({ fit, target }: Plan): Table => [
  ['run', 'width', 'matmul parameters', 'tokens', 'tokens each', 'batch', 'steps', 'FLOP'],
  ...[...fit, target].map(({ name, settings, parameters, tokens, flops }) => [
    name,
    String(settings.width),
    parameters.toLocaleString('en'),
    tokens.toLocaleString('en'),
    (tokens / parameters).toFixed(1),
    String(settings.batch),
    String(settings.steps),
    String(flops),
  ]),
]

export const lawTable = (
  { law, forecast: said, power, powerForecast }: Analysis,
  { target }: Plan,
): Table => [
  ['', 'a C^b + c', 'a C^b'],
  ['a', law.a.toPrecision(6), power.a.toPrecision(6)],
  ['b', law.b.toFixed(4), power.b.toFixed(4)],
  ['b, 90 %', between(said.exponent), between(powerForecast.exponent)],
  ['c, nats a token', precise(law.c), '0'],
  ['c, 90 %', between(said.constant), ''],
  ['root mean square of relative errors', percent(law.error), percent(power.error)],
  [`loss at ${target.flops.toExponential(4)} FLOP`, precise(said.loss), precise(powerForecast.loss)],
  ['90 %', between(said.interval), between(powerForecast.interval)],
]

export const checkTable = (found: Check): Table => [
  ['', 'a C^b + c', 'a C^b'],
  ['predicted', precise(found.predicted), precise(found.powerPredicted)],
  ['measured', precise(found.actual), precise(found.actual)],
  ['relative error', percent(found.relativeError), percent(found.powerRelativeError)],
  ['inside the 90 % interval', found.inside ? 'yes' : 'no', ''],
  ['entropy of the held-out text', precise(found.floor), ''],
  ['fitted constant against it', percent(found.constantError), ''],
  ['entropy rate of the grammar', precise(found.entropyRate), ''],
  ['fitted constant against it', percent(found.constantErrorOfRate), ''],
]

export function scalingReport(
  folder: string,
  series: string,
): { readonly report: Report; readonly pictures: Readonly<Record<string, string>> } {
  const plan = readPlan(folder)
  const runs = readFitRuns(folder, plan)
  const analysis = analyse(folder, plan)
  const target = isDone(folder, plan.target.name) ? readStoredRun(folder, plan.target) : undefined
  const floor = runs[0]!.floor
  const picture = `${scalingReportName(series)}.svg`
  const figure = scalingFigure({
    ...analysis,
    runs,
    targetFlops: plan.target.flops,
    floor,
    ...(target ? { actual: target.loss } : {}),
  })
  const flags = series === 'full' ? '' : ` --series ${series}`
  const command = (what: string): string => `anneal study scaling ${what}${flags}`
  const report: Report = {
    title: 'A loss predicted before the run',
    commands: ['plan', 'run', 'fit', 'register', 'run --target', 'check', 'report'].map(command),
    sections: [
      outcome(folder, plan, picture, target !== undefined),
      { title: 'The law', paragraphs: lawWords(analysis, runs), table: lawTable(analysis, plan) },
      sensitivity(runs, plan),
      textSection(floor),
      {
        title: 'The plan',
        paragraphs: [
          `One family of models with one dial, the width: ${layers} layers, ${heads} heads, a context of ${context} characters. For each budget the width that leaves nearest to ${tokensPerParameter} tokens for each parameter in a matrix product; the batch grows with tokens^0.38; as many steps as the budget pays for, counted on the compiled program, optimizer and attention included. Muon for the layers and Adam for embedding and head, with the same peak rates at every width.`,
        ],
        table: planTable(plan),
      },
      runsSection(target ? [...runs, target] : runs),
      ...sweepSection(join(folder, '..')),
    ],
  }
  return { report, pictures: { [picture]: figure } }
}

function outcome(folder: string, plan: Plan, picture: string, done: boolean): Section {
  const registered = existsSync(registrationPath(folder)) ? readRegistration(folder) : undefined
  const words = registered
    ? `Registered ${registered.registered} with hash ${registered.sha256['all']}: ${plan.target.name} will reach ${precise(registered.forecast.loss)} nats a token, with 90 % between ${between(registered.forecast.interval)}.`
    : 'No prediction is registered yet.'
  return {
    title: 'Prediction and outcome',
    paragraphs: [
      words,
      ...(done ? [] : ['The predicted run is not finished; nothing below knows its loss.']),
    ],
    picture: {
      file: picture,
      says: `Loss against compute for ${plan.fit.length} runs, the fitted law and its prediction`,
    },
    ...(done && registered ? { table: checkTable(check(folder)) } : {}),
  }
}

const lawWords = ({ law, power }: Analysis, runs: readonly StoredRun[]): string[] => [
  `Least squares of relative errors, every budget with the same weight. Intervals: bootstrap of residuals, scaled up for the parameters fitted, with one residual more for the run that is predicted.`,
  law.error < power.error / 2
    ? 'The law with a constant fits clearly better than the power law alone.'
    : 'The law with a constant does not fit clearly better than the power law alone; take its constant with care.',
  ...risesIn(pointsOf(runs)).map(
    ({ from, to }) =>
      `The loss rises from ${from.toExponential()} to ${to.toExponential()} FLOP; the law has it fall.`,
  ),
]

function sensitivity(runs: readonly StoredRun[], plan: Plan): Section {
  const points = pointsOf(runs)
  const budgets = [...new Set(points.map(({ budget }) => budget))].toSorted((a, b) => a - b)
  const says = (chosen: typeof points, flops: number): number => lawAt(fitLaw(chosen, true), flops)
  const largest = budgets.at(-1)!
  const smaller = points.filter(({ budget }) => budget < largest)
  const { flops, loss } = points.find(({ budget }) => budget === largest)!
  const said = says(smaller, flops)
  return {
    title: 'How much the prediction hangs on single runs',
    paragraphs: [
      `Fitted without the largest budget, the law says ${precise(said)} for it; measured ${precise(loss)}, an error of ${percent(said / loss - 1)}.`,
      `What the law would predict for ${plan.target.name} without all runs of one budget:`,
    ],
    table: [
      ['without', 'predicted'],
      ...budgets.map((left) => {
        const rest = points.filter(({ budget }) => budget !== left)
        return [left.toExponential(), precise(says(rest, plan.target.flops))]
      }),
    ],
  }
}

function textSection(floor: number): Section {
  const { entropy, length, rate } = expectationsOf(studyGrammar(studyText))
  return {
    title: 'The text',
    paragraphs: [
      `Drawn from a probabilistic grammar with two lexicons of ${studyText.words.toLocaleString('en')} words; no window is seen twice. A sentence has ${entropy.toFixed(4)} nats and ${length.toFixed(4)} characters on average, both solved from the grammar (Grenander 1967; Soule 1974), so the entropy rate is ${rate.toFixed(4)} nats a character.`,
      `Windows begin with a sentence, where characters are a little harder than on average: the grammar itself gives the held-out windows ${precise(floor)} nats a character, which is what no model can beat on average and what the constant is compared with; against the entropy rate it is ${percent(floor / rate - 1)} more.`,
    ],
  }
}

const runsSection = (runs: readonly StoredRun[]): Section => ({
  title: 'The runs',
  paragraphs: [
    'Held-out loss and what it is above the text’s own entropy, in nats a token. Curves are in the files beside each run.',
  ],
  table: [
    ['run', 'FLOP', 'loss', 'above the text', 'seconds'],
    ...runs.map(({ name, flops, loss, floor, seconds }) => [
      name,
      flops.toExponential(4),
      precise(loss),
      precise(loss - floor),
      seconds.toFixed(0),
    ]),
  ],
})

export const sweepTable = (trials: readonly Trial[]): Table => [
  ['budget', 'width', 'rate of Muon', 'rate of Adam', 'loss', 'against the best'],
  ...trials.map(({ budget, width, lr, adamLr, loss }) => {
    const best = Math.min(...trials.filter((one) => one.budget === budget).map((one) => one.loss))
    return [
      budget.toExponential(),
      String(width),
      String(lr),
      String(adamLr),
      precise(loss),
      percent(loss / best - 1),
    ]
  }),
]

function sweepSection(folder: string): Section[] {
  const trials = readSweep(folder)
  if (trials.length === 0) return []
  const cost = trials.reduce((sum, { flops }) => sum + flops, 0)
  return [
    {
      title: 'The rates',
      paragraphs: [
        `Each rate halved and doubled at two widths (anneal study scaling sweep): ${trials.length} trials, ${cost.toExponential(2)} FLOP, not counted in the runs above.`,
      ],
      table: sweepTable(trials),
    },
  ]
}
