/**
 * `anneal compare <run>...`: the settings in which runs differ and the figures of every metric side by side, the same as
 * on the lab's page.
 */
import { badUsage } from '../errors.ts'
import { findRun, readRun, summarise } from '../runs/index.ts'
import type { RunSummary } from '../runs/index.ts'
import type { Command } from './command.ts'
import { runHelp, runsOption } from './command.ts'
import { differingSettings } from '../runs/settings.ts'
import { formatDuration, formatFlops, formatMetric, formatTable } from './format.ts'
import { printSetting } from './settings.ts'

export const compare: Command = {
  arguments: [`two or more runs, each as ${runHelp}`],
  options: [runsOption],
  examples: ['anneal compare kq3f x9ab', 'anneal compare kq3f latest --json'],
  async run(io, words, options) {
    const runsDir = String(options['runs'])
    const ids = [...new Set(words.map((word) => findRun(runsDir, word)))]
    if (ids.length < 2) {
      throw badUsage({
        where: 'compare',
        got: ids.length === 0 ? 'no run' : `one run, ${ids[0]}`,
        expected: 'two or more',
        fix: 'see anneal runs for their names',
      })
    }
    const runs = ids.map((id) => summarise(readRun(runsDir, id)))
    const settings = differingSettings(runs.map(({ config }) => config))
    const metrics = [...new Set(runs.flatMap((run) => Object.keys(run.metrics)))]
    const totals: string[][] = [
      ['run', ...ids],
      ['status', ...runs.map((run) => run.status)],
      ['step', ...runs.map((run) => String(run.step))],
      ['compute', ...runs.map((run) => formatFlops(run.flops))],
      ['time', ...runs.map((run) => formatDuration(run.seconds))],
    ]
    const figures = metrics.flatMap((name) => figuresOf(name, runs))
    const differing = settings.map(([key, values]) => [
      `  ${key}`,
      ...values.map((value) => (value === undefined ? '-' : printSetting(value))),
    ])
    const text = [
      ...totals,
      ['settings', ...(settings.length === 0 ? ['none differs'] : [])],
      ...differing,
      ['figures'],
      ...figures,
    ]
    io.result(formatTable(text), {
      runs,
      differences: Object.fromEntries(
        settings.map(([key, values]) => [key, values.map((value) => value ?? null)]),
      ),
    })
    return 0
  },
}

/** Last, smallest and largest value of a metric in each run. */
function figuresOf(name: string, runs: readonly RunSummary[]): string[][] {
  const cells = (of: 'last' | 'min' | 'max'): string[] =>
    runs.map(({ metrics }) => {
      const place = metrics[name]?.[of]
      return place ? formatMetric(place.value) : '-'
    })
  return [
    [`  ${name}, last`, ...cells('last')],
    [`  ${name}, smallest`, ...cells('min')],
    [`  ${name}, largest`, ...cells('max')],
  ]
}
