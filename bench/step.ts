/**
 * `npm run bench step`: one training step of ours beside PyTorch's (eager and compiled) on the same machine, threads and
 * precision (f32), for the default recipe and for GPT-2 blocks of three sizes. `--bf16` adds ours with bf16 products.
 */
import { resolveConfig } from '../src/models/language/config.ts'
import type { LanguageConfig, LanguageOverrides } from '../src/models/language/config.ts'
import { languageStepBench } from '../src/train/bench-step.ts'
import type { StepBench } from '../src/train/bench-step.ts'
import { chosen, readOptions } from './options.ts'
import type { BenchOptions } from './options.ts'
import { startTorch, torchInstalled } from './peer.ts'
import type { Peer } from './peer.ts'
import { characters, describeConfig, gpt2Blocks, torchRecipe } from './recipes.ts'
import { sideBySide } from './side-by-side.ts'

const configs: Readonly<Record<string, LanguageOverrides>> = {
  default: {},
  '4x96': gpt2Blocks(4, 96, 3, 256, 16),
  '4x128': gpt2Blocks(4, 128, 4, 64, 12),
  '6x384': gpt2Blocks(6, 384, 6, 256, 16),
}

export async function main(args: readonly string[]): Promise<void> {
  const options = readOptions(args, { rounds: 7, seconds: 1, flags: { compile: true, bf16: false } })
  const names = chosen(Object.keys(configs), options.only)
  if (!torchInstalled()) console.log('PyTorch is not installed here (bench/peers/install.sh): ours only\n')
  for (const name of names) await benchmark(name, options)
}

async function benchmark(name: string, options: BenchOptions): Promise<void> {
  const config = resolveConfig({ ...configs[name], threads: options.threads })
  console.error(`${name}: preparing…`)
  const ours = new Map<string, StepBench>([['Anneal', await languageStepBench(config, characters)]])
  if (options.flags['bf16']) {
    ours.set('Anneal bf16', await languageStepBench({ ...config, precision: 'bf16' }, characters))
  }
  const peers = await startPeers(config, options)
  await sideBySide({ bench: 'step', name, title: describeConfig(config), ours, peers }, options)
}

async function startPeers(config: LanguageConfig, { threads, flags }: BenchOptions): Promise<Peer[]> {
  if (!torchInstalled()) return []
  const recipe = torchRecipe(config, characters)
  const peers = [await startTorch(recipe, { threads, compile: false })]
  if (flags['compile']) peers.push(await startTorch(recipe, { threads, compile: true }))
  return peers
}
