/**
 * `npm run bench generate`: greedy generation over a key/value cache beside PyTorch eager with one, same model shape,
 * threads and f32. At batch 1 every token reads every weight once, so the yardstick is weight bytes per second against
 * what a copy reaches on this machine (bytes copied, counted once), and the floor is what it takes to read that many bytes
 * and do nothing else, both measured in the same run.
 */
import { availableParallelism, cpus } from 'node:os'
import { setTimeout as sleep } from 'node:timers/promises'
import { parseArgs } from 'node:util'
import { formatTable } from '../src/cli/format.ts'
import { bytesOf, compile, leaves, philoxUniform, valueType, type ValueType } from '../src/compiler/index.ts'
import { measurePeak } from '../src/compiler/runtime/peak.ts'
import { badUsage } from '../src/errors.ts'
import { Decoder } from '../src/models/decoder.ts'
import { dense } from '../src/models/language/config.ts'
import { decodable } from '../src/models/language/decode.ts'
import { parameterTypes, type ModelConfig } from '../src/models/language/model.ts'
import { likeliest } from '../src/train/choose.ts'
import { torchInstalled, startTorchScript, type Peer } from './peer.ts'
import { alternate, median, speedRatio, type Contestant } from './slices.ts'

interface Setting {
  readonly model: ModelConfig
  readonly batch: number
  /** Length at which texts start; they go to the end of the context and start over. */
  readonly start: number
}

const gpt2 = { block: 'gpt2', dropout: 0, ...dense } as const
const large: ModelConfig = {
  ...gpt2,
  size: 'gpt2',
  layers: 12,
  width: 768,
  heads: 12,
  kvHeads: 12,
  context: 1024,
  vocab: 50_257,
}
const base: ModelConfig = {
  ...gpt2,
  size: 'base',
  layers: 6,
  width: 384,
  heads: 6,
  kvHeads: 6,
  context: 256,
  vocab: 65,
}
const settings: Readonly<Record<string, Setting>> = {
  '124M': { model: large, batch: 1, start: 512 },
  '6x384': { model: base, batch: 1, start: 1 },
  '6x384-16': { model: base, batch: 16, start: 1 },
}

export async function main(args: readonly string[]): Promise<void> {
  const { values } = parseArgs({
    args: [...args],
    options: {
      rounds: { type: 'string', default: '5' },
      seconds: { type: 'string', default: '1' },
      threads: { type: 'string', default: String(availableParallelism()) },
      only: { type: 'string' },
      alone: { type: 'boolean', default: false },
    },
  })
  const [rounds, seconds, threads] = [values.rounds, values.seconds, values.threads].map(Number)
  const names = Object.keys(settings).filter((name) => !values.only || values.only === name)
  if (names.length === 0 || ![rounds, seconds, threads].every((x) => x! > 0)) {
    throw badUsage({
      where: 'bench generate',
      got: args.join(' '),
      expected: `numbers above 0, and --only one of ${Object.keys(settings).join(', ')}`,
      fix: 'leave the options out',
    })
  }
  const withPeer = !values.alone && torchInstalled()
  if (!values.alone && !withPeer)
    console.log('PyTorch is not installed here (bench/peers/install.sh): ours only')
  console.log(`${cpus()[0]?.model}, ${threads} threads, f32`)
  const rates = new Map<string, number>()
  for (const name of names) {
    const options = { rounds: rounds!, seconds: seconds!, threads: threads! }
    rates.set(name, await benchmark(name, settings[name]!, options, withPeer))
  }
  const [one, many] = [rates.get('6x384'), rates.get('6x384-16')]
  if (one && many) console.log(`6x384: batch 16 gives ${(many / one).toFixed(1)}x the tokens of batch 1`)
}

interface Options {
  readonly rounds: number
  readonly seconds: number
  readonly threads: number
}

