/**
 * The mesh of a run that goes on with fewer ranks. Where it can, only the data axis shrinks, to a width that divides the old
 * one: every batch is then cut into whole parts of the old cut, and with `leaves` the steps keep their bits. Where the
 * other axes alone need more ranks than are left, the planner is asked for the fastest plan that fits.
 */
import { UserError } from '../errors.ts'
import { resolveConfig, type LanguageConfig } from '../models/language/config.ts'
import { measureThisMachine, memoryLinks } from '../parallel/hardware/index.ts'
import { plannedLanguage, searchPlans, type Candidate } from '../parallel/planner/index.ts'
import { machine } from '../compiler/runtime/machine.ts'
import { settingsOf, type Settings } from '../runs/settings.ts'
import { ranksOfRun } from './parallel.ts'

export interface Replanned {
  readonly ranks: number
  /** What changes, as settings for a resume. */
  readonly settings: readonly string[]
  /** Why this and no other. */
  readonly why: string
}

/** The settings of `config` on at most `left` ranks; undefined where there are none. */
export async function replan(
  config: LanguageConfig,
  vocab: number,
  left: number,
): Promise<Replanned | undefined> {
  return narrower(config, left) ?? (await planned(config, vocab, left))
}

function narrower(config: LanguageConfig, left: number): Replanned | undefined {
  const { mesh } = config
  for (let data = mesh.data - 1; data >= 1; data--) {
    if (mesh.data % data !== 0) continue
    const changed = { ...config, mesh: { ...mesh, data } }
    const ranks = ranksOfRun(changed)
    if (ranks > left || !isPossible(changed)) continue
    const why = `the widest data axis that divides the old one, ${mesh.data}; the batch and its sums stay`
    return { ranks, settings: [`mesh.data=${data}`], why }
  }
  return undefined
}

async function planned(config: LanguageConfig, vocab: number, left: number): Promise<Replanned | undefined> {
  const model = plannedLanguage(config, vocab)
  const { cores } = await machine()
  for (let ranks = left; ranks >= 1; ranks--) {
    const threadsPerRank = Math.max(1, Math.floor(cores / ranks))
    const hardware = memoryLinks(await measureThisMachine({ ranks, threadsPerRank, links: [] }))
    const { plans, feasible } = searchPlans(model, {
      ranks,
      globalBatch: config.batch,
      hardware,
      leastPiece: 2,
      ...(config.memory > 0 ? { memoryBytes: config.memory } : {}),
      simulated: 8,
    })
    const plan = plans.map((one) => one.plan).find((plan) => isPossible(withPlan(config, plan)))
    if (!plan) continue
    const why = `the fastest of ${feasible} plans that fit ${ranks} of ${left} ranks, by the planner`
    return { ranks, settings: differing(config, withPlan(config, plan)), why }
  }
  return undefined
}

function withPlan(config: LanguageConfig, plan: Candidate): LanguageConfig {
  const { data, pipe, context, tensor, zero, sequence, attention, schedule, stagesPerRank } = plan
  return {
    ...config,
    accumulate: plan.microbatches,
    // What was asked for by memory is solved anew.
    ...(config.recompute === 'auto' ? {} : { recompute: plan.recompute ? 'full' : 'none' }),
    mesh: { data, pipe, context, tensor, expert: 1 },
    parallel: {
      ...config.parallel,
      zero,
      sequence,
      ...(context > 1 ? { attention } : {}),
      ...(pipe > 1
        ? { schedule: schedule as LanguageConfig['parallel']['schedule'], stages: stagesPerRank }
        : {}),
    },
  }
}

/** The settings that `next` changes. */
function differing(now: LanguageConfig, next: LanguageConfig): string[] {
  const flat = ({ accumulate, recompute, mesh, parallel }: LanguageConfig): Settings =>
    settingsOf({ accumulate, recompute, mesh, parallel })
  const before = new Map(flat(now))
  return flat(next).flatMap(([key, value]) => (before.get(key) === value ? [] : [`${key}=${String(value)}`]))
}

function isPossible(config: LanguageConfig): boolean {
  try {
    resolveConfig(config)
    return true
  } catch (error) {
    if (error instanceof UserError) return false
    throw error
  }
}
