/**
 * `npm run bench step`: one training step of ours beside PyTorch's on the same machine, threads and precision (f32), for
 * the default recipe and for nanoGPT's Shakespeare recipe for CPUs. FLOPs are those of our program, exactly counted, for
 * both sides: what one side computes beyond them does not make it look faster.
 * The peak is measured before and after, since the clock and the neighbours differ from minute to minute. Other programs
 * running meanwhile do not slow both sides alike (a team that waits for a descheduled thread loses far more than its
 * share), so how busy they keep the machine is measured first and said beside the result.
 */
import { execFileSync } from 'node:child_process'
import { appendFileSync } from 'node:fs'
import { availableParallelism, cpus } from 'node:os'
import { setTimeout as sleep } from 'node:timers/promises'
import { parseArgs } from 'node:util'
import { formatCount, formatFlopRate, formatFlops, formatPercent, formatTable } from '../src/cli/format.ts'
import { measurePeak } from '../src/compiler/runtime/peak.ts'
import { badUsage } from '../src/errors.ts'
import { resolveConfig } from '../src/models/language/config.ts'
import type { LanguageConfig, LanguageOverrides } from '../src/models/language/config.ts'
import { languageStepBench } from '../src/train/bench-step.ts'
import { peerInstalled, startTorch } from './peer.ts'
import type { Peer } from './peer.ts'
import { alternate, median, speedRatio } from './slices.ts'
import type { Timing } from './slices.ts'

const vocab = 65
/** Cores that others may keep busy in a comparison that counts. */
const tolerated = 0.2
const configs: Readonly<Record<string, LanguageOverrides>> = {
  default: {},
  classic: {
    batch: 12,
    model: { block: 'gpt2', layers: 4, width: 128, heads: 4, context: 64 },
    optim: { name: 'adamw', lr: 1e-3, beta2: 0.99, weightDecay: 0.1, clip: 1 },
  },
}

interface Options {
  readonly rounds: number
  readonly seconds: number
  readonly threads: number
  readonly compile: boolean
}

export async function main(args: readonly string[]): Promise<void> {
  const { values } = parseArgs({
    args: [...args],
    options: {
      rounds: { type: 'string', default: '7' },
      seconds: { type: 'string', default: '1' },
      threads: { type: 'string', default: String(availableParallelism()) },
      only: { type: 'string' },
      compile: { type: 'boolean', default: false },
    },
  })
  const options = {
    rounds: positive('--rounds', values.rounds),
    seconds: positive('--seconds', values.seconds),
    threads: positive('--threads', values.threads),
    compile: values.compile,
  }
  const names = Object.keys(configs).filter((name) => !values.only || name === values.only)
  if (names.length === 0) {
    throw badUsage({
      where: '--only',
      got: String(values.only),
      expected: Object.keys(configs).join(' or '),
      fix: 'leave it out for both',
    })
  }
  if (!peerInstalled()) console.log('PyTorch is not installed here (bench/peers/install.sh): ours only\n')
  for (const name of names) await benchmark(name, options)
}

function positive(where: string, given: string): number {
  const value = Number(given)
  if (Number.isFinite(value) && value > 0) return value
  throw badUsage({ where, got: given, expected: 'a number above 0', fix: 'leave it out for the default' })
}

async function benchmark(name: string, options: Options): Promise<void> {
  const config = resolveConfig({ ...configs[name], threads: options.threads })
  console.error(`${name}: preparing…`)
  const before = await measurePeak(options)
  const ours = await languageStepBench(config, vocab)
  const peers = await startPeers(config, options)
  const busyBefore = await busyCores()
  console.error(`${name}: ${options.rounds} rounds of ${options.seconds} s each…`)
  const contestants = [{ name: 'Anneal', run: (k: number) => ours.run(k) }, ...peers]
  const timings = await alternate(contestants, options).finally(() => {
    for (const peer of peers) peer.close()
    ours.close()
  })
  // A peer that was told to stop still tidies up for a moment; that is not another program's work.
  await sleep(2500)
  const othersCores = Math.max(busyBefore, await busyCores())
  const after = await measurePeak(options)
  const peak = Math.max(before.flopsF32, after.flopsF32)
  const { flopsPerStep, tokensPerStep } = ours
  console.log(describe(name, config, { flopsPerStep, tokensPerStep, peak, othersCores }, timings))
  // The history is for comparing over time; a figure from a busy machine would only mislead.
  if (othersCores > tolerated) return
  record({
    bench: 'step',
    config: name,
    threads: options.threads,
    peers: peers.map((peer) => `${peer.name} ${peer.version}`),
    flopsPerStep,
    tokensPerStep,
    peakFlopsF32: [before.flopsF32, after.flopsF32],
    othersCores,
    timings,
  })
}

/** Cores that others keep busy while we and the peers wait: over half a second, as far as this system can see. */
async function busyCores(): Promise<number> {
  const start = cpus()
  await sleep(500)
  return cpus().reduce((sum, { times }, i) => {
    const before = start[i]?.times ?? times
    const idle = times.idle - before.idle
    const busy = times.user + times.nice + times.sys - before.user - before.nice - before.sys
    return sum + (busy + idle > 0 ? busy / (busy + idle) : 0)
  }, 0)
}

async function startPeers(config: LanguageConfig, { threads, compile }: Options): Promise<Peer[]> {
  if (!peerInstalled()) return []
  const recipe = torchRecipe(config)
  const peers = [await startTorch(recipe, { threads, compile: false })]
  if (compile) peers.push(await startTorch(recipe, { threads, compile: true }))
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
  readonly peak: number
  /** Cores kept busy by other programs just before or after. */
  readonly othersCores: number
}

function describe(
  name: string,
  { model, batch, threads, optim }: LanguageConfig,
  { flopsPerStep, tokensPerStep, peak, othersCores }: Work,
  timings: readonly Timing[],
): string {
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
    `peak in this run ${formatFlopRate(peak)}`,
    ...(othersCores > tolerated
      ? [
          `NOT a fair comparison: other programs kept ${othersCores.toFixed(1)} cores busy; not recorded, repeat when they are done`,
        ]
      : []),
    formatTable([['', 'step', 'speed', 'rate', 'of peak'], ...rows]),
    ...ratios,
    '',
  ].join('\n')
}

/** One line a configuration, kept in the repository: how speed developed, on which machine. */
function record(result: object): void {
  const line = { date: new Date().toISOString(), commit: commit(), cpu: cpus()[0]?.model, ...result }
  appendFileSync(new URL('history.jsonl', import.meta.url), `${JSON.stringify(line)}\n`)
}

function commit(): string | null {
  try {
    return execFileSync('git', ['describe', '--always', '--dirty'], { encoding: 'utf8' }).trim()
  } catch {
    return null
  }
}
