/**
 * `npm run bench elementwise`: chains of elementwise work over arrays far beyond the private caches, against the bandwidth
 * of copying memory measured in the same run, beside PyTorch (fused by torch.compile; its own fused AdamW).
 *
 * Subtle: a rate counts every byte the chain must read or write once, and a copy reads and writes, so the peak is twice
 * the bytes copied a second. Copies must be as large as the arrays: what fits a
 * shared cache of some hundred megabytes is copied about twice as fast.
 */
import { adamw, compile, full, gelu, layerNorm, valueType } from '../src/compiler/index.ts'
import type { Program } from '../src/compiler/index.ts'
import { runMicro } from './micro.ts'
import type { MicroCase } from './micro.ts'
import { chosen, readOptions } from './options.ts'

const length = 1 << 24
/** Arrays of 64 MiB among the threads, two or more at a time: as far beyond the caches as the copies are. */
const copyMegabytes = 64
const rows = 16_384
const width = 768
const vector = valueType('f32', [length])
const matrix = valueType('f32', [rows, width])
const scale = valueType('f32', [width])

interface Chain {
  readonly compile: (threads: number) => Promise<Program>
  /** Arrays read and written, and the bytes of one. */
  readonly arrays: number
  readonly bytes: number
  readonly torch: object
}

const chains: Readonly<Record<string, Chain>> = {
  'add, multiply': {
    compile: (threads) =>
      compile(({ a, b, c }) => ({ out: a.add(b).mul(c) }), { a: vector, b: vector, c: vector }, { threads }),
    arrays: 4,
    bytes: 4 * length,
    torch: { op: 'add_mul', length },
  },
  gelu: {
    compile: (threads) => compile(({ x }) => ({ out: gelu(x) }), { x: vector }, { threads }),
    arrays: 2,
    bytes: 4 * length,
    torch: { op: 'gelu', length },
  },
  'residual, norm': {
    compile: (threads) =>
      compile(
        ({ x, y, scale }) => {
          const total = x.add(y)
          return { total, out: layerNorm(total, scale) }
        },
        { x: matrix, y: matrix, scale },
        { threads },
      ),
    arrays: 4,
    bytes: 4 * rows * width,
    torch: { op: 'residual_norm', rows, width },
  },
  adamw: {
    compile: (threads) =>
      compile(
        ({ state: { p, m, v }, g }) => {
          const [rate, one, two] = [1e-3, 10, 100].map((value) => full(value, valueType('f32', [])))
          const options = { beta1: 0.9, beta2: 0.99, eps: 1e-8, weightDecay: 0.1 }
          const [nextP, nextM, nextV] = adamw([p, g, m, v, rate!, one!, two!], options)
          return { state: { p: nextP, m: nextM, v: nextV } }
        },
        { state: { p: vector, m: vector, v: vector }, g: vector },
        { threads },
      ),
    arrays: 7,
    bytes: 4 * length,
    torch: { op: 'adamw', length },
  },
}

export async function main(args: readonly string[]): Promise<void> {
  const options = readOptions(args, { rounds: 7, seconds: 0.3 })
  const cases: MicroCase[] = []
  for (const name of chosen(Object.keys(chains), options.only)) {
    const { compile, arrays, bytes, torch } = chains[name]!
    const program = await compile(options.threads)
    for (const [path, { shape }] of program.inputs) {
      const count = shape.reduce((a, b) => a * b, 1)
      program.write(
        path,
        Float32Array.from({ length: count }, (_, i) => ((i % 1009) + 1) / 1009),
      )
    }
    cases.push({ name, program, work: arrays * bytes, torch })
  }
  await runMicro(
    {
      bench: 'elementwise',
      cases,
      unit: 'byte',
      copyMegabytes,
      peak: ({ copyBytesPerSecond }) => 2 * copyBytesPerSecond,
      about: [
        `f32, arrays of ${length} values; bytes read and written, of those that a copy reads and writes`,
      ],
    },
    options,
  )
}
