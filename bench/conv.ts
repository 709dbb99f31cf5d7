/**
 * `npm run bench conv`: convolutions, forward and both gradients as programs of their own, against the peak of
 * multiply-adds measured in the same run. FLOPs are the exact count (docs/flops.md): taps on padding are work for the
 * machine and none in the table. Prints, asserts nothing.
 */
import { availableParallelism } from 'node:os'
import { parseArgs } from 'node:util'
import { formatFlopRate, formatPercent, formatTable } from '../src/cli/format.ts'
import {
  compile,
  conv,
  grad,
  valueType,
  type ConvOptions,
  type Program,
  type Tensor,
} from '../src/compiler/index.ts'
import { measurePeak } from '../src/compiler/runtime/peak.ts'
import { badUsage } from '../src/errors.ts'
import { alternate, median } from './slices.ts'

interface Shape {
  readonly name: string
  /** [batch, ...space, channels] and [...kernel, channels, columns]. */
  readonly x: readonly number[]
  readonly w: readonly number[]
  readonly options: ConvOptions
}

const same: ConvOptions = { padding: 'same' }
const shapes: readonly Shape[] = [
  ...[16, 32, 64].map((c) => ({ name: `2-D 3x3, ${c}`, x: [8, 64, 64, c], w: [3, 3, c, c], options: same })),
  ...[16, 32, 64].map((c) => ({
    name: `3-D 3x3x3, ${c}`,
    x: [1, 17, 32, 32, c],
    w: [3, 3, 3, c, c],
    options: same,
  })),
  ...[16, 32, 64].map((c) => ({ name: `1x1, ${c}`, x: [8, 64, 64, c], w: [1, 1, c, c], options: same })),
  {
    name: '2-D 3x3 / 2, 32 to 64',
    x: [8, 64, 64, 32],
    w: [3, 3, 32, 64],
    options: { padding: 1, stride: 2 },
  },
  { name: '2-D 3x3, 8x8, 256', x: [8, 8, 8, 256], w: [3, 3, 256, 256], options: same },
  { name: '2-D 3x3, 3 to 32', x: [8, 64, 64, 3], w: [3, 3, 3, 32], options: same },
  { name: '1-D 7, 64', x: [8, 4096, 64], w: [7, 64, 64], options: same },
]

type Inputs = Record<'x' | 'w' | 'g', Tensor>

/** Three programs, each one kernel: the loss of a gradient weighs the output, and only the gradient is kept. */
async function programs({ x, w, options }: Shape, threads: number): Promise<Program[]> {
  const types = {
    x: valueType('f32', x),
    w: valueType('f32', w),
    g: valueType('f32', outputShape(x, w, options)),
  }
  const loss = (given: Inputs): Tensor => conv(given.x, given.w, options).mul(given.g).sum()
  const bodies: readonly ((given: Inputs) => Record<string, Tensor>)[] = [
    (given) => ({ y: conv(given.x, given.w, options) }),
    (given) => grad(loss(given), { x: given.x }),
    (given) => grad(loss(given), { w: given.w }),
  ]
  return Promise.all(
    bodies.map(async (body) => {
      const program = await compile(body, types, { threads, name: 'conv' })
      for (const [path, { shape }] of Object.entries(types)) {
        const size = shape.reduce((a, b) => a * b, 1)
        program.write(
          path,
          Float32Array.from({ length: size }, (_, i) => Math.sin(i)),
        )
      }
      return program
    }),
  )
}

function outputShape(x: readonly number[], w: readonly number[], { stride = 1 }: ConvOptions): number[] {
  return [x[0]!, ...x.slice(1, -1).map((extent) => Math.ceil(extent / (stride as number))), w.at(-1)!]
}

const timesOf = async (program: Program, k: number): Promise<number> => {
  const started = performance.now()
  for (let i = 0; i < k; i++) await program.run()
  return (performance.now() - started) / 1000
}

export async function main(args: readonly string[]): Promise<void> {
  const { values } = parseArgs({
    args: [...args],
    options: {
      rounds: { type: 'string', default: '7' },
      seconds: { type: 'string', default: '0.1' },
      threads: { type: 'string', default: String(availableParallelism()) },
      only: { type: 'string', default: '' },
    },
  })
  const [rounds, seconds, threads] = [values.rounds, values.seconds, values.threads].map(Number) as [
    number,
    number,
    number,
  ]
  if (![rounds, seconds, threads].every((value) => value > 0)) {
    throw badUsage({
      where: 'bench conv',
      got: args.join(' '),
      expected: 'rounds, seconds and threads above 0',
      fix: 'leave them out for the defaults',
    })
  }
  const measured: Measured[] = []
  const peaks: number[] = []
  for (const shape of shapes.filter(({ name }) => name.includes(values.only))) {
    peaks.push((await measurePeak({ threads })).flopsF32)
    measured.push(await measure(shape, { rounds, seconds, threads }))
  }
  peaks.push((await measurePeak({ threads })).flopsF32)
  print(measured, peaks)
}

interface Measured {
  readonly name: string
  /** Of forward, gradient by input, gradient by weight. */
  readonly seconds: readonly number[]
  readonly flops: readonly number[]
}

async function measure(
  shape: Shape,
  { rounds, seconds, threads }: Readonly<Record<'rounds' | 'seconds' | 'threads', number>>,
): Promise<Measured> {
  const all = await programs(shape, threads)
  const timings = await alternate(
    all.map((program, i) => ({ name: String(i), run: (k: number) => timesOf(program, k) })),
    { rounds, seconds },
  )
  const flops = all.map((program) => program.flops)
  for (const program of all) program.close()
  return { name: shape.name, seconds: timings.map(({ secondsPerStep }) => median(secondsPerStep)), flops }
}

/** Clock and neighbours change from minute to minute: a shape's peak is the higher of those measured before and after it. */
function print(measured: readonly Measured[], peaks: readonly number[]): void {
  const sum = (list: readonly number[]): number => list.reduce((a, b) => a + b)
  const rows = measured.map(({ name, seconds, flops }, shape) => {
    const peak = Math.max(peaks[shape]!, peaks[shape + 1]!)
    return [
      name,
      ...seconds.map((time, i) => `${(time * 1e3).toFixed(3)} ms ${formatPercent(flops[i]! / time / peak)}`),
      `${(sum(seconds) * 1e3).toFixed(3)} ms`,
      formatFlopRate(sum(flops) / sum(seconds)),
      formatPercent(sum(flops) / sum(seconds) / peak),
      formatFlopRate(peak),
    ]
  })
  const header = ['shape', 'forward', 'to input', 'to weight', 'total', 'speed', 'of peak', 'peak']
  console.log(formatTable([header, ...rows]))
}
