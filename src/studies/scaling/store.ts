/**
 * A series of the scaling study as files: `plan.json`, for each finished run `<name>.json` with its settings and figures and
 * `<name>.csv` with its curve, `prediction.json` and `check.json`. They are meant to be committed, and read strictly:
 * what was changed by hand is refused by file and line.
 */
import { existsSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { isDeepStrictEqual } from 'node:util'
import { jsonProblem, makeFolder, missing, writeTextAtomically } from '../../data/files.ts'
import { failure } from '../../errors.ts'
import { parseTable } from '../csv.ts'
import type { PlannedRun, RunSettings } from './family.ts'
import type { LawPoint } from './law.ts'
import type { RunResult } from './train.ts'

export interface Plan {
  readonly series: string
  readonly fit: readonly PlannedRun[]
  /** The larger run, whose loss is predicted. */
  readonly target: PlannedRun
}

export type StoredRun = { readonly name: string; readonly settings: RunSettings } & RunResult

export const planPath = (folder: string): string => join(folder, 'plan.json')
export const runPath = (folder: string, name: string): string => join(folder, 'runs', `${name}.json`)
const curvePath = (folder: string, name: string): string => join(folder, 'runs', `${name}.csv`)

export function writeJson(path: string, value: object): void {
  makeFolder(join(path, '..'))
  writeTextAtomically(path, `${JSON.stringify(value, null, 2)}\n`)
}

export function readJson(path: string): Record<string, unknown> {
  if (!existsSync(path)) throw missing(path)
  const text = readFileSync(path, 'utf8')
  try {
    return JSON.parse(text) as Record<string, unknown>
  } catch (error) {
    throw failure({
      where: path,
      got: jsonProblem(error),
      expected: 'JSON as it was written',
      fix: 'restore the file from the repository',
    })
  }
}

export function readPlan(folder: string): Plan {
  const path = planPath(folder)
  if (existsSync(path)) return readJson(path) as unknown as Plan
  throw failure({
    where: path,
    got: 'no plan',
    expected: 'the runs of this series',
    fix: 'make one with anneal study scaling plan',
  })
}

export const isDone = (folder: string, name: string): boolean => existsSync(runPath(folder, name))

export function writeRun(folder: string, { name, settings }: PlannedRun, result: RunResult): void {
  const { curve, flops, tokens, loss, floor, heldOutTokens, seconds } = result
  makeFolder(join(folder, 'runs'))
  const rows = curve.map(({ step, loss }) => `${step},${loss}`)
  writeTextAtomically(curvePath(folder, name), `${['step,loss', ...rows].join('\n')}\n`)
  writeJson(runPath(folder, name), { name, settings, flops, tokens, loss, floor, heldOutTokens, seconds })
}

/** A finished run, checked against the plan and itself. */
export function readStoredRun(folder: string, { name, settings, flops }: PlannedRun): StoredRun {
  const path = runPath(folder, name)
  if (!isDone(folder, name)) {
    throw failure({
      where: path,
      got: 'no such run',
      expected: 'a finished run of the plan',
      fix: 'finish it with anneal study scaling run',
    })
  }
  const stored = readJson(path) as unknown as Omit<StoredRun, 'curve'>
  const curveFile = curvePath(folder, name)
  if (!existsSync(curveFile)) throw missing(curveFile)
  const curve = parseTable(readFileSync(curveFile, 'utf8'), curveFile, { step: 'amount', loss: 'amount' })
  const refuse = (field: string, got: unknown, expected: string): never => {
    throw failure({
      where: `${path}, line ${lineOf(path, field)}, ${field}`,
      got: String(got),
      expected,
      fix: 'restore the file from the repository, or remove it and run again',
    })
  }
  if (!isDeepStrictEqual(stored.settings, settings)) refuse('settings', 'other settings', 'those of the plan')
  if (stored.flops !== flops) refuse('flops', stored.flops, `the plan's ${flops}`)
  for (const field of ['loss', 'floor'] as const) {
    if (!(typeof stored[field] === 'number' && stored[field] > 0)) {
      refuse(field, stored[field], 'nats a token, a positive number')
    }
  }
  const last = curve.at(-1)
  if (last?.step !== settings.steps) {
    throw failure({
      where: `${curveFile}, line ${last?.line ?? 1}`,
      got: `a curve that ends at step ${last?.step ?? 0}`,
      expected: `step ${settings.steps}`,
      fix: 'restore the file from the repository',
    })
  }
  return { ...stored, curve: curve.map(({ step, loss }) => ({ step, loss })) }
}

/** All runs that the law is fitted to. */
export const readFitRuns = (folder: string, plan: Plan): readonly StoredRun[] =>
  plan.fit.map((run) => readStoredRun(folder, run))

export const pointsOf = (runs: readonly StoredRun[]): readonly LawPoint[] =>
  runs.map(({ flops, loss, settings: { budget } }) => ({ flops, loss, budget }))

/** Line of a field at the top level of a JSON file of ours; 1 where it is gone. */
export function lineOf(path: string, field: string): number {
  const lines = readFileSync(path, 'utf8').split('\n')
  return (
    1 +
    Math.max(
      0,
      lines.findIndex((line) => line.startsWith(`  ${JSON.stringify(field)}:`)),
    )
  )
}
