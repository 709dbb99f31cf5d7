/**
 * `npm run bench gpt2`: GPT-2 of 124 M parameters, batch 4, context 64 (what llm.c's CPU trainer runs). First ten AdamW
 * losses of ours and of PyTorch's from the same weights and text, which must agree; then the time of a training step
 * beside PyTorch's and llm.c's.
 */
import { failure } from '../src/errors.ts'
import { resolveConfig } from '../src/models/language/config.ts'
import type { LanguageConfig } from '../src/models/language/config.ts'
import { languageStepBench } from '../src/train/bench-step.ts'
import { compareLosses } from './agree.ts'
import { readOptions } from './options.ts'
import type { BenchOptions } from './options.ts'
import { llmcInstalled, startLlmc, startTorch, torchInstalled } from './peer.ts'
import type { Peer } from './peer.ts'
import { describeConfig, torchRecipe } from './recipes.ts'
import { sideBySide } from './side-by-side.ts'

export const vocab = 50_257
const steps = 10
const allowed = 1e-3

/** llm.c's settings: AdamW at one rate, no weight decay, no clipping. */
export const gpt2Config = (threads: number): LanguageConfig =>
  resolveConfig({
    batch: 4,
    threads,
    model: { block: 'gpt2', layers: 12, width: 768, heads: 12, context: 64 },
    optim: { name: 'adamw', lr: 1e-4, beta2: 0.999, warmup: 0, cooldown: 0 },
  })

export async function main(args: readonly string[]): Promise<void> {
  const options = readOptions(args, {
    rounds: 3,
    seconds: 2,
    flags: { agree: true, speed: true, compile: false },
  })
  const config = gpt2Config(options.threads)
  if (options.flags['agree']) await agree(config)
  if (options.flags['speed']) await speed(config, options)
}

async function agree(config: LanguageConfig): Promise<void> {
  if (!torchInstalled()) {
    console.log('PyTorch is not installed here (bench/peers/install.sh): losses not compared\n')
    return
  }
  console.log(`the first ${steps} losses on Tiny Shakespeare (bytes), GPT-2 124M, f32, lr ${config.optim.lr}`)
  const difference = await compareLosses(config, vocab, steps)
  console.log(`largest difference ${difference.toExponential(1)}, allowed ${allowed}\n`)
  if (difference <= allowed) return
  throw failure({
    where: 'GPT-2 124M',
    got: `losses ${difference.toExponential(1)} apart from PyTorch's`,
    expected: `at most ${allowed}`,
    fix: 'find the gradient or update that differs',
  })
}

async function speed(config: LanguageConfig, options: BenchOptions): Promise<void> {
  console.error('gpt2: preparing…')
  const ours = new Map([['Anneal', await languageStepBench(config, vocab)]])
  const peers: Peer[] = []
  const recipe = torchRecipe(config, vocab)
  const { threads } = options
  if (torchInstalled()) {
    peers.push(await startTorch(recipe, { threads, compile: false }))
    if (options.flags['compile']) peers.push(await startTorch(recipe, { threads, compile: true }))
  }
  if (llmcInstalled()) peers.push(await startLlmc(config, vocab))
  const notes = [
    'llm.c has biases in linear layers and norms, Anneal and PyTorch here have none',
    ...(torchInstalled() ? [] : ['PyTorch is not installed here (bench/peers/install.sh)']),
    ...(llmcInstalled() ? [] : ['llm.c is not installed here (bench/peers/llmc/install.sh)']),
  ]
  await sideBySide(
    { bench: 'gpt2', name: 'GPT-2 124M', title: describeConfig(config), ours, peers, notes },
    options,
  )
}
