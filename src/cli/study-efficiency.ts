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

/** Boards of the named tasks, or of all that have entries; `published` is the board of other people's series. */
export const board: Part = async (io, options, words) => {
  const { readEntries } = await import('../studies/efficiency/board-files.ts')
  const made = await import('../studies/efficiency/board.ts')
  const { tasks, taskNamed } = await import('../studies/efficiency/tasks/index.ts')
  const boards = await boardsOf(options)
  const wanted = words.filter((word) => word !== 'published')
  const chosen =
    words.length > 0 ? wanted.map(taskNamed) : tasks.filter(({ id }) => readEntries(boards, id).length > 0)
  const [check, pages] = [options['check'] === true, text(options, 'out')]
  const written: string[] = []
  const says: Record<string, string> = {}
  for (const task of chosen) {
    const one = made.readBoard(task, boards)
    says[task.id] = one.trend.says
    if (check) made.checkBoard(one, boards)
    else written.push(...made.writeBoard(one, boards))
    if (pages === undefined) continue
    if (check) made.checkPages(made.boardPages(one), pages, task.id)
    else written.push(...made.writePages(made.boardPages(one), pages))
  }
  if (words.length === 0 || words.includes('published')) {
    if (check) made.checkPublished(boards)
    else written.push(...made.writePublished(boards))
    if (pages !== undefined && check) made.checkPages(made.publishedPages(), pages, 'published')
    else if (pages !== undefined) written.push(...made.writePages(made.publishedPages(), pages))
  }
  const lines = Object.entries(says).map(([id, line]) => `${id}: ${line}`)
  const after = check
    ? ['every generated file is what its entries make']
    : written.map((path) => `written: ${path}`)
  io.result([...lines, ...after].join('\n'), { says, written })
  return 0
}

/** A task and an entry from `task/entry`. */
async function named(word: string, boards: string) {
  const { taskNamed } = await import('../studies/efficiency/tasks/index.ts')
  const { readEntries } = await import('../studies/efficiency/board-files.ts')
  const [taskId = '', entryId = ''] = word.split('/')
  const task = taskNamed(taskId)
  const entries = readEntries(boards, task.id)
  const found = entries.find(({ entry }) => entry.id === entryId)
  if (found) return { task, entry: found }
  throw badUsage({
    where: 'entry',
    got: `'${word}'`,
    expected: entries.map(({ entry }) => `${task.id}/${entry.id}`).join(', ') || `entries of ${task.id}`,
    fix: entries.length === 0 ? `anneal study efficiency run ${task.id}` : 'write task/entry',
  })
}

const boardsOf = async (options: Options): Promise<string> =>
  text(options, 'boards') ?? (await import('../studies/efficiency/board-files.ts')).leaderboards

/** Runs one seed of each named row again. */
export const verify: Part = async (io, options, words) => {
  const { verifyRun } = await import('../studies/efficiency/verify.ts')
  const boards = await boardsOf(options)
  const given = text(options, 'seed') ?? '0'
  if (!/^\d+$/.test(given))
    throw badUsage({
      where: '--seed',
      got: `'${given}'`,
      expected: 'a seed of the entry',
      fix: 'try --seed 0',
    })
  const rows = await Promise.all(words.map((word) => named(word, boards)))
  if (rows.length === 0)
    throw badUsage({
      where: 'verify',
      got: 'no entry',
      expected: 'task/entry, one or more',
      fix: 'try shakespeare-opt/muon',
    })
  return await withInterrupt(
    () => io.note('stopping'),
    async (signal) => {
      const results = []
      for (const [i, { task, entry }] of rows.entries()) {
        // oxlint-disable-next-line no-await-in-loop -- one run fills a core; a second one would halve it
        const found = await verifyRun(task, entry, Number(given), { signal })
        if (!found) return 130
        const bits = found.sameMachine
          ? `${task.metric} equal to the bit`
          : `another kind of machine than the row's: ${task.metric} differ by at most ${found.largestDifference}`
        io.note(`${words[i]} seed ${given}: ${found.points} evaluations, ${found.flop} FLOP equal; ${bits}`)
        results.push({ entry: words[i], ...found })
      }
      io.result(`verified: ${words.join(', ')}`, { seed: Number(given), rows: results })
      return 0
    },
  )
}

/** Two entries of one task: ratio, split, and whether the second is a record against the first. */
export const compare: Part = async (io, options, words) => {
  const { ratio, recordVerdict, summarise } = await import('../studies/efficiency/compare.ts')
  const boards = await boardsOf(options)
  const [a, b] = words
  if (a === undefined || b === undefined || words.length > 2)
    throw badUsage({
      where: 'compare',
      got: `${words.length} entries`,
      expected: 'two, as task/entry',
      fix: 'try shakespeare-opt/adam shakespeare-opt/muon',
    })
  const [first, second] = [await named(a, boards), await named(b, boards)]
  if (first.task !== second.task)
    throw badUsage({
      where: 'compare',
      got: `${a} and ${b}`,
      expected: 'entries of one task',
      fix: 'costs of different tasks have no ratio',
    })
  const { task } = first
  const rows = task.ladder.map((target) => {
    const goal = { target, sense: task.sense }
    const [one, other] = [summarise(first.entry.runs, goal), summarise(second.entry.runs, goal)]
    return { target, first: one, second: other, ratio: ratio(first.entry.runs, second.entry.runs, goal) }
  })
  const verdict = recordVerdict(second.entry.runs, first.entry.runs, {
    target: task.headline,
    sense: task.sense,
  })
  const giga = (flop: number | null): string => (flop === null ? 'missed' : (flop / 1e9).toFixed(1))
  io.result(
    [
      formatTable([
        ['target', `${a}, GFLOP`, `${b}, GFLOP`, 'ratio', '95 %', 'samples x', 'FLOP a sample x', 'p'],
        ...rows.map(({ target, first: one, second: other, ratio: both }) => [
          String(target),
          giga(one.flop),
          giga(other.flop),
          both ? both.flop.toFixed(2) : '',
          both?.interval ? both.interval.map((value) => value.toFixed(2)).join(' to ') : '',
          both ? both.split.samples.toFixed(2) : '',
          both ? both.split.perSample.toFixed(2) : '',
          both?.p === null || !both ? '' : both.p.toPrecision(2),
        ]),
      ]),
      verdict.record
        ? `${b} is a record against ${a}`
        : `${b} is no record against ${a}: ${verdict.reasons.join('; ')}`,
    ].join('\n'),
    { first: a, second: b, rows, verdict },
  )
  return 0
}

