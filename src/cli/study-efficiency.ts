/**
 * `anneal study efficiency <what>`, all but the paper: runs entries of the leaderboards, builds the boards from files,
 * verifies rows, compares entries, fits tables, and guards all that in continuous integration.
 */
import { join } from 'node:path'
import { badUsage } from '../errors.ts'
import type { Suite } from '../studies/efficiency/campaign.ts'
import type { Io, Options } from './command.ts'
import { formatTable } from './format.ts'
import { withInterrupt } from './interrupt.ts'

export type Part = (io: Io, options: Options, words: readonly string[]) => Promise<0 | 1 | 130>

const text = (options: Options, name: string): string | undefined =>
  typeof options[name] === 'string' ? options[name] : undefined

function whole(options: Options, name: string, fallback: number): number {
  const given = text(options, name)
  if (given === undefined) return fallback
  if (/^[1-9]\d*$/.test(given)) return Number(given)
  throw badUsage({
    where: `--${name}`,
    got: `'${given}'`,
    expected: 'a whole number from 1',
    fix: `try --${name} 5`,
  })
}

const seedsOf: Readonly<Record<Suite, number>> = { smoke: 1, quick: 3, full: 5 }

/** `suite=quick`, or the name of a task; all tasks otherwise. */
export const run: Part = async (io, options, words) => {
  const { runForBoards, runShort, select, suites } = await import('../studies/efficiency/campaign.ts')
  const { leaderboards } = await import('../studies/efficiency/board-files.ts')
  const { tasks, taskNamed } = await import('../studies/efficiency/tasks/index.ts')
  const suiteWord = words.find((word) => word.startsWith('suite='))?.slice('suite='.length)
  const suite = suites.find((one) => one === (suiteWord ?? 'full'))
  if (!suite)
    throw badUsage({
      where: 'suite',
      got: `'${suiteWord}'`,
      expected: suites.join(', '),
      fix: 'try suite=quick',
    })
  const names = words.filter((word) => !word.startsWith('suite='))
  const chosen = select(names.length > 0 ? names.map(taskNamed) : tasks, text(options, 'entry'))
  const seeds = whole(options, 'seeds', seedsOf[suite])
  const boards = text(options, 'boards') ?? leaderboards
  return await withInterrupt(
    () => io.note('stopping; what is finished is kept, and the same command goes on from there'),
    async (signal) => {
      const jobs = text(options, 'jobs') === undefined ? {} : { jobs: whole(options, 'jobs', 1) }
      const settings = { boards, signal, note: io.note, ...jobs }
      if (suite === 'full') {
        if (!(await runForBoards(chosen, seeds, settings))) return 130
        const ids = [...new Set(chosen.map(({ task }) => task.id))]
        io.result(`done; draw the boards with: anneal study efficiency board ${ids.join(' ')}`, {
          tasks: ids,
          seeds,
        })
        return 0
      }
      const folder = text(options, 'out') ?? join('.anneal', 'efficiency')
      const results = await runShort(suite, chosen, folder, seeds, settings)
      if (!results) return 130
      const { summarise } = await import('../studies/efficiency/compare.ts')
      const rows = results.map(({ task, baseline, target, runs }) => {
        const { flop, interval, reached, atLeast } = summarise(runs, { target, sense: task.sense })
        return {
          task: task.id,
          entry: baseline.id,
          target,
          seeds: runs.length,
          reached,
          flop,
          interval,
          atLeast,
        }
      })
      const giga = (flop: number): string => (flop / 1e9).toFixed(1)
      io.result(
        formatTable([
          ['task', 'entry', 'target', 'reached', 'GFLOP', '95 %'],
          ...rows.map((row) => [
            row.task,
            row.entry,
            String(row.target),
            `${row.reached} of ${row.seeds}`,
            row.flop === null ? `more than ${giga(row.atLeast)}` : giga(row.flop),
            row.interval === null ? '' : row.interval.map(giga).join(' to '),
          ]),
        ]),
        { suite, rows },
      )
      return 0
    },
  )
}
