/**
 * Plans of a run on a measured cluster: each is compiled to text as its ranks would get it over MPI, and its step simulated
 * message by message. Nothing runs. A second or so for each plan of a small model.
 */
import { UserError } from '../errors.ts'
import type { LanguageConfig } from '../models/language/config.ts'
import type { Candidate } from '../parallel/planner/index.ts'
import type { ClusterFile } from '../parallel/planner/cluster-file.ts'
import { stepOnCluster, type ClusterStep } from '../parallel/planner/on-cluster.ts'
import { settingsOf } from '../parallel/planner/candidate.ts'
import { withPlan } from './plan-memory.ts'
import { compileStep } from './step.ts'

export interface PlanStep {
  readonly plan: Candidate
  readonly step: ClusterStep
  /** Of one rank, exactly. */
  readonly arenaBytes: number
}

export interface PlanSteps {
  /** The quickest first. */
  readonly steps: readonly PlanStep[]
  /** What the compiler refused or does not fit, and why. */
  readonly refused: readonly { readonly plan: Candidate; readonly reason: string }[]
}

export async function planSteps(
  config: LanguageConfig,
  vocab: number,
  plans: readonly Candidate[],
  cluster: ClusterFile,
  memoryBytes = cluster.memoryBytes,
): Promise<PlanSteps> {
  const steps: PlanStep[] = []
  const refused: PlanSteps['refused'][number][] = []
  for (const plan of plans) {
    try {
      const { outline, memory } = await compileStep(
        withPlan(config, plan),
        vocab,
        { threads: 1, target: 'text' },
        'mpi',
      )
      const { arenaBytes } = memory
      if (arenaBytes > memoryBytes) {
        const got = `${arenaBytes.toLocaleString('en')} bytes of ${memoryBytes.toLocaleString('en')}`
        refused.push({ plan, reason: `the memory that its program was planned to need: ${got}` })
        continue
      }
      steps.push({ plan, step: stepOnCluster(settingsOf(plan), outline, cluster), arenaBytes })
    } catch (error) {
      if (!(error instanceof UserError)) throw error
      refused.push({ plan, reason: error.message })
    }
  }
  return { steps: steps.toSorted((a, b) => a.step.seconds - b.step.seconds), refused }
}
