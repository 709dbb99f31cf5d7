/**
 * Runs of the study: tuning and seeds of entries for the boards, or a short suite beside them. Several runs at a time, one
 * thread each. Whatever is finished is on the disk, sealed; started again, only what is missing is run.
 */
import { execFileSync } from 'node:child_process'
import { existsSync, readFileSync } from 'node:fs'
import { availableParallelism } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { writeTextAtomically } from '../../data/files.ts'
import { badUsage, failure } from '../../errors.ts'
import {
  appendRun,
  appendTrial,
  entryFolder,
  readRuns,
  readTrials,
  recipeHash,
  repairLines,
  writeEntry,
  type Entry,
  type Run,
  type Trial,
} from './board-files.ts'
import { inParallel, Progress } from './progress.ts'
import type { Baseline, Recipe, Task } from './task.ts'
import { firstCrossing } from './time-to-target.ts'
import { machineKind, trainOnce } from './train-once.ts'
import { chosenRecipe, missingTrials, runTrial } from './tune.ts'

export interface CampaignOptions {
  readonly boards: string
  readonly jobs?: number
  readonly signal?: AbortSignal
  note(line: string): void
}

export interface Selected {
  readonly task: Task
  readonly baseline: Baseline
}

const noteEveryMs = 10_000

/** Runs `items` in parallel and says how far it is. True when nothing was interrupted. */
async function queue<T>(
  what: string,
  items: readonly T[],
  { jobs = availableParallelism(), signal, note }: CampaignOptions,
  work: (item: T, progress: Progress) => Promise<void>,
): Promise<boolean> {
  if (items.length === 0) return true
  const progress = new Progress(items.length)
  const timer = setInterval(() => note(`${what}: ${progress.line()}`), noteEveryMs)
  try {
    await inParallel(jobs, items, async (item) => {
      if (!signal?.aborted) await work(item, progress)
    })
    if (!signal?.aborted) note(`${what}: ${progress.line()}`)
  } finally {
    clearInterval(timer)
  }
  return !signal?.aborted
}

/**
 * Task by task: tunes entries that are not tuned yet, then runs seeds 0 to `seeds` - 1 of all. False when interrupted.
 */
export async function runForBoards(
  selected: readonly Selected[],
  seeds: number,
  options: CampaignOptions,
): Promise<boolean> {
  for (const task of new Set(selected.map((one) => one.task))) {
    const own = selected.filter((one) => one.task === task)
    // oxlint-disable-next-line no-await-in-loop -- runs of one entry fill the machine
    for (const one of own) if (!(await prepareEntry(one, seeds, options))) return false
    const missing = own.flatMap(({ baseline }) => {
      const folder = folderOf(options.boards, task, baseline)
      const { recipe, runs } = readUnfinished(folder)
      const done = new Set(runs.map(({ seed }) => seed))
      return Array.from({ length: seeds }, (_, seed) => ({ task, baseline, recipe, folder, seed })).filter(
        ({ seed }) => !done.has(seed),
      )
    })
    // oxlint-disable-next-line no-await-in-loop -- as said
    if (!(await runSeeds(`seeds of ${task.id}`, missing, options))) return false
  }
  return true
}

interface SeedJob {
  readonly task: Task
  readonly baseline: Baseline
  readonly recipe: Recipe
  readonly folder: string
  readonly seed: number
  /** Ends there, for short suites. */
  readonly until?: number
}

const runSeeds = async (
  what: string,
  jobs: readonly SeedJob[],
  options: CampaignOptions,
): Promise<boolean> => {
  const [kind, code] = [await machineKind(), version()]
  return await queue(
    what,
    jobs,
    options,
    async ({ task, baseline, recipe, folder, seed, until }, progress) => {
      const label = `${task.id}/${baseline.id} seed ${seed}`
      const done = await trainOnce(task, recipe, seed, {
        ...(options.signal ? { signal: options.signal } : {}),
        point(curve, measured) {
          progress.measured(label, measured, Number(recipe['steps'] ?? measured.step))
          return until !== undefined && firstCrossing(curve, until, task.sense) !== null
        },
      })
      if (!done) return
      progress.finished(label)
      const { ended, curve, phases, test, wallMs } = done
      const run: Run = {
        seed,
        recipe: recipeHash(recipe),
        ended: ended === 'enough' ? 'reached' : ended,
        curve: [...curve],
        phases,
        ...(test === undefined ? {} : { test }),
        wallMs,
        machine: kind,
        code,
      }
      appendRun(folder, run)
    },
  )
}

const folderOf = (boards: string, task: Task, { id, dates }: Baseline): string =>
  entryFolder(boards, { task: task.id, id, dates })

/** An entry that may still lack seeds. */
function readUnfinished(folder: string): { readonly recipe: Recipe; readonly runs: readonly Run[] } {
  const recipe = JSON.parse(readFileSync(join(folder, 'recipe.json'), 'utf8')) as Recipe
  const runs = readRuns(folder)
  const other = runs.find((run) => run.recipe !== recipeHash(recipe))
  if (other) throw otherRecipe(folder, other)
  return { recipe, runs }
}

const otherRecipe = (folder: string, run: Run): Error =>
  failure({
    where: join(folder, 'runs.jsonl'),
    got: `seed ${run.seed} of another recipe`,
    expected: 'runs of recipe.json as it is',
    fix: 'delete runs.jsonl to run all seeds again',
  })

