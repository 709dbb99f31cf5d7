/** For tests: a series whose small runs lie close to a known law, as files in a folder of its own. */
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { TestContext } from 'node:test'
import type { PlannedRun } from './family.ts'
import { registrationPath } from './registration.ts'
import { planPath, writeJson, writeRun, type Plan } from './store.ts'
import { studyText } from './text.ts'

const budgets = [1e11, 3e11, 1e12, 3e12, 1e13]
const truth = { a: 800, b: -0.33, floor: 0.99 }
const lossAt = (flops: number): number => truth.a * flops ** truth.b + truth.floor

const planned = (budget: number): PlannedRun => ({
  name: budget.toExponential(),
  settings: {
    budget,
    seed: 1,
    width: 8,
    layers: 1,
    heads: 1,
    context: 8,
    batch: 8,
    steps: 2,
    lr: 0.02,
    adamLr: 0.02,
    text: studyText,
  },
  parameters: 1,
  tokens: 128,
  flops: budget,
})

export const finish = (folder: string, run: PlannedRun, loss = lossAt(run.flops)): void =>
  writeRun(folder, run, {
    flops: run.flops,
    tokens: run.tokens,
    curve: [
      { step: 1, loss: 3 },
      { step: 2, loss },
    ],
    loss,
    floor: truth.floor,
    heldOutTokens: 64,
    seconds: 1,
  })

/** The larger run is not done yet. */
export function seriesFor(t: TestContext): { folder: string; work: string; plan: Plan; path: string } {
  const root = mkdtempSync(join(tmpdir(), 'anneal-scaling-'))
  t.after(() => rmSync(root, { recursive: true }))
  const folder = join(root, 'test')
  const plan: Plan = { series: 'test', fit: budgets.map(planned), target: planned(1e14) }
  writeJson(planPath(folder), plan)
  plan.fit.forEach((run, i) => finish(folder, run, lossAt(run.flops) * (1 + 1e-3 * (-1) ** i)))
  return { folder, work: join(folder, 'work'), plan, path: registrationPath(folder) }
}
