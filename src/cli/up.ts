/**
 * `anneal up`: the shortest way to a trained model. Trains the default recipe unless a finished run is there, goes
 * on with it when it was interrupted, then lets it write and names the next commands.
 */
import { isDeepStrictEqual } from 'node:util'
import { listRuns, readRun } from '../runs/index.ts'
import type { Command } from './command.ts'
import { runsOption, self } from './command.ts'
import { defaultRecipe, findRecipe } from './recipes.ts'
import { describeEnd, runTraining } from './training.ts'

/** Tokens written to show what the model has learnt. */
const sampleTokens = 300

export const up: Command = {
  arguments: [],
  options: [runsOption],
  examples: ['anneal up', 'anneal up --runs /tmp/runs'],
  async run(io, _args, options) {
    const runsDir = String(options['runs'])
    const recipe = findRecipe(defaultRecipe)
    const { resolveConfig } = await recipe.config()
    const { trainLanguage, resumeLanguage, sampleRun } = await recipe.job()
    const config = resolveConfig()
    const known = listRuns(runsDir).runs.filter((run) => run.recipe === defaultRecipe)
    let runId = known.find((run) => run.status === 'finished')?.id
    const trained = runId !== undefined
    if (runId === undefined) {
      const stopped = known.find(
        (run) => run.status === 'interrupted' && canContinue(runsDir, run.id, config),
      )
      if (stopped !== undefined)
        io.note(`going on with ${stopped.id}, which was interrupted at step ${stopped.step}`)
      const result = await runTraining((tools) =>
        stopped === undefined
          ? trainLanguage(config, { runsDir, ...tools })
          : resumeLanguage(stopped.id, { runsDir, ...tools }),
      )
      const { text, code } = describeEnd(result, runsDir)
      if (code !== 0) {
        io.result(text, { run: result.runId, result })
        return code
      }
      io.note(text)
      runId = result.runId
    } else {
      io.note(
        `a trained model is there already: ${runId} (train another with ${self} train ${defaultRecipe})`,
      )
    }
    const prompt = config.sample.prompt
    if (!io.json) io.out(`\n${prompt}`)
    const { text } = await sampleRun(runId, {
      runsDir,
      prompt,
      tokens: sampleTokens,
      temperature: config.sample.temperature,
      topK: 0,
      seed: 1,
      onToken: (piece: string) => {
        if (!io.json) io.out(piece)
      },
    })
    const next = [`${self} sample ${runId} --prompt "ROMEO:"`, `${self} show ${runId}`]
    io.result(`\n\nnext\n${next.map((line) => `  ${line}`).join('\n')}`, {
      run: runId,
      trained,
      prompt,
      sample: text,
      next,
    })
    return 0
  },
}

/** Whether a run is the default one, with a checkpoint to start from. */
function canContinue(runsDir: string, id: string, config: object): boolean {
  const run = readRun(runsDir, id)
  return run.checkpoints.some(({ present }) => present) && isDeepStrictEqual(run.config, config)
}
