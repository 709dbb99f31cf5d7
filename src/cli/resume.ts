/**
 * `anneal resume <run> [key=value...]`: goes on from the newest good checkpoint, in a new segment of the same run.
 * The settings are those the run was started with, except for the ones given here.
 */
import { findRun, readRun } from '../runs/index.ts'
import type { Command } from './command.ts'
import { runHelp, runsOption } from './command.ts'
import { parseOverrides } from './overrides.ts'
import { findRecipe } from './recipes.ts'
import { describeEnd, runTraining } from './training.ts'

export const resume: Command = {
  arguments: [runHelp, 'settings to change, e.g. steps=3000'],
  options: [runsOption],
  examples: ['anneal resume latest', 'anneal resume kq3f steps=3000'],
  async run(io, [word = '', ...settings], options) {
    const runsDir = String(options['runs'])
    const runId = findRun(runsDir, word)
    const recipe = findRecipe(readRun(runsDir, runId).meta.recipe)
    const { languageConfigSchema } = await recipe.config()
    const overrides = parseOverrides(languageConfigSchema, settings)
    const { resumeLanguage } = await recipe.job()
    const result = await runTraining((tools) => resumeLanguage(runId, { runsDir, overrides, ...tools }))
    const { text, code } = describeEnd(result, runsDir)
    io.result(text, { run: runId, overrides, result })
    return code
  },
}
