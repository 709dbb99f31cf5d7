/**
 * `anneal fork <run> [key=value...]`: a new run that starts from a checkpoint of another one, with some settings changed.
 * The parent stays as it is; the new run names it, and the step it started from.
 */
import { badUsage } from '../errors.ts'
import { findRun, readRun } from '../runs/index.ts'
import type { Command } from './command.ts'
import { runHelp, runsOption } from './command.ts'
import { parseOverrides } from './overrides.ts'
import { findRecipe } from './recipes.ts'
import { describeEnd, runTraining } from './training.ts'

export const fork: Command = {
  arguments: [runHelp, 'settings to change, e.g. steps=3000 optim.lr=0.01'],
  options: [['--from <step>', 'step of the checkpoint to start from; default the newest'], runsOption],
  examples: ['anneal fork latest steps=3000', 'anneal fork kq3f --from 500 optim.lr=0.01'],
  async run(io, [word = '', ...settings], options) {
    const runsDir = String(options['runs'])
    const parent = findRun(runsDir, word)
    const recipe = findRecipe(readRun(runsDir, parent).meta.recipe)
    const { languageConfigSchema } = await recipe.config()
    const overrides = parseOverrides(languageConfigSchema, settings)
    const fromStep = options['from'] === undefined ? undefined : Number(options['from'])
    if (fromStep !== undefined && !Number.isSafeInteger(fromStep)) {
      throw badUsage({
        where: '--from',
        got: `'${String(options['from'])}'`,
        expected: 'the step of a checkpoint',
        fix: `see anneal show ${word} for its checkpoints`,
      })
    }
    const { forkLanguage } = await recipe.job()
    const result = await runTraining((tools) =>
      forkLanguage(parent, { runsDir, overrides, fromStep, ...tools }),
    )
    const { text, code } = describeEnd(result, runsDir)
    io.result(text, { run: result.runId, parent, overrides, result })
    return code
  },
}
