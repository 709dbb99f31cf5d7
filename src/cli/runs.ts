/**
 * `anneal runs [query...]`: one row a run, newest first, read through the SQLite index so that a folder of thousands lists at
 * once. What lies there without being a run is named on stderr.
 */
import { badUsage } from '../errors.ts'
import { searchRuns } from '../runs/index.ts'
import type { RunSummary } from '../runs/index.ts'
import type { Command } from './command.ts'
import { runsOption, self } from './command.ts'
import { formatDuration, formatFlops, formatMetric, formatTable } from './format.ts'

export const runs: Command = {
  arguments: ['which runs, e.g. status=running loss<1.5 model.width>=128 tag=good sort=-created'],
  options: [['--limit <n>', 'how many rows to print; 0 = all', '20'], runsOption],
  examples: ['anneal runs', 'anneal runs "loss<1.6" optim.name=muon', 'anneal runs --limit 0 --json'],
  async run(io, words, options) {
    const limit = Number(options['limit'])
    if (!Number.isSafeInteger(limit) || limit < 0) {
      const got = `'${String(options['limit'])}'`
      throw badUsage({ where: '--limit', got, expected: 'a whole number', fix: 'use --limit 0 for all runs' })
    }
    const { listIndexedRuns } = await import('../runs/index-db.ts')
    const runsDir = String(options['runs'])
    const { runs: found, skipped } = listIndexedRuns(runsDir)
    const all = searchRuns(found, words.map(quoteSpaces).join(' '))
    for (const { name, reason } of skipped) io.note(`note: ${runsDir}/${name} passed over: ${reason}`)
    const shown = limit === 0 ? all : all.slice(0, limit)
    if (found.length === 0 && !io.json) io.note(`no runs in ${runsDir} yet; train one with: ${self} up`)
    else io.result(table(shown), { runs: shown, total: all.length, skipped })
    if (shown.length < all.length) io.note(`${all.length - shown.length} more with --limit 0`)
    return 0
  },
}

/** A word that the shell has taken the quotes off. */
const quoteSpaces = (word: string): string => (/\s/.test(word) && !/["=<>~]/.test(word) ? `"${word}"` : word)

function table(rows: readonly RunSummary[]): string {
  const header = ['run', 'status', 'step', 'loss', 'validation (best)', 'compute', 'time']
  return formatTable([header, ...rows.map(row)])
}

function row(run: RunSummary): string[] {
  const { loss, validationLoss } = run.metrics
  const best = validationLoss?.min
  const validation =
    validationLoss && `${formatMetric(validationLoss.last.value)} (${best ? formatMetric(best.value) : '-'})`
  return [
    run.id,
    run.status,
    String(run.step),
    loss ? formatMetric(loss.last.value) : '-',
    validation ?? '-',
    formatFlops(run.flops),
    formatDuration(run.seconds),
  ]
}