/** Tunes, and writes entry.json and recipe.json. */
async function prepareEntry(
  { task, baseline }: Selected,
  seeds: number,
  options: CampaignOptions,
): Promise<boolean> {
  const folder = folderOf(options.boards, task, baseline)
  repairLines(folder)
  const trials: Trial[] = [...readTrials(folder)]
  for (const { trial, settings } of trials) {
    if (JSON.stringify(settings) === JSON.stringify(baseline.trials[trial])) continue
    throw failure({
      where: join(folder, 'tuning.jsonl'),
      got: `trial ${trial} of ${JSON.stringify(settings)}`,
      expected: `the settings of the task, ${JSON.stringify(baseline.trials[trial])}`,
      fix: 'delete tuning.jsonl and runs.jsonl to tune again',
    })
  }
  // Two rounds: which settings the second one has, the first one decides.
  for (const round of ['trials', 'finalists']) {
    // oxlint-disable-next-line no-await-in-loop -- as said
    const finished = await queue(
      `${round} of ${task.id}/${baseline.id}`,
      missingTrials(baseline, trials),
      options,
      async (job, progress) => {
        const settings = baseline.trials[job.trial]!
        const label = `${JSON.stringify(settings)} seed ${job.seed}`
        const steps = Number(settings['steps'] ?? baseline.recipe['steps'])
        const done = await runTrial(task, baseline, job, trials, {
          ...(options.signal ? { signal: options.signal } : {}),
          point: (_, measured) => progress.measured(label, measured, steps),
        })
        if (!done) return
        progress.finished(label)
        trials.push(done)
        appendTrial(folder, done)
      },
    )
    if (!finished) return false
  }
  const { id, title, dates, sources } = baseline
  const entry: Entry = {
    id,
    task: task.id,
    title,
    track: task.track,
    dates,
    sources,
    seeds,
    tuning: { trials: trials.length, flop: trials.reduce((sum, { spent }) => sum + spent, 0) },
  }
  writeEntry(folder, entry, chosenRecipe(task, baseline, readTrials(folder)))
  const note = join(folder, 'NOTE.md')
  if (!existsSync(note)) writeTextAtomically(note, `# ${title}\n\n${sources}.\n`)
  return true
}

export const suites = ['smoke', 'quick', 'full'] as const
export type Suite = (typeof suites)[number]

export interface ShortResult {
  readonly task: Task
  readonly baseline: Baseline
  readonly target: number
  readonly runs: readonly Run[]
}

/**
 * A short suite: runs end at an easier target and lie beside the boards, in `folder`. With the recipes of the boards where
 * they are there, else as the task has them. Null when interrupted.
 */
export async function runShort(
  suite: Exclude<Suite, 'full'>,
  selected: readonly Selected[],
  folder: string,
  seeds: number,
  options: CampaignOptions,
): Promise<readonly ShortResult[] | null> {
  const chosen = selected.filter(
    ({ task, baseline }) => suite === 'quick' || task.smoke.entries.includes(baseline.id),
  )
  const jobs = chosen.flatMap(({ task, baseline }) => {
    const board = folderOf(options.boards, task, baseline)
    const recipe = existsSync(join(board, 'entry.json')) ? readUnfinished(board).recipe : baseline.recipe
    const own = join(folder, suite, task.id, baseline.id)
    const until = suite === 'quick' ? task.quick : task.smoke.target
    return Array.from({ length: seeds }, (_, seed) => ({ task, baseline, recipe, folder: own, seed, until }))
  })
  for (const own of new Set(jobs.map((job) => job.folder))) repairLines(own)
  const isDone = (job: SeedJob): boolean =>
    readRuns(job.folder).some(({ seed, recipe }) => seed === job.seed && recipe === recipeHash(job.recipe))
  const whole = await runSeeds(
    `suite ${suite}`,
    jobs.filter((job) => !isDone(job)),
    options,
  )
  if (!whole) return null
  return chosen.map(({ task, baseline }) => {
    const own = jobs.find((job) => job.task === task && job.baseline === baseline)!
    const hash = recipeHash(own.recipe)
    const runs = readRuns(own.folder).filter(({ recipe, seed }) => recipe === hash && seed < seeds)
    return { task, baseline, target: own.until, runs }
  })
}

/** Which entries are meant: of one task or of all, of one id or all. */
export function select(tasks: readonly Task[], entry: string | undefined): readonly Selected[] {
  const all = tasks.flatMap((task) => task.baselines.map((baseline) => ({ task, baseline })))
  const found = all.filter(({ baseline }) => entry === undefined || baseline.id === entry)
  if (found.length > 0) return found
  throw badUsage({
    where: '--entry',
    got: `'${entry}'`,
    expected: `one of ${[...new Set(all.map(({ baseline }) => baseline.id))].join(', ')}`,
    fix: 'see the list of entries in the task',
  })
}

/** The commit, in a checkout; else the version of the package. */
function version(): string {
  const root = fileURLToPath(new URL('../../..', import.meta.url))
  if (existsSync(join(root, '.git'))) {
    try {
      return execFileSync('git', ['rev-parse', '--short=12', 'HEAD'], { cwd: root, encoding: 'utf8' }).trim()
    } catch {
      // No git: the version of the package will do.
    }
  }
  return (JSON.parse(readFileSync(join(root, 'package.json'), 'utf8')) as { version: string }).version
}
