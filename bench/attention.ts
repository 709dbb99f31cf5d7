/**
 * `npm run bench attention`: the attention kernels alone, forward and backward, causal, against the multiply-add peak of
 * the same run. FLOPs are the declared ones, so that pairs the mask hides count for nothing.
 */
import { availableParallelism } from 'node:os'
import { parseArgs } from 'node:util'
import { formatFlopRate, formatPercent, formatTable } from '../src/cli/format.ts'
import { compile, valueType, type Program, type Tensor } from '../src/compiler/index.ts'
import { attentionBackwardComposite, attentionComposite } from '../src/compiler/composites/attention.ts'
import { invoke } from '../src/compiler/composites/composite.ts'
import { measurePeak } from '../src/compiler/runtime/peak.ts'
import { alternate, median, type Contestant } from './slices.ts'

/**
 * Batch, positions, heads, head size, and how many calls follow each other in one program, each fed by the one before:
 * as in a model, and so that starting the program costs little beside them.
 */
type Size = readonly [number, number, number, number, number]
const sizes: readonly Size[] = [
  [12, 64, 4, 32, 32],
  [12, 64, 6, 64, 16],
  [16, 256, 2, 32, 4],
  [16, 256, 6, 64, 2],
  [2, 1024, 4, 32, 2],
  [2, 1024, 4, 64, 1],
]

export async function main(args: readonly string[]): Promise<void> {
  const { values } = parseArgs({
    args: [...args],
    options: {
      rounds: { type: 'string', default: '7' },
      seconds: { type: 'string', default: '0.1' },
      threads: { type: 'string', default: String(availableParallelism()) },
    },
  })
  const [threads, rounds, seconds] = [values.threads, values.rounds, values.seconds].map(Number) as [
    number,
    number,
    number,
  ]
  const programs = await Promise.all(
    sizes.flatMap((size) => [forward(size, threads), backward(size, threads)]),
  )
  const before = await measurePeak({ threads })
  const timings = await alternate(programs.map(contestant), { rounds, seconds })
  const peak = Math.max(before.flopsF32, (await measurePeak({ threads })).flopsF32)
  for (const program of programs) program.close()
  const rows = sizes.map(([batch, time, heads, dim, calls], i) => {
    const [there, back] = [2 * i, 2 * i + 1].map((at) => ({
      flops: programs[at]!.flops / calls,
      seconds: median(timings[at]!.secondsPerStep) / calls,
    })) as [Cost, Cost]
    const total = { flops: there.flops + back.flops, seconds: there.seconds + back.seconds }
    const name = [`${batch} x ${heads} heads`, `${time}`, `${dim}`]
    return name.concat([there, back, total].flatMap((cost) => describe(cost, peak)))
  })
  console.log(`causal attention, f32, ${threads} threads; peak in this run ${formatFlopRate(peak)}`)
  const parts = ['forward', 'backward', 'both'].flatMap((part) => [part, 'rate', 'of peak'])
  console.log(formatTable([['', 'T', 'head', ...parts], ...rows]))
}

interface Cost {
  readonly flops: number
  readonly seconds: number
}

const describe = ({ flops, seconds }: Cost, peak: number): string[] => [
  `${(seconds * 1000).toFixed(2)} ms`,
  formatFlopRate(flops / seconds),
  formatPercent(flops / seconds / peak),
]

const options = (dim: number): object => ({ causal: true, window: 0, scale: 1 / Math.sqrt(dim) })

export function forward([batch, time, heads, dim, calls]: Size, threads: number): Promise<Program> {
  const type = valueType('f32', [batch, time, heads, dim])
  const body = ({ q, k, v }: Record<'q' | 'k' | 'v', Tensor>): Record<string, Tensor> => {
    let [o, lse] = [q, q]
    for (let i = 0; i < calls; i++)
      [o, lse] = invoke(attentionComposite, [o, k, v], { ...options(dim) }) as [Tensor, Tensor]
    return { o, lse }
  }
  return filled(compile(body, { q: type, k: type, v: type }, { threads, name: `forward-${time}-${dim}` }))
}

export function backward([batch, time, heads, dim, calls]: Size, threads: number): Promise<Program> {
  const type = valueType('f32', [batch, time, heads, dim])
  const lse = valueType('f32', [batch, heads, time])
  const body = ({
    q,
    k,
    v,
    o,
    lse,
    g,
  }: Record<'q' | 'k' | 'v' | 'o' | 'lse' | 'g', Tensor>): Record<string, Tensor> => {
    let gradients = [g]
    for (let i = 0; i < calls; i++)
      gradients = invoke(attentionBackwardComposite, [q, k, v, o, lse, gradients[0]!], { ...options(dim) })
    return Object.fromEntries(gradients.map((x, i) => [`${i}`, x]))
  }
  const inputs = { q: type, k: type, v: type, o: type, lse, g: type }
  return filled(compile(body, inputs, { threads, name: `backward-${time}-${dim}` }))
}

/** Inputs of the size that normalised activations have; a log-sum-exp as if all keys mattered about equally. */
async function filled(compiling: Promise<Program>): Promise<Program> {
  const program = await compiling
  for (const [path, { shape }] of program.inputs) {
    const values = program.view(path)
    const level = path === 'lse' ? Math.log(shape.at(-1)!) : 0
    for (let i = 0; i < values.length; i++) values[i] = level + Math.sin(i * 1.37 + path.charCodeAt(0))
  }
  return program
}

const contestant = (program: Program, i: number): Contestant => ({
  name: `${i}`,
  async run(k) {
    const started = performance.now()
    for (let n = 0; n < k; n++) await program.run()
    return (performance.now() - started) / 1000
  },
})
