/**
 * `npm run bench step`: one training step of ours beside PyTorch's (eager and compiled) on the same machine, threads and
 * precision (f32), for the default recipe and for GPT-2 blocks of three sizes. FLOPs are those of our program, exactly counted, for
 * both sides: what one side computes beyond them does not make it look faster.
 * The peak is measured again in every round, since the clock and the neighbours differ from minute to minute.
 */
import { setTimeout as sleep } from 'node:timers/promises'
import { formatCount, formatFlopRate, formatFlops, formatPercent, formatTable } from '../src/cli/format.ts'
import { measurePeak } from '../src/compiler/runtime/peak.ts'
import type { Peak } from '../src/compiler/runtime/peak.ts'
import { resolveConfig } from '../src/models/language/config.ts'
import type { LanguageConfig, LanguageOverrides } from '../src/models/language/config.ts'
import { languageStepBench } from '../src/train/bench-step.ts'
import { machineLine, peakLine } from './facts.ts'
import { chosen, readOptions } from './options.ts'
import type { BenchOptions } from './options.ts'
import { startTorch, torchInstalled } from './peer.ts'
import type { Peer } from './peer.ts'
import { busyCores, busyNote } from './quiet.ts'
import { record } from './record.ts'
import { alternate, median, speedRatio } from './slices.ts'
import type { Timing } from './slices.ts'

const vocab = 65
/** nanoGPT's settings for character models. */
const adamw = { name: 'adamw', lr: 1e-3, beta2: 0.99, weightDecay: 0.1, clip: 1 } as const
const gpt2 = (
  layers: number,
  width: number,
  heads: number,
  context: number,
  batch: number,
): LanguageOverrides => ({
  batch,
  model: { block: 'gpt2', layers, width, heads, context },
  optim: adamw,
})
const configs: Readonly<Record<string, LanguageOverrides>> = {
  default: {},
  '4x96': gpt2(4, 96, 3, 256, 16),
  '4x128': gpt2(4, 128, 4, 64, 12),
  '6x384': gpt2(6, 384, 6, 256, 16),
}

export async function main(args: readonly string[]): Promise<void> {
  const options = readOptions(args, { rounds: 7, seconds: 1, flags: { compile: true } })
  const names = chosen(Object.keys(configs), options.only)
  if (!torchInstalled()) console.log('PyTorch is not installed here (bench/peers/install.sh): ours only\n')
  for (const name of names) await benchmark(name, options)
}

async function benchmark(name: string, options: BenchOptions): Promise<void> {
  const config = resolveConfig({ ...configs[name], threads: options.threads })
  console.error(`${name}: preparing…`)
  const ours = await languageStepBench(config, vocab)
  const peers = await startPeers(config, options)
  const busyBefore = await busyCores()
  console.error(`${name}: ${options.rounds} rounds of ${options.seconds} s each…`)
  const contestants = [{ name: 'Anneal', run: (k: number) => ours.run(k) }, ...peers]
  const peaks: Peak[] = []
  const beforeRound = async (): Promise<void> => {
    peaks.push(await measurePeak(options))
  }
  const timings = await alternate(contestants, { ...options, beforeRound }).finally(() => {
    for (const peer of peers) peer.close()
    ours.close()
  })
  // A peer that was told to stop still tidies up for a moment; that is not another program's work.
  await sleep(2500)
  const othersCores = Math.max(busyBefore, await busyCores())
  const { flopsPerStep, tokensPerStep } = ours
  console.log(await machineLine())
  console.log(describe(name, config, { flopsPerStep, tokensPerStep, peaks, othersCores }, timings))
  record({
    bench: 'step',
    config: name,
    threads: options.threads,
    peers: peers.map((peer) => `${peer.name} ${peer.version}`),
    flopsPerStep,
    tokensPerStep,
    peakFlopsF32: peaks.map(({ flopsF32 }) => flopsF32),
    othersCores,
    timings,
  })
}

async function startPeers(config: LanguageConfig, { threads, flags }: BenchOptions): Promise<Peer[]> {
  if (!torchInstalled()) return []
  const recipe = torchRecipe(config)
  const peers = [await startTorch(recipe, { threads, compile: false })]
  if (flags['compile']) peers.push(await startTorch(recipe, { threads, compile: true }))
  return peers
}

/** Our configuration in the words of peers/torch_models.py. */
function torchRecipe({ model, optim, batch }: LanguageConfig): object {
  const { layers, width, heads, context } = model
  const sizes = { layers, width, heads, context, batch, vocab }
  return model.block === 'modern'
    ? { block: 'modern', ...sizes, muonLr: optim.lr, adamLr: optim.adamLr }
    : { block: 'classic', ...sizes, lr: optim.lr, weightDecay: optim.weightDecay, clip: optim.clip }
}

interface Work {
  readonly flopsPerStep: number
  readonly tokensPerStep: number
  /** One a round. */
  readonly peaks: readonly Peak[]
  /** Cores kept busy by other programs just before or after. */
  readonly othersCores: number
}

function describe(
  name: string,
  { model, batch, threads, optim }: LanguageConfig,
  { flopsPerStep, tokensPerStep, peaks, othersCores }: Work,
  timings: readonly Timing[],
): string {
  const peak = median(peaks.map(({ flopsF32 }) => flopsF32))
  const rows = timings.map((timing) => {
    const seconds = median(timing.secondsPerStep)
    const rate = flopsPerStep / seconds
    return [
      timing.name,
      `${(seconds * 1000).toFixed(2)} ms`,
      `${formatCount(tokensPerStep / seconds)} tok/s`,
      formatFlopRate(rate),
      formatPercent(rate / peak),
    ]
  })
  const [ours, ...others] = timings
  const ratios = others.map((other) => {
    const { median, low, high } = speedRatio(ours!, other)
    const spread = `${low.toFixed(2)} to ${high.toFixed(2)} within a round`
    return `${median.toFixed(2)}x ${other.name} (medians of ${other.secondsPerStep.length}; ${spread})`
  })
  return [
    `${name}: ${model.layers} x ${model.width}, ${model.heads} heads, context ${model.context}, batch ${batch}, ` +
      `${optim.name}, f32, ${threads} threads; ${formatFlops(flopsPerStep)} a step`,
    peakLine(peaks),
    ...busyNote(othersCores),
    formatTable([['', 'step', 'speed', 'rate', 'of peak'], ...rows]),
    ...ratios,
    '',
  ].join('\n')
}
