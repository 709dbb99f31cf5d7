/** For tests: runs of a made-up recipe whose curve falls smoothly to where a test wants it. */
import { recipeHash, type BoardEntry, type CurvePoint, type Run } from './board-files.ts'
import { noPhases, type Baseline, type Recipe, type Task } from './task.ts'

export const madeRecipe: Recipe = { steps: 10, optimizer: { rate: 0.1 } }

/** Points at 10 steps each, FLOP `cost` a step; the metric falls in a line from 3 to `last`. */
export function madeRun(
  seed: number,
  { cost = 100, last = 1.9, points = 10, ended = 'declared' }: MadeRun = {},
): Run {
  const curve = Array.from({ length: points }, (_, i): CurvePoint => {
    const step = 10 * (i + 1)
    return [step * cost, step, step * 512, 3 + ((last - 3) * (i + 1)) / points]
  })
  return {
    seed,
    recipe: recipeHash(madeRecipe),
    ended,
    curve,
    phases: { ...noPhases, forward: 10 * points * cost - 1, optimizer: 1, evaluation: 77 },
    wallMs: 5,
    machine: 'made up',
    code: 'made up',
  }
}

export interface MadeRun {
  readonly cost?: number
  readonly last?: number
  readonly points?: number
  readonly ended?: Run['ended']
}

export const madeEntry = (id: string, adopted: string, runs: readonly Run[]): BoardEntry => ({
  folder: id,
  entry: {
    id,
    task: 'made',
    title: id,
    track: 'open',
    dates: { idea: adopted, adopted, entered: '2026-11-25' },
    sources: 'none',
    seeds: runs.length,
    tuning: 'unknown',
  },
  recipe: madeRecipe,
  trials: [],
  runs,
})

export const madeTask = (baselines: readonly Baseline[], train: Task['train']): Task => ({
  id: 'made',
  title: 'Made up',
  track: 'open',
  data: null,
  metric: 'nats',
  sense: 'lower',
  ladder: [2.5, 2],
  headline: 2,
  quick: 2.5,
  smoke: { target: 2.5, entries: baselines.map(({ id }) => id) },
  evalEvery: 10,
  budgetFlop: 1e12,
  samples: 'characters',
  baselines,
  train,
})
