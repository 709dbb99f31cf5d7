/**
 * The memory of a training step as its program would be: compiled to text with the planner's plan in its settings, which
 * plans every byte of the arena without running anything. Only for steps without a pipeline, and worth its seconds for
 * small models.
 */
import type { LanguageConfig } from '../models/language/config.ts'
import type { Candidate } from '../parallel/planner/index.ts'
import { compileStep } from './step.ts'

/** A run's settings with a plan in them. */
export const withPlan = (config: LanguageConfig, plan: Candidate): LanguageConfig => ({
  ...config,
  batch: plan.data * plan.microbatch * plan.microbatches,
  accumulate: plan.microbatches,
  recompute: plan.recompute,
  mesh: { ...config.mesh, data: plan.data, pipe: plan.pipe, context: plan.context, tensor: plan.tensor },
  parallel: {
    ...config.parallel,
    zero: plan.zero,
    sequence: plan.sequence,
    attention: plan.attention,
    schedule: plan.schedule as LanguageConfig['parallel']['schedule'],
    stages: plan.stagesPerRank,
  },
})

/** Bytes of the arena of one rank; null for a pipeline, whose stages have no native program of their own. */
export async function arenaBytes(
  config: LanguageConfig,
  vocab: number,
  plan: Candidate,
): Promise<number | null> {
  if (plan.pipe > 1) return null
  const { memory } = await compileStep(withPlan(config, plan), vocab, { target: 'text' })
  return memory.arenaBytes
}
