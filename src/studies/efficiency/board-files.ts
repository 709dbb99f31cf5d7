/**
 * Leaderboards as files: leaderboards/<task>/entries/<entered>-<id>/ holds entry.json, recipe.json, tuning.jsonl and
 * runs.jsonl. Rules are checked when they are read, by line: every line is sealed with a hash of itself and names the recipe
 * it was trained with, seeds are 0, 1, 2 … without a gap up to the declared number, and nothing is NaN. So a number changed
 * by hand, a run taken out or a recipe swapped is refused, not drawn. (A seal is no signature: `verify` runs a row again.)
 */
import { createHash } from 'node:crypto'
import { appendFileSync, existsSync, mkdirSync, readdirSync, readFileSync, truncateSync } from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { z } from 'zod'
import { writeTextAtomically } from '../../data/files.ts'
import { failure } from '../../errors.ts'
import { phases, type Phase, type Recipe } from './task.ts'

export const leaderboards = fileURLToPath(new URL('../../../leaderboards', import.meta.url))

const integer = z.int().min(0)
const day = z.iso.date()
const sha256 = z.string().regex(/^[0-9a-f]{64}$/, 'a SHA-256')

const entrySchema = z.strictObject({
  id: z.string().regex(/^[a-z0-9][a-z0-9.-]*$/, 'lower-case letters, digits and hyphens'),
  task: z.string(),
  title: z.string(),
  track: z.enum(['fixed-model', 'open']),
  dates: z.strictObject({ idea: day, adopted: day, entered: day }),
  sources: z.string(),
  /** Declared: runs.jsonl must hold 0 to seeds - 1. */
  seeds: z.int().min(1),
  /** All that was spent to choose the recipe. */
  tuning: z.union([z.strictObject({ trials: integer, flop: integer }), z.literal('unknown')]),
})
export type Entry = z.output<typeof entrySchema>

const setting = z.union([z.number(), z.string(), z.boolean()])
const recipeSchema = z.record(z.string(), z.union([setting, z.record(z.string(), setting)]))

const point = z.tuple([integer, integer, integer, z.number()])
const counts = z.strictObject(
  Object.fromEntries(phases.map((phase) => [phase, integer])) as Record<Phase, typeof integer>,
)

const runSchema = z.strictObject({
  seed: integer,
  recipe: sha256,
  /** The end that the recipe declares; the task's budget; a metric that was no number; of a short suite, its target. */
  ended: z.enum(['declared', 'budget', 'diverged', 'reached']),
  /** [FLOP charged, step, samples, metric] of every evaluation. */
  curve: z.array(point),
  /** Of the whole run; evaluation is shown and not charged. */
  phases: counts,
  test: z.number().optional(),
  wallMs: integer,
  /** Processor, instructions and C compiler: what bits of a metric depend on. */
  machine: z.string(),
  /** Version of this project. */
  code: z.string(),
})
export type Run = z.output<typeof runSchema>
export type CurvePoint = Run['curve'][number]

const trialSchema = z.strictObject({
  /** Number of its settings in the list of the task. */
  trial: integer,
  seed: integer,
  settings: z.record(z.string(), setting),
  ended: z.enum(['reached', 'declared', 'budget', 'diverged', 'dearer']),
  /** To the headline target; null where it was not reached. */
  flop: integer.nullable(),
  step: integer.nullable(),
  /** How far the last metric was from the target; 1e9 where it was no number. */
  miss: z.number(),
  /** Charged to tuning. */
  spent: integer,
})
export type Trial = z.output<typeof trialSchema>

export interface BoardEntry {
  readonly folder: string
  readonly entry: Entry
  readonly recipe: Recipe
  readonly trials: readonly Trial[]
  readonly runs: readonly Run[]
}

export const entryFolder = (
  boards: string,
  { task, dates, id }: Pick<Entry, 'task' | 'dates' | 'id'>,
): string => join(boards, task, 'entries', `${dates.entered}-${id}`)

export const sha256Of = (content: string | Uint8Array): string =>
  createHash('sha256').update(content).digest('hex')
export const recipeHash = (recipe: Recipe): string => sha256Of(JSON.stringify(recipe))

const sealed = (value: object): string =>
  JSON.stringify({ ...value, sha256: sha256Of(JSON.stringify(value)) })

export const appendRun = (folder: string, run: Run): void => append(folder, 'runs.jsonl', run)
export const appendTrial = (folder: string, trial: Trial): void => append(folder, 'tuning.jsonl', trial)

function append(folder: string, file: string, value: object): void {
  mkdirSync(folder, { recursive: true })
  appendFileSync(join(folder, file), `${sealed(value)}\n`)
}

export function writeEntry(folder: string, entry: Entry, recipe: Recipe): void {
  mkdirSync(folder, { recursive: true })
  writeTextAtomically(join(folder, 'recipe.json'), `${JSON.stringify(recipe, null, 2)}\n`)
  writeTextAtomically(join(folder, 'entry.json'), `${JSON.stringify(entry, null, 2)}\n`)
}

/** Runs written so far, in the order of seeds; a last line that an interrupted write cut off is taken away. */
export const readRuns = (folder: string): readonly Run[] =>
  readLines(join(folder, 'runs.jsonl'), runSchema).toSorted((a, b) => a.seed - b.seed)
export const readTrials = (folder: string): readonly Trial[] =>
  readLines(join(folder, 'tuning.jsonl'), trialSchema).toSorted(
    (a, b) => a.trial - b.trial || a.seed - b.seed,
  )

/** Cuts off what a killed process left of its last line. */
export function repairLines(folder: string): void {
  for (const file of ['runs.jsonl', 'tuning.jsonl']) {
    const path = join(folder, file)
    if (!existsSync(path)) continue
    const bytes = readFileSync(path)
    const end = bytes.lastIndexOf(10) + 1
    if (end < bytes.length) truncateSync(path, end)
  }
}

