/**
 * `anneal study scaling <what>`: a loss predicted before the run. `plan` lays out small runs and the large one, `run`
 * makes them, `fit` shows the law, `register` files the prediction, `run --target` makes the large run, `check` compares.
 */
import { mkdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { badUsage } from '../errors.ts'
import { series, type SeriesName } from '../studies/scaling/budgets.ts'
import type { Io, Options } from './command.ts'
import { formatTable } from './format.ts'
import { withInterrupt } from './interrupt.ts'

type Part = (io: Io, options: Options) => Promise<0 | 1 | 130>

/** Options of `anneal study` that are of this study. */
export const scalingOptions = [
  ['--series <name>', `scaling: ${Object.keys(series).join(' or ')} (default full)`],
  ['--folder <dir>', 'scaling: where the files of the series are (default data/scaling/<series>)'],
  ['--work <dir>', 'scaling: where checkpoints are kept', 'runs/scaling'],
  ['--target', 'scaling run: the larger run, once its loss is predicted'],
  ['--only <run>', 'scaling run: one run of the plan'],
  ['--threads <n>', 'scaling run: threads; 0 = all cores', '0'],
] as const

const seriesOf = ({ series: given = 'full' }: Options): SeriesName => {
  if (given === 'full' || given === 'short') return given
  throw badUsage({
    where: '--series',
    got: `'${String(given)}'`,
    expected: Object.keys(series).join(' or '),
    fix: 'leave it out for the full one',
  })
}

const textOf = (options: Options, name: string, fallback: string): string =>
  typeof options[name] === 'string' ? options[name] : fallback

const folderOf = (options: Options): string =>
  textOf(options, 'folder', join('data/scaling', seriesOf(options)))

const threadsOf = (options: Options): number => {
  const threads = Number(textOf(options, 'threads', '0'))
  if (Number.isInteger(threads) && threads >= 0) return threads
  throw badUsage({
    where: '--threads',
    got: `'${String(options['threads'])}'`,
    expected: 'a whole number',
    fix: 'use 0 for all cores',
  })
}

export const scaling: Readonly<Record<string, Part>> = {
  async plan(io, options) {
    const { layOut, storePlan } = await import('../studies/scaling/series.ts')
    const { planTable } = await import('../studies/scaling/scaling-report.ts')
    const plan = await layOut(seriesOf(options))
    storePlan(folderOf(options), plan)
    io.result(formatTable(planTable(plan)), plan)
    return 0
  },

  async run(io, options) {
    const { runSeries } = await import('../studies/scaling/series.ts')
    let begun = performance.now()
    const finished = await withInterrupt(
      () => io.note('stopping after this step; the run goes on with the same command'),
      (signal) =>
        runSeries(folderOf(options), {
          work: textOf(options, 'work', 'runs/scaling'),
          target: options['target'] === true,
          ...(typeof options['only'] === 'string' ? { only: options['only'] } : {}),
          threads: threadsOf(options),
          signal,
          begins({ name, flops }) {
            io.note(`${name}: ${flops.toExponential(3)} FLOP`)
          },
          progress({ name }, { step, steps, loss, secondsLeft }) {
            if (performance.now() - begun < 5000 && step < steps) return
            begun = performance.now()
            io.note(
              `${name}: step ${step} of ${steps}, loss ${loss.toFixed(4)}, ${Math.ceil(secondsLeft)} s left`,
            )
          },
        }),
    )
    if (!finished) return 130
    io.result('all runs are done', { done: true })
    return 0
  },

  async sweep(io, options) {
    const { readSweep, runSweep } = await import('../studies/scaling/sweep.ts')
    const { sweepTable } = await import('../studies/scaling/scaling-report.ts')
    const folder = textOf(options, 'folder', 'data/scaling')
    const finished = await withInterrupt(
      () => io.note('stopping after this step; the sweep goes on with the same command'),
      (signal) =>
        runSweep(folder, {
          work: textOf(options, 'work', 'runs/scaling'),
          threads: threadsOf(options),
          signal,
          tried: ({ budget, lr, adamLr, loss }) =>
            io.note(`${budget.toExponential()} lr=${lr} adamLr=${adamLr}: ${loss.toFixed(4)}`),
        }),
    )
    if (!finished) return 130
    const trials = readSweep(folder)
    io.result(formatTable(sweepTable(trials)), { trials })
    return 0
  },

  async fit(io, options) {
    const { readPlan } = await import('../studies/scaling/store.ts')
    const { analyse } = await import('../studies/scaling/registration.ts')
    const { lawTable } = await import('../studies/scaling/scaling-report.ts')
    const folder = folderOf(options)
    const plan = readPlan(folder)
    const found = analyse(folder, plan)
    io.result(formatTable(lawTable(found, plan)), found)
    return 0
  },

  async register(io, options) {
    const { readPlan } = await import('../studies/scaling/store.ts')
    const { register, registrationPath } = await import('../studies/scaling/registration.ts')
    const { workOf } = await import('../studies/scaling/series.ts')
    const folder = folderOf(options)
    const plan = readPlan(folder)
    const work = workOf(textOf(options, 'work', 'runs/scaling'), plan, plan.target)
    const made = register(folder, work, new Date())
    const [low, high] = made.forecast.interval
    io.result(
      `registered ${made.registered}: ${made.target.name} will reach ${made.forecast.loss.toFixed(4)} nats a token (90 %: ${low.toFixed(4)} to ${high.toFixed(4)})\nhash ${made.sha256['all']}\ncommit ${registrationPath(folder)} before the run: anneal study scaling run --target${seriesOf(options) === 'full' ? '' : ' --series short'}`,
      made,
    )
    return 0
  },

  async check(io, options) {
    const { check } = await import('../studies/scaling/registration.ts')
    const { checkTable } = await import('../studies/scaling/scaling-report.ts')
    const found = check(folderOf(options))
    io.result(formatTable(checkTable(found)), found)
    return 0
  },

  async report(io, options) {
    const { scalingReport, scalingReportName } = await import('../studies/scaling/scaling-report.ts')
    const { reportHtml, reportMarkdown } = await import('../studies/report.ts')
    const out = textOf(options, 'out', 'docs/studies')
    const name = scalingReportName(seriesOf(options))
    const { report, pictures } = scalingReport(folderOf(options), seriesOf(options))
    const files = {
      ...pictures,
      [`${name}.md`]: reportMarkdown(report),
      [`${name}.html`]: reportHtml(report, pictures),
    }
    mkdirSync(out, { recursive: true })
    for (const [file, text] of Object.entries(files)) writeFileSync(join(out, file), text)
    io.result(
      `written: ${Object.keys(files)
        .map((file) => join(out, file))
        .join(', ')}`,
      { files: Object.keys(files) },
    )
    return 0
  },
}
