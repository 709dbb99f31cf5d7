/**
 * Emitted convolutions and their gradients against the sum that defines them, on integers, so that f32 is exact: shapes of
 * several blocks, panels and tiles, every option, odd sizes, teams and narrow vectors. Scratch is exactly as large as
 * promised and full of NaN.
 */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { sizeOf } from '../../graph/types.ts'
import {
  convGeometryFlops,
  convTypes,
  eachTerm,
  type ConvGeometry,
  type ConvShape,
} from '../../ops/convolution.ts'
import { emitConv, type ConvSpec } from './conv.ts'
import { compileC, onTeam } from './harness.ts'
import { prelude, uniqueSupport, type Float, type VectorTarget } from './prelude.ts'

process.env['ANNEAL_OPTIMIZE'] = '3' // as users' programs are compiled

interface Case {
  readonly geometry: ConvGeometry
  readonly sizes: Readonly<Record<'x' | 'w' | 'y', number>>
}

function convolution(shape: ConvShape): Case {
  const { x, w, y, attrs } = convTypes(shape)
  const { batch, source, kernel, channels, columns } = shape
  return {
    geometry: { ...attrs, batch, source, kernel, target: attrs.extents, channels, columns },
    sizes: { x: sizeOf(x.shape), w: sizeOf(w.shape), y: sizeOf(y.shape) },
  }
}

const one = [1, 1]
const cases: readonly Case[] = [
  // Several blocks, panels and tiles, with tails of all of them.
  { batch: 2, source: [19, 37], kernel: [3, 3], channels: 5, columns: 83, low: one, high: one },
  {
    batch: 1,
    source: [5, 9, 30],
    kernel: [3, 3, 3],
    channels: 16,
    columns: 16,
    low: [2, 1, 1],
    high: [0, 1, 1],
  },
  { batch: 1, source: [9000], kernel: [5], channels: 8, columns: 3, low: [2], high: [2] },
  // A patch of one row that is larger than a block, and one whose kernel reaches over all of the input.
  { batch: 1, source: [4000], kernel: [3], channels: 40, columns: 17, dilation: [97], low: [97], high: [97] },
  { batch: 2, source: [4, 5], kernel: [4, 5], channels: 33, columns: 20, low: [3, 4], high: [3, 4] },
  // Strides below, equal to and above the kernel, so that phases have several taps, one and none.
  {
    batch: 2,
    source: [15, 22],
    kernel: [3, 3],
    channels: 20,
    columns: 24,
    stride: [2, 2],
    low: one,
    high: one,
  },
  { batch: 1, source: [12, 16], kernel: [2, 4], channels: 7, columns: 18, stride: [2, 4] },
  { batch: 1, source: [13, 17], kernel: [1, 2], channels: 9, columns: 40, stride: [3, 5], low: [2, 1] },
  {
    batch: 1,
    source: [6, 11, 14],
    kernel: [3, 2, 3],
    channels: 4,
    columns: 6,
    stride: [2, 1, 3],
    dilation: [1, 3, 2],
    low: [1, 2, 4],
    high: [1, 1, 2],
  },
  {
    batch: 1,
    source: [40],
    kernel: [4],
    channels: 3,
    columns: 5,
    stride: [4],
    dilation: [6],
    low: [9],
    high: [8],
  },
  // Groups, down to one channel each.
  { batch: 1, source: [10, 21], kernel: [3, 3], channels: 12, columns: 48, groups: 3, low: one, high: one },
  { batch: 2, source: [9, 8], kernel: [3, 3], channels: 6, columns: 6, groups: 6, stride: [1, 2], low: one },
  // Axes without a kernel join the next: in front, behind, and all.
  {
    batch: 2,
    source: [3, 12, 13],
    kernel: [1, 3, 3],
    channels: 6,
    columns: 32,
    low: [0, 1, 1],
    high: [0, 1, 1],
  },
  { batch: 1, source: [7, 6, 5], kernel: [3, 1, 1], channels: 18, columns: 16, low: [2, 0, 0] },
  { batch: 1, source: [4, 6, 5], kernel: [1, 1, 1], channels: 4, columns: 8, groups: 2 },
].map(convolution)

/** Values small enough that every product and sum is exact. */
const small = (length: number, salt: number): Float64Array =>
  Float64Array.from({ length }, (_, i) => ((i * 7 + salt * 13 + (i >> 3)) % 5) - 2)