/** The halving time of any dated table of costs. */
export const fit: Part = async (io, options, words) => {
  const { fitTable } = await import('../studies/efficiency/fit-table.ts')
  const [file] = words
  if (file === undefined || words.length > 1)
    throw badUsage({
      where: 'fit',
      got: `${words.length} tables`,
      expected: 'one CSV file',
      fix: 'try data/efficiency/paper_alexnet_level.csv --cost tflops_days',
    })
  const found = fitTable({ file, cost: text(options, 'cost'), date: text(options, 'date') })
  const row = (name: string, { months, interval: [low, high], line, factor }: typeof found.all): string[] => [
    name,
    String(line.points),
    low.toFixed(2),
    months.toFixed(2),
    high.toFixed(2),
    line.r2.toFixed(3),
    `${factor.toFixed(2)}x`,
  ]
  const { frontier } = found
  io.result(
    [
      `${found.column} (${found.unit}): months to halve, Student’s 95 % interval; points of a frontier depend on each other`,
      formatTable([
        ['', 'rows', 'low', 'months', 'high', 'R2', 'first to last'],
        row('all rows', found.all),
        ...(frontier ? [row('cheapest so far', frontier.halving)] : []),
      ]),
      frontier
        ? `cheapest so far, bootstrap (${frontier.details.pairs.exact ? 'all' : 'seeded'} ${frontier.details.pairs.resamples} resamples): ${frontier.details.pairs.low.toFixed(2)} to ${frontier.details.pairs.high.toFixed(2)} months; Moore’s Law over the same time ${frontier.moore.factor.toFixed(2)}x`
        : 'no frontier to fit: fewer than three rows were cheaper than every earlier one',
    ].join('\n'),
    { file, ...found },
  )
  return 0
}

/** For continuous integration: exact cost of every row, and with --to the progress of a fresh seed. */
export const regress: Part = async (io, options, words) => {
  const { checkCost, checkProgress, withBase } = await import('../studies/efficiency/regress.ts')
  const { readEntries } = await import('../studies/efficiency/board-files.ts')
  const { tasks, taskNamed } = await import('../studies/efficiency/tasks/index.ts')
  const boards = await boardsOf(options)
  const chosen = words.length > 0 ? words.map(taskNamed) : tasks
  const target = text(options, 'to')
  return await withInterrupt(
    () => io.note('stopping'),
    async (signal) =>
      await withBase(text(options, 'base') ?? boards, boards, async (folder) => {
        const rows: {
          task: string
          entry: string
          kind: string
          found: number | null
          wanted: readonly number[]
          fine: boolean
        }[] = []
        for (const task of chosen) {
          for (const entry of readEntries(folder, task.id)) {
            if (text(options, 'entry') !== undefined && entry.entry.id !== text(options, 'entry')) continue
            const checks = [
              // oxlint-disable-next-line no-await-in-loop -- one run fills a core
              await checkCost(task, entry, { signal }),
              // oxlint-disable-next-line no-await-in-loop -- as above
              ...(target === undefined
                ? []
                : [await checkProgress(task, entry, rung(task.ladder, target), { signal })]),
            ]
            if (signal.aborted) return 130
            for (const one of checks) if (one) rows.push({ task: task.id, ...one })
          }
        }
        if (rows.length === 0)
          throw badUsage({
            where: 'regress',
            got: 'no rows',
            expected: `entries in ${folder}`,
            fix: 'run some: anneal study efficiency run',
          })
        const bad = rows.filter(({ fine }) => !fine)
        io.result(
          [
            formatTable([
              ['task', 'entry', 'what', 'found', 'wanted', ''],
              ...rows.map(({ task, entry, kind, found, wanted, fine }) => [
                task,
                entry,
                kind === 'cost' ? 'FLOP to the first evaluation' : `FLOP to ${target}`,
                String(found ?? 'missed'),
                wanted[0] === wanted[1]
                  ? String(wanted[0])
                  : wanted.map((flop) => flop.toPrecision(4)).join(' to '),
                fine ? '' : kind === 'cost' ? 'COST PER STEP CHANGED' : 'PROGRESS CHANGED',
              ]),
            ]),
            bad.length === 0 ? 'nothing changed' : `${bad.length} of ${rows.length} changed`,
          ].join('\n'),
          { rows, changed: bad.length },
        )
        return bad.length === 0 ? 0 : 1
      }),
  )
}

function rung(ladder: readonly number[], given: string): number {
  const found = ladder.find((target) => target === Number(given))
  if (found !== undefined) return found
  throw badUsage({
    where: '--to',
    got: `'${given}'`,
    expected: `one of the ladder: ${ladder.join(', ')}`,
    fix: `try --to ${ladder[0]}`,
  })
}
