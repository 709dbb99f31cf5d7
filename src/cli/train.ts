/**
 * `anneal train <recipe> [key=value...]`: prints the plan (parameters, tokens, FLOPs, memory, time), then trains.
 * `--dry-run` stops after the plan, `--profile` after a few steps, whose kernels it lists by what they cost.
 */
import type { Run } from '../runs/index.ts'
import type { Replanned } from '../train/replan.ts'
import type { Command } from './command.ts'
import { runsOption } from './command.ts'
import { parseOverrides } from './overrides.ts'
import { defaultRecipe, findRecipe } from './recipes.ts'
import { describePlan } from './status.ts'
import { describeEnd, runTraining } from './training.ts'

export const train: Command = {
  arguments: [`what to train: ${defaultRecipe}`, 'key=value, e.g. steps=200 model.size=micro optim.lr=1e-3'],
  options: [
    ['--dry-run', 'print the plan and stop'],
    ['--processes', 'one process for each rank of the mesh, with mpirun; restarted when one is lost'],
    ['--profile', 'train a few steps, list every kernel with its cost, save and stop'],
    runsOption,
  ],
  examples: [
    'anneal train language',
    'anneal train language steps=200 model.size=micro',
    'anneal train language data=./my-notes tokenizer=bpe --dry-run',
  ],
  async details() {
    const { languageConfigSchema, resolveConfig } = await import('../models/language/config.ts')
    const { describeSettings } = await import('./settings.ts')
    return describeSettings(languageConfigSchema, resolveConfig())
  },
  async run(io, [name = '', ...settings], options) {
    const recipe = findRecipe(name)
    const { languageConfigSchema, resolveConfig } = await recipe.config()
    const config = resolveConfig(parseOverrides(languageConfigSchema, settings))
    const { planLanguage, trainLanguage } = await recipe.job()
    if (options['dryRun']) {
      const plan = await planLanguage(config)
      io.result(describePlan(plan).join('\n'), { recipe: name, config, plan })
      return 0
    }
    const runsDir = String(options['runs'])
    if (options['processes']) {
      const { ranksOfRun } = await import('../train/parallel.ts')
      const { superviseRanks } = await import('./processes.ts')
      const { restarts, shrink } = config.parallel
      return superviseRanks(io, {
        ranks: ranksOfRun(config),
        restarts,
        runsDir,
        words: [name, ...settings],
        ...(shrink ? { onFewer } : {}),
      })
    }
    const { defaultProfile } = await import('../train/profile.ts')
    const profiling = options['profile'] ? { profile: defaultProfile } : {}
    const { profile, ...result } = await runTraining((tools) =>
      trainLanguage(config, { runsDir, ...profiling, ...tools }),
    )
    const { text, code } = describeEnd(result, runsDir)
    if (profile === undefined) {
      io.result(text, { recipe: name, config, result })
      return code
    }
    const { describeProfile, profileRows } = await import('./profile.ts')
    io.result(`${describeProfile(profile)}\n\n${text}`, {
      recipe: name,
      config,
      result,
      profile: profileRows(profile),
    })
    return 0
  },
}

/** The plan of a run on fewer ranks. */
async function onFewer({ config, dir, meta }: Run, left: number): Promise<Replanned | undefined> {
  const { parseStoredConfig } = await import('../models/language/config.ts')
  const { replan } = await import('../train/replan.ts')
  const { vocabSize } = meta.plan['data'] as { readonly vocabSize: number }
  return replan(parseStoredConfig(config, dir), vocabSize, left)
}