/** Returns our tokens per second. */
async function benchmark(
  name: string,
  { model, batch, start }: Setting,
  options: Options,
  withPeer: boolean,
): Promise<number> {
  const before = await measurePeak(options)
  const bytes = weightBytes(model)
  const readBefore = await readSeconds(bytes, options.threads)
  const ours = await openOurs({ model, batch, start }, options.threads)
  const { layers, width, heads, context, vocab } = model
  const config = { layers, width, heads, context, vocab, batch, start }
  const peers: Peer[] = withPeer
    ? [await startTorchScript('PyTorch eager', 'torch_generate.py', config, options.threads)]
    : []
  const timings = await alternate([ours, ...peers], options).finally(async () => {
    for (const peer of peers) peer.close()
    await ours.close()
  })
  // A peer that was told to stop still tidies up for a moment.
  await sleep(2500)
  const after = await measurePeak(options)
  const read = Math.min(readBefore, await readSeconds(bytes, options.threads))
  const copy = Math.max(before.copyBytesPerSecond, after.copyBytesPerSecond)
  const rows = timings.map((timing) => {
    const step = median(timing.secondsPerStep)
    return [
      timing.name,
      `${(step * 1000).toFixed(3)} ms`,
      `${(batch / step).toFixed(1)} tok/s`,
      `${(bytes / step / 1e9).toFixed(1)} GB/s`,
      `${((100 * bytes) / step / copy).toFixed(0)} %`,
    ]
  })
  console.log(
    `\n${name}: ${layers} x ${width}, ${heads} heads, vocabulary ${vocab}, batch ${batch}, ` +
      `lengths ${start} to ${context}; ${(bytes / 1e6).toFixed(1)} MB of weights a step`,
  )
  console.log(
    `copy bandwidth ${(before.copyBytesPerSecond / 1e9).toFixed(1)} GB/s before, ` +
      `${(after.copyBytesPerSecond / 1e9).toFixed(1)} after`,
  )
  console.log(
    `reading as many bytes and nothing else: ${(read * 1000).toFixed(3)} ms, ${(bytes / read / 1e9).toFixed(1)} GB/s`,
  )
  console.log(formatTable([['', 'step', 'speed', 'weights', 'of copy'], ...rows]))
  const [mine, ...others] = timings
  for (const other of others) {
    const { median: times, low, high } = speedRatio(mine!, other)
    console.log(`${times.toFixed(2)}x ${other.name} (${low.toFixed(2)} to ${high.toFixed(2)} within a round)`)
  }
  return batch / median(mine!.secondsPerStep)
}

/** What a step must read: every weight once, of tables that are only looked up nothing. */
function weightBytes(model: ModelConfig): number {
  const types = leaves<ValueType>(parameterTypes(model))
  return types
    .filter(([path]) => path !== 'positions' && (path !== 'tokens' || model.block === 'gpt2'))
    .reduce((total, [, type]) => total + bytesOf(type), 0)
}

/** The least time a step could take: as many bytes are read once by all threads, added up and forgotten. */
async function readSeconds(bytes: number, threads: number): Promise<number> {
  const rows = 64
  const x = valueType('f32', [rows, Math.round(bytes / 4 / rows)])
  const program = await compile(({ x }) => ({ sums: x.sum(1) }), { x }, { threads })
  try {
    program.view('x').fill(1)
    const seconds = Array.from({ length: 60 }, () => {
      const started = performance.now()
      program.runBlocking()
      return (performance.now() - started) / 1000
    })
    return median(seconds.slice(10))
  } finally {
    program.close()
  }
}

async function openOurs(
  { model, batch, start }: Setting,
  threads: number,
): Promise<Contestant & { close(): Promise<void> }> {
  const decoder = await Decoder.open(decodable(model), { slots: batch, threads })
  leaves<ValueType>(parameterTypes(model)).forEach(([path, type], stream) => {
    const values = decoder.program.view(`params.${path}`)
    const isNorm = type.shape.length < 2 || path.includes('norm')
    for (let i = 0; i < values.length; i++)
      values[i] = isNorm ? 1 : (philoxUniform({ seed: 1, step: 0, stream, salt: 0 }, i % 8191) - 0.5) * 0.07
  })
  const slots = Array.from({ length: batch }, (_, slot) => slot)
  const prompt = Array.from({ length: start }, (_, i) => i % model.vocab)
  for (const slot of slots) await decoder.prefill(slot, prompt)
  let next = new Map(slots.map((slot) => [slot, 0]))
  return {
    name: 'Anneal',
    async run(k) {
      const started = performance.now()
      for (let i = 0; i < k; i++) {
        const logits = await decoder.step(next)
        next = new Map(logits.entries().map(([slot, row]) => [slot, likeliest(row)]))
        for (const slot of slots)
          if (decoder.length(slot) === model.context) decoder.reset(slot, prompt.length)
      }
      return (performance.now() - started) / 1000
    },
    close: () => decoder.close(),
  }
}
