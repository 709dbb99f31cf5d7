/**
 * The small sweep behind the rates of the family: runs of two budgets, so two widths, with each rate halved and doubled.
 * A rule that holds for both is what lets one pair of rates serve every width. All trials are published with their cost.
 */
import { existsSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { makeFolder, writeTextAtomically } from '../../data/files.ts'
import { parseTable } from '../csv.ts'
import { planRun, rates } from './family.ts'
import { studyText } from './text.ts'
import { trainScaling, type TrainScalingOptions } from './train.ts'

const columns = {
  budget: 'amount',
  width: 'amount',
  lr: 'amount',
  adamLr: 'amount',
  loss: 'amount',
  floor: 'amount',
  flops: 'amount',
} as const

export interface Trial {
  readonly budget: number
  readonly width: number
  readonly lr: number
  readonly adamLr: number
  readonly loss: number
  readonly floor: number
  readonly flops: number
}

const budgets = [1e11, 3e11]
const grid = [
  rates,
  { ...rates, lr: rates.lr / 2 },
  { ...rates, lr: rates.lr * 2 },
  { ...rates, adamLr: rates.adamLr / 2 },
  { ...rates, adamLr: rates.adamLr * 2 },
]

export const sweepPath = (folder: string): string => join(folder, 'sweep.csv')

export function readSweep(folder: string): readonly Trial[] {
  const path = sweepPath(folder)
  return existsSync(path) ? parseTable(readFileSync(path, 'utf8'), path, columns) : []
}

/** Makes the trials that are not in the file yet; false: it was asked to stop. */
export async function runSweep(
  folder: string,
  options: Omit<TrainScalingOptions, 'folder' | 'progress'> & {
    readonly work: string
    readonly tried?: (trial: Trial) => void
  },
): Promise<boolean> {
  const { work, tried, ...training } = options
  const trials = [...readSweep(folder)]
  for (const budget of budgets) {
    for (const { lr, adamLr } of grid) {
      if (trials.some((done) => done.budget === budget && done.lr === lr && done.adamLr === adamLr)) continue
      const { name, settings } = await planRun(budget, 1, studyText, { lr, adamLr })
      const place = join(work, 'sweep', `${name}-${lr}-${adamLr}`)
      const result = await trainScaling(settings, { ...training, folder: place })
      if (!result) return false
      const { loss, floor, flops } = result
      const trial: Trial = { budget, width: settings.width, lr, adamLr, loss, floor, flops }
      trials.push(trial)
      tried?.(trial)
      makeFolder(folder)
      const names = Object.keys(columns) as (keyof Trial)[]
      const rows = trials.map((one) => names.map((column) => String(one[column])).join(','))
      writeTextAtomically(sweepPath(folder), `${[names.join(','), ...rows].join('\n')}\n`)
    }
  }
  return true
}
