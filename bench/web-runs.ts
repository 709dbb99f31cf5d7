/**
 * The run folders that the page is measured on, written by the run store's own writer: a thousand runs with ten metrics
 * each, and one run of a million points. What takes long is made once for all measurements.
 */
import { createRun } from '../src/runs/index.ts'
import type { RunWriter } from '../src/runs/index.ts'

const metricNames = ['loss', 'validationLoss', 'gradNorm', 'lr', 'accuracy', 'a', 'b', 'c', 'd', 'e']
const pointsOfSmall = 20

/** A run of the default recipe's name, with nothing measured yet. */
export const openRun = (root: string, settings: object = {}): RunWriter =>
  createRun(root, { recipe: 'language', config: { steps: 1_000_000, ...settings }, plan: {}, machine: {} })

/** One step with the totals that belong to it, as a trainer writes it. */
export function writePoint(writer: RunWriter, step: number, metrics: Readonly<Record<string, number>>): void {
  writer.point({ step, tokens: step * 4096, seconds: step * 0.051_237, flops: step * 6e9, metrics })
}

/** Runs with ten metrics each. */
export function writeManyRuns(root: string, count: number): void {
  for (let i = 0; i < count; i++) {
    const writer = openRun(root, { optim: { lr: 0.001 * (i + 1) } })
    for (let step = 1; step <= pointsOfSmall; step++) {
      const values = metricNames.map((name, place) => [name, lossAt(step + place, i)] as const)
      writePoint(writer, step, Object.fromEntries(values))
    }
    writer.close('finished')
  }
}

/** One run whose loss was measured at each of `points` steps. */
export function writeLongRun(root: string, points: number): string {
  const writer = openRun(root, { steps: points })
  for (let step = 1; step <= points; step++) writePoint(writer, step, { loss: lossAt(step, 1) })
  writer.close('finished')
  return writer.id
}

/** Falls as losses do, with noise; a 32-bit float with all its digits, as a trainer reads it. */
export const lossAt = (step: number, seed: number): number =>
  Math.fround(1.5 + 2.7 / (1 + step / 9000) + 0.1 * Math.sin(step * 12.9898 + seed * 78.233))
