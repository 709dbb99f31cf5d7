/** A series laid out by the rules of family.ts, and the running of what it plans. */
import { existsSync, readdirSync } from 'node:fs'
import { join } from 'node:path'
import { isDeepStrictEqual } from 'node:util'
import { failure } from '../../errors.ts'
import { oneSeedFrom, seeds, series, type SeriesName } from './budgets.ts'
import { planRun, type PlannedRun } from './family.ts'
import { registrationPath, readRegistration } from './registration.ts'
import {
  isDone,
  planPath,
  readPlan,
  readStoredRun,
  runPath,
  writeJson,
  writeRun,
  type Plan,
  type StoredRun,
} from './store.ts'
import { studyText } from './text.ts'
import { trainScaling, type TrainScalingOptions } from './train.ts'

export async function layOut(name: SeriesName): Promise<Plan> {
  const { fit, target } = series[name]
  const planned: PlannedRun[] = []
  for (const budget of fit) {
    for (const seed of budget < oneSeedFrom ? seeds : seeds.slice(0, 1)) {
      planned.push(await planRun(budget, seed, studyText))
    }
  }
  return { series: name, fit: planned, target: await planRun(target, seeds[0], studyText) }
}

/** Writes the plan, unless runs or a prediction rest on the one that is there. */
export function storePlan(folder: string, plan: Plan): void {
  const path = planPath(folder)
  if (existsSync(path)) {
    const { fit, target } = readPlan(folder)
    const resting = [...fit, target].find(({ name }) => isDone(folder, name))
    if (resting || existsSync(registrationPath(folder))) {
      throw failure({
        where: path,
        got: resting ? `a plan whose run ${resting.name} is done` : 'a plan with a registered prediction',
        expected: 'no plan, or one that nothing rests on yet',
        fix: 'use another --folder for a new series',
      })
    }
  }
  writeJson(path, plan)
}

/** Where the checkpoints of a run are, outside of what is committed. */
export const workOf = (work: string, plan: Plan, run: PlannedRun): string => join(work, plan.series, run.name)

export interface SeriesOptions extends Omit<TrainScalingOptions, 'folder' | 'flops' | 'progress'> {
  /** For checkpoints. */
  readonly work: string
  readonly target?: boolean
  /** One run of the plan by name. */
  readonly only?: string
  readonly begins?: (run: PlannedRun) => void
  readonly progress?: (
    run: PlannedRun,
    at: Parameters<NonNullable<TrainScalingOptions['progress']>>[0],
  ) => void
}

/** Makes the runs that are not there yet; false: it was asked to stop, and saved. */
export async function runSeries(folder: string, options: SeriesOptions): Promise<boolean> {
  const plan = readPlan(folder)
  if (options.target) readRegistration(folder)
  const wanted = options.target ? [plan.target] : plan.fit
  const runs = wanted.filter(({ name }) => options.only === undefined || name === options.only)
  if (runs.length === 0) {
    throw failure({
      where: '--only',
      got: `'${options.only}'`,
      expected: `one of ${wanted.map(({ name }) => name).join(', ')}`,
      fix: options.target ? 'leave it out' : 'add --target for the predicted run',
    })
  }
  for (const run of runs) {
    if (isDone(folder, run.name)) continue
    const twin = twinOf(folder, run)
    if (twin) {
      writeRun(folder, run, twin)
      continue
    }
    options.begins?.(run)
    const { threads, signal, heldOutWindows } = options
    const result = await trainScaling(run.settings, {
      folder: workOf(options.work, plan, run),
      flops: run.flops,
      ...(threads === undefined ? {} : { threads }),
      ...(signal ? { signal } : {}),
      ...(heldOutWindows === undefined ? {} : { heldOutWindows }),
      progress: (at) => options.progress?.(run, at),
    })
    if (!result) return false
    writeRun(folder, run, result)
  }
  return true
}

/** The same run in a series beside this one: a run is a pure function of its settings, and is not made twice. */
function twinOf(folder: string, run: PlannedRun): StoredRun | undefined {
  const beside = join(folder, '..')
  for (const name of readdirSync(beside)) {
    const other = join(beside, name)
    if (!existsSync(runPath(other, run.name)) || !existsSync(planPath(other))) continue
    const { fit, target } = readPlan(other)
    const same = [...fit, target].find((one) => isDeepStrictEqual(one, run))
    if (same) return readStoredRun(other, same)
  }
  return undefined
}
