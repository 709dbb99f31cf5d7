/**
 * `anneal sample <run>`: writes text with the newest checkpoint of a run, token by token as it comes. What is not
 * given on the command line comes from the run's own settings.
 */
import { badUsage } from '../errors.ts'
import { findRun, readRun } from '../runs/index.ts'
import type { Command, Options } from './command.ts'
import { runHelp, runsOption } from './command.ts'
import { formatCount, formatDuration } from './format.ts'
import { findRecipe } from './recipes.ts'

export const sample: Command = {
  arguments: [runHelp],
  options: [
    ['--prompt <text>', 'text to go on from'],
    ['--tokens <n>', 'how many tokens to write', '500'],
    ['--temperature <t>', '0 takes the likeliest token every time', '0.8'],
    ['--top-k <k>', 'choose among the k likeliest tokens; 0 = all', '0'],
    ['--seed <n>', 'same seed, same text', '1'],
    runsOption,
  ],
  examples: ['anneal sample latest --prompt "ROMEO:"', 'anneal sample kq3f --tokens 200 --temperature 0'],
  async run(io, [word = ''], options) {
    const settings = {
      tokens: numberOption(options, 'tokens', { min: 1, whole: true }),
      temperature: numberOption(options, 'temperature', { min: 0 }),
      topK: numberOption(options, 'topK', { min: 0, whole: true }),
      seed: numberOption(options, 'seed', { min: 0, whole: true }),
    }
    const runsDir = String(options['runs'])
    const runId = findRun(runsDir, word)
    const { meta } = readRun(runsDir, runId)
    const { sampleRun } = await findRecipe(meta.recipe).job()
    const ownPrompt = (meta.config['sample'] as { prompt?: unknown } | undefined)?.prompt
    const prompt = options['prompt'] ?? (typeof ownPrompt === 'string' ? ownPrompt : '\n')
    if (prompt === '' || prompt === true) {
      throw badUsage({
        where: '--prompt',
        got: 'an empty text',
        expected: 'at least one character',
        fix: 'try --prompt "The"',
      })
    }
    if (!io.json) io.out(prompt)
    const onToken = (text: string): void => {
      if (!io.json) io.out(text)
    }
    const { text, tokens, seconds } = await sampleRun(runId, {
      runsDir,
      prompt,
      ...settings,
      onToken,
      note: (text) => io.note(`note: ${text}`),
    })
    if (io.json) io.result('', { run: runId, prompt, ...settings, text, tokens, seconds })
    else io.out('\n')
    io.note(
      `${tokens} tokens in ${formatDuration(seconds)}, ${formatCount(Math.round(tokens / seconds))} tokens/s`,
    )
    return 0
  },
}

/** A number given as an option, named as it was typed (`topK` is `--top-k`) when it is out of range. */
function numberOption(
  options: Options,
  name: string,
  { min, whole = false }: { min: number; whole?: boolean },
): number {
  const text = String(options[name])
  const value = text.trim() === '' ? Number.NaN : Number(text)
  if (Number.isFinite(value) && value >= min && (!whole || Number.isSafeInteger(value))) return value
  const flag = `--${name.replaceAll(/[A-Z]/g, (letter) => `-${letter.toLowerCase()}`)}`
  throw badUsage({
    where: flag,
    got: `'${text}'`,
    expected: `a ${whole ? 'whole ' : ''}number of at least ${min}`,
    fix: `give one, for example ${flag} ${min + 1}`,
  })
}
