/**
 * `npm run bench gemm`: matrix products in f32 against the multiply-add peak measured in the same run, beside PyTorch.
 * `--avx2` restricts products and peak to AVX2, and tells PyTorch the same.
 *
 * Subtle: a small product is over in microseconds, so a program holds several of them, each with operands of its own (as
 * a training step does), and is called without a hand-over between threads; large products are alone in their program.
 */
import { compile, valueType } from '../src/compiler/index.ts'
import type { Program, Tensor } from '../src/compiler/index.ts'
import type { MicroCase } from './micro.ts'
import { runMicro } from './micro.ts'
import { chosen, readOptions } from './options.ts'

type Shape = readonly [rows: number, columns: number, depth: number]

/** [M, N, K]: products of training steps from small to large. */
const large: readonly Shape[] = [
  [256, 256, 256],
  [512, 512, 512],
  [1024, 2304, 768],
  [768, 3072, 1024],
  [4096, 768, 768],
  [16_384, 384, 384],
]
const small: readonly Shape[] = [
  [64, 96, 96],
  [64, 384, 96],
  [128, 192, 192],
  [256, 96, 384],
  [256, 384, 96],
  [256, 384, 384],
]
/** Operands of the products of one program stay within a private cache. */
const operandBytes = 1 << 20

export async function main(args: readonly string[]): Promise<void> {
  const options = readOptions(args, { rounds: 7, seconds: 0.15, flags: { avx2: false } })
  if (options.flags['avx2']) process.env['ANNEAL_ISA'] = 'avx2'
  const shapes = new Map([...large, ...small].map((shape) => [shape.join('x'), shape]))
  const cases: MicroCase[] = []
  for (const name of chosen([...shapes.keys()], options.only)) {
    cases.push(await productCase(name, shapes.get(name)!, options.threads))
  }
  await runMicro(
    {
      bench: 'gemm',
      cases,
      unit: 'FLOP',
      peak: ({ flopsF32 }) => flopsF32,
      about: [`f32 products MxNxK on ${options.threads} threads; PyTorch: torch.mm into a given result`],
    },
    options,
  )
}

async function productCase(name: string, [m, n, k]: Shape, threads: number): Promise<MicroCase> {
  const bytes = 4 * (m * k + k * n + m * n)
  const copies = Math.max(1, Math.min(16, Math.floor(operandBytes / bytes)))
  const program = await products([m, n, k], copies, threads)
  for (const [path, { shape }] of program.inputs) {
    const values = Float32Array.from(
      { length: shape[0]! * shape[1]! },
      (_, i) => ((i * 7919) % 1009) / 1009 - 0.5,
    )
    program.write(path, values)
  }
  return {
    name,
    program,
    work: 2 * m * n * k * copies,
    copies,
    torch: { op: 'mm', shape: [m, n, k], copies },
  }
}

function products([m, n, k]: Shape, copies: number, threads: number): Promise<Program> {
  const numbers = Array.from({ length: copies }, (_, i) => i)
  const inputs = Object.fromEntries(
    numbers.flatMap((i) => [
      [`a${i}`, valueType('f32', [m, k])],
      [`b${i}`, valueType('f32', [k, n])],
    ]),
  )
  const body = (given: Record<string, Tensor>): Record<string, Tensor> =>
    Object.fromEntries(numbers.map((i) => [`c${i}`, given[`a${i}`]!.matmul(given[`b${i}`]!)]))
  return compile(body, inputs, { threads, name: `gemm-${m}x${n}x${k}` })
}
