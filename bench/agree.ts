/**
 * Whether a training run of ours and one of PyTorch's are the same run: both start from the same weights, read the same
 * windows of the bundled text (its bytes as tokens), take AdamW steps at one learning rate, and report every loss.
 */
import { execFile } from 'node:child_process'
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'
import { formatTable } from '../src/cli/format.ts'
import type { Program } from '../src/compiler/index.ts'
import { writeSafetensors } from '../src/data/safetensors.ts'
import type { TensorData } from '../src/data/safetensors.ts'
import { dataPath } from '../src/models/language/config.ts'
import type { LanguageConfig } from '../src/models/language/config.ts'
import type { ModelConfig } from '../src/models/language/model.ts'
import { initialise } from '../src/train/programs.ts'
import { specsOf } from '../src/train/state.ts'
import { compileStep } from '../src/train/step.ts'
import { python } from './peer.ts'
import { torchRecipe } from './recipes.ts'

const script = fileURLToPath(new URL('peers/torch_agree.py', import.meta.url))

/** Trains both sides, prints the losses side by side and returns the largest difference. */
export async function compareLosses(config: LanguageConfig, vocab: number, steps: number): Promise<number> {
  const folder = mkdtempSync(join(tmpdir(), 'anneal-agree-'))
  const [weights, tokens] = [join(folder, 'weights.safetensors'), join(folder, 'tokens')]
  try {
    const windows = textWindows(config, steps)
    writeFileSync(tokens, windows)
    const ours = await train(config, vocab, windows, weights)
    const recipe = JSON.stringify(torchRecipe(config, vocab))
    const args = [script, recipe, weights, tokens, '--threads', String(config.threads)]
    const { stdout } = await promisify(execFile)(python, args)
    const { version, losses } = JSON.parse(stdout) as { version: string; losses: readonly number[] }
    const difference = ours.map((loss, i) => Math.abs(loss - losses[i]!))
    const rows = ours.map((loss, i) => [
      String(i + 1),
      loss.toFixed(6),
      losses[i]!.toFixed(6),
      difference[i]!.toExponential(1),
    ])
    console.log(formatTable([['step', 'Anneal', `PyTorch ${version}`, 'difference'], ...rows]))
    return Math.max(...difference)
  } finally {
    rmSync(folder, { recursive: true })
  }
}

/** The first bytes of the text as windows that follow one another: [steps, batch, context + 1]. */
function textWindows({ data, batch, model }: LanguageConfig, steps: number): Int32Array {
  const text = readFileSync(dataPath({ data }))
  const length = model.context + 1
  return Int32Array.from({ length: steps * batch * length }, (_, i) => {
    const window = Math.floor(i / length)
    return text[window * model.context + (i % length)]!
  })
}

/** Writes the initial weights, then trains; one loss a step. */
async function train(
  config: LanguageConfig,
  vocab: number,
  windows: Int32Array,
  weightsPath: string,
): Promise<number[]> {
  const program = await compileStep(config, vocab)
  try {
    initialise(program, config, vocab)
    writeSafetensors(weightsPath, weightsOf(program, { ...config.model, vocab }))
    const size = config.batch * (config.model.context + 1)
    const losses: number[] = []
    for (let at = 0; at < windows.length; at += size) {
      await program.run({ tokens: windows.subarray(at, at + size), seed: [config.seed] })
      losses.push(program.view('loss')[0]!)
    }
    return losses
  } finally {
    program.close()
  }
}

const weightsOf = (program: Program, model: ModelConfig): readonly TensorData[] =>
  specsOf(model).map(([name, { shape }]) => ({
    name,
    dtype: 'F32',
    shape: [...shape],
    data: program.view(`state.params.${name}`),
  }))