function readLines<S extends z.ZodObject>(path: string, schema: S): z.output<S>[] {
  if (!existsSync(path)) return []
  const lines = readFileSync(path, 'utf8').split('\n')
  return lines.flatMap((text, i) => (text === '' ? [] : [readLine(text, `${path}, line ${i + 1}`, schema)]))
}

const restore = 'restore the file, or run the entry again'

function readLine<S extends z.ZodObject>(text: string, where: string, schema: S): z.output<S> {
  let value: unknown
  try {
    value = JSON.parse(text)
  } catch {
    const got = /\b(NaN|-?Infinity)\b/.exec(text)?.[0] ?? 'no JSON'
    throw failure({ where, got, expected: 'one JSON object of finite numbers', fix: restore })
  }
  const { sha256: seal, ...rest } = (value ?? {}) as Record<string, unknown>
  const found = check(schema, rest, where)
  if (seal !== sha256Of(JSON.stringify(rest))) {
    throw failure({
      where,
      got: 'a line that is not the one sealed (its sha256 differs)',
      expected: 'lines as the study wrote them',
      fix: restore,
    })
  }
  return found
}

function check<S extends z.ZodType>(schema: S, value: unknown, where: string): z.output<S> {
  const result = schema.safeParse(value)
  if (result.success) return result.data
  const [issue] = result.error.issues
  const key = issue!.path.map(String).join('.')
  const got = issue!.path.reduce<unknown>(
    (inner, name) => (inner as Record<PropertyKey, unknown> | undefined)?.[name],
    value,
  )
  throw failure({
    where: key === '' ? where : `${where}, ${key}`,
    got: got === null ? 'null, where NaN or nothing was written' : (JSON.stringify(got) ?? 'nothing'),
    expected: issue!.message,
    fix: restore,
  })
}

export function readJson<S extends z.ZodType>(path: string, schema: S): z.output<S> {
  if (!existsSync(path))
    throw failure({ where: path, got: 'no file', expected: 'a file of a board', fix: restore })
  let value: unknown
  try {
    value = JSON.parse(readFileSync(path, 'utf8'))
  } catch {
    throw failure({ where: path, got: 'no JSON', expected: 'one JSON object', fix: restore })
  }
  return check(schema, value, path)
}

/** One entry with everything that the rules demand of it. */
export function readEntry(folder: string): BoardEntry {
  const entry = readJson(join(folder, 'entry.json'), entrySchema)
  const recipe: Recipe = readJson(join(folder, 'recipe.json'), recipeSchema)
  const [runs, trials] = [readRuns(folder), readTrials(folder)]
  const refuse = (file: string, got: string, expected: string, fix = restore): never => {
    throw failure({ where: join(folder, file), got, expected, fix })
  }
  const hash = recipeHash(recipe)
  for (const [i, run] of runs.entries()) {
    if (run.recipe !== hash)
      refuse('runs.jsonl', `seed ${run.seed} of another recipe`, 'runs of recipe.json as it is')
    if (run.seed !== i)
      refuse(
        'runs.jsonl',
        `seed ${run.seed} where ${i} is due`,
        `seeds 0 to ${entry.seeds - 1}, each once, none dropped`,
      )
    checkCurve(run, `${join(folder, 'runs.jsonl')}, seed ${run.seed}`)
  }
  if (runs.length !== entry.seeds) {
    refuse(
      'runs.jsonl',
      `${runs.length} runs`,
      `${entry.seeds}, seeds 0 to ${entry.seeds - 1}, none dropped`,
      `finish it: anneal study efficiency run ${entry.task} --entry ${entry.id}`,
    )
  }
  const { tuning } = entry
  const spent = trials.reduce((sum, trial) => sum + trial.spent, 0)
  if (tuning !== 'unknown' && (tuning.trials !== trials.length || tuning.flop !== spent)) {
    refuse(
      'tuning.jsonl',
      `${trials.length} trials of ${spent} FLOP`,
      `${tuning.trials} of ${tuning.flop}, as entry.json says`,
    )
  }
  return { folder, entry, recipe, trials, runs }
}

/** A run counts upwards, and its last point is what its phases add up to. */
function checkCurve({ curve, phases: spent }: Run, where: string): void {
  const refuse = (got: string, expected: string): never => {
    throw failure({ where, got, expected, fix: restore })
  }
  const wrong = curve.findIndex(
    ([flop, step], i) => i > 0 && (flop <= curve[i - 1]![0] || step <= curve[i - 1]![1]),
  )
  if (wrong >= 0) refuse(`point ${wrong + 1} not after the one before it`, 'a curve that counts upwards')
  const charged = phases.reduce((sum, phase) => (phase === 'evaluation' ? sum : sum + spent[phase]), 0)
  const last = curve.at(-1)?.[0] ?? 0
  if (charged < last) refuse(`phases of ${charged} FLOP`, `at least ${last}, where the curve ends`)
}

/** All entries of a task, by folder name, so by date of entry. */
export function readEntries(boards: string, task: string): readonly BoardEntry[] {
  const folder = join(boards, task, 'entries')
  if (!existsSync(folder)) return []
  return readdirSync(folder)
    .toSorted()
    .map((name) => {
      const found = readEntry(join(folder, name))
      if (found.entry.task !== task || entryFolder(boards, found.entry) !== join(folder, name)) {
        throw failure({
          where: join(folder, name, 'entry.json'),
          got: `${found.entry.id} of ${found.entry.task}, entered ${found.entry.dates.entered}`,
          expected: `what its folder is called: ${task}, ${name}`,
          fix: 'rename the folder, or restore the file',
        })
      }
      return found
    })
}