interface Kernel extends Case {
  readonly result: ConvSpec['result']
}
const operandsOf = { y: ['x', 'w'], x: ['y', 'w'], w: ['x', 'y'] } as const
const results = ['y', 'x', 'w'] as const
const every: readonly Kernel[] = cases.flatMap(({ geometry, sizes }) =>
  results.map((result) => ({ geometry, sizes, result })),
)
/** A third of them, all results among these: compiling takes the time here. */
const some = (offset: number): readonly Kernel[] =>
  every.filter((_, i) => (i + Math.floor(i / 3)) % 3 === offset)

function meaning({ geometry, sizes, result }: Kernel): Float64Array {
  const [left, right] = operandsOf[result]
  const [a, b, out] = [small(sizes[left], 1), small(sizes[right], 2), new Float64Array(sizes[result])]
  eachTerm(geometry, (x, w, y) => {
    const at = { x, w, y }
    out[at[result]]! += a[at[left]]! * b[at[right]]!
  })
  return out
}

/** Compiles kernels into one library; the result gives kernel i's values for given operands, and what it counted. */
async function build(kernels: readonly Kernel[], dtype: Float, target: VectorTarget) {
  const emitted = kernels.map(({ geometry, result }, i) =>
    emitConv(`conv${i}`, { geometry, result, dtype }, target),
  )
  const library = await compileC(
    [
      prelude(target),
      '#include <pthread.h>',
      uniqueSupport(emitted.flatMap(({ support }) => support)),
      ...emitted.map(({ code }, i) => code + onTeam(`run${i}`, `conv${i}`, 4)),
      'double counted(void) { return (double)counted_operations(); }',
    ].join('\n'),
  )
  const counted = library.func('double counted(void)') as () => number
  const encode = (values: Float64Array) => (dtype === 'f64' ? values : Float32Array.from(values))
  return (i: number, make: (length: number, salt: number) => Float64Array) => {
    const { result, sizes } = kernels[i]!
    const [left, right] = operandsOf[result]
    const out = encode(new Float64Array(sizes[result]).fill(99))
    const scratch = new Uint8Array(emitted[i]!.scratchBytes + 64).fill(0xff)
    const before = counted()
    library.func(`void run${i}(void *a, void *b, void *out, void *scratch)`)(
      encode(make(sizes[left], 1)),
      encode(make(sizes[right], 2)),
      out,
      scratch,
    )
    assert.ok(
      scratch.subarray(-64).every((byte) => byte === 0xff),
      'scratch overrun',
    )
    return { out: Float64Array.from(out), operations: counted() - before }
  }
}

const show = ({ geometry, result }: Kernel): string => `${result} of ${JSON.stringify(geometry)}`

test('every shape and option is exact and counts its operations', async () => {
  for (const [dtype, kernels] of [
    ['f32', every],
    ['f64', some(0)],
  ] as const) {
    const run = await build(kernels, dtype, { threads: 2, vectorBytes: 64, registers: 32 })
    kernels.forEach((kernel, i) => {
      const { out, operations } = run(i, small)
      assert.deepEqual(out, meaning(kernel), show(kernel))
      assert.equal(operations, convGeometryFlops(kernel.geometry), show(kernel))
    })
  }
})

test('narrower vectors give the same integers', async () => {
  for (const [kernels, target] of [
    [some(1), { threads: 1, vectorBytes: 32, registers: 16 }],
    [some(2), { threads: 3, vectorBytes: 16, registers: 16 }],
  ] as const) {
    const run = await build(kernels, 'f32', target)
    kernels.forEach((kernel, i) => assert.deepEqual(run(i, small).out, meaning(kernel), show(kernel)))
  }
})

test('results have the same bits on 1, 3 and 20 threads', async () => {
  const wave = (length: number, salt: number): Float64Array =>
    Float64Array.from({ length }, (_, i) => Math.sin(i * 1.7 + salt))
  const [first, ...others] = await Promise.all(
    [1, 3, 20].map(async (threads) => {
      const run = await build(some(0), 'f32', { threads, vectorBytes: 64, registers: 32 })
      return some(0).map((_, i) => run(i, wave).out)
    }),
  )
  for (const other of others) assert.deepEqual(other, first)
})
