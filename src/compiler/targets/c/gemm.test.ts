/** Emitted matrix products against plain loops: shapes, strides, batches, types, teams; small integers make f32 exact. */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { dotFlops, emitDot, type DotSpec, type Operand } from './gemm.ts'
import { isHalf } from '../../graph/types.ts'
import type { Element } from './gemm-plan.ts'
import { skinnyKind } from './gemm-skinny.ts'
import { asTeam, compileC, onTeam, scratchOf } from './harness.ts'
import { prelude, uniqueSupport, type VectorTarget } from './prelude.ts'

process.env['ANNEAL_OPTIMIZE'] = '3' // as users' programs are compiled

type Layout = 'rows' | 'columns' | 'strided'

interface Case {
  readonly spec: DotSpec
  readonly sizeA: number
  readonly sizeB: number
}

/** A product whose operands are stored by rows, by columns, or with gaps; batch strides 0 where `shared`. */
function product(
  [batch, m, n, k]: readonly [number, number, number, number],
  [layoutA, layoutB]: readonly [Layout, Layout],
  dtype: Element = 'f32',
  out: Element = isHalf(dtype) ? 'f32' : dtype,
  shared: 'a' | 'b' | 'none' = 'none',
): Case {
  const operand = (layout: Layout, rows: number, columns: number): Operand => {
    if (layout === 'rows') return { dtype, rowStride: columns, colStride: 1 }
    if (layout === 'columns') return { dtype, rowStride: 1, colStride: rows }
    return { dtype, rowStride: 2 * columns + 1, colStride: 2 }
  }
  const sizeOf = (layout: Layout, rows: number, columns: number): number =>
    layout === 'strided' ? rows * (2 * columns + 1) : rows * columns
  const [sizeA, sizeB] = [sizeOf(layoutA, m, k), sizeOf(layoutB, k, n)]
  const batchDims =
    batch === 1 ? [] : [{ size: batch, a: shared === 'a' ? 0 : sizeA, b: shared === 'b' ? 0 : sizeB }]
  const spec = { a: operand(layoutA, m, k), b: operand(layoutB, k, n), out, batchDims, m, n, k }
  return { spec, sizeA: sizeA * batch, sizeB: sizeB * batch }
}

const shapes: readonly (readonly [number, number, number, number])[] = [
  [1, 1, 1, 1],
  [1, 3, 130, 40],
  [1, 37, 1, 19],
  [1, 7, 9, 11],
  [1, 64, 64, 64],
  [1, 33, 65, 48],
  [3, 19, 24, 8],
  [2, 14, 70, 600],
  // By rows, and large: each thread packs for itself.
  [1, 150, 70, 40],
  [1, 203, 300, 900],
  // By rows, with more of b than stays in a cache at a time.
  [1, 150, 700, 330],
]
const layouts: readonly (readonly [Layout, Layout])[] = [
  ['rows', 'rows'],
  ['rows', 'columns'],
  ['columns', 'rows'],
  ['columns', 'columns'],
  ['strided', 'strided'],
]
const cases: readonly Case[] = [
  ...shapes.flatMap((shape) => layouts.map((pair) => product(shape, pair))),
  ...shapes.slice(4, 7).map((shape) => product(shape, ['rows', 'columns'], 'f64')),
  ...shapes.slice(4).map((shape) => product(shape, ['columns', 'rows'], 'bf16')),
  ...shapes.slice(4).map((shape) => product(shape, ['rows', 'rows'], 'bf16', 'bf16')),
  ...shapes.map((shape) => product(shape, ['rows', 'columns'], 'f16')),
  ...shapes.slice(4, 7).map((shape) => product(shape, ['columns', 'rows'], 'f16', 'f16')),
  product([1, 110, 1500, 300], ['rows', 'columns']),
  product([3, 20, 30, 10], ['rows', 'rows'], 'f32', 'f32', 'a'),
  product([3, 20, 30, 10], ['rows', 'columns'], 'f32', 'f32', 'b'),
  product([4, 1, 40, 30], ['rows', 'columns'], 'f64', 'f64', 'b'),
  // Two batch dimensions, one of them broadcast on each side.
  {
    spec: {
      ...product([1, 9, 17, 5], ['rows', 'rows']).spec,
      batchDims: [
        { size: 2, a: 45, b: 0 },
        { size: 3, a: 0, b: 85 },
      ],
    },
    sizeA: 90,
    sizeB: 255,
  },
]

/** Values small enough that every product and sum is exact in every type. */
const small = (length: number, salt: number): Float64Array =>
  Float64Array.from({ length }, (_, i) => ((i * 7 + salt * 13 + (i >> 3)) % 5) - 2)

function reference({ spec, sizeA, sizeB }: Case): Float64Array {
  const [a, b] = [small(sizeA, 1), small(sizeB, 2)]
  const { m, n, k } = spec
  const out: number[] = []
  let offsets: [number, number][] = [[0, 0]]
  for (const dim of spec.batchDims) {
    offsets = offsets.flatMap(([x, y]) =>
      Array.from({ length: dim.size }, (_, i): [number, number] => [x + i * dim.a, y + i * dim.b]),
    )
  }
  for (const [atA, atB] of offsets) {
    for (let i = 0; i < m; i++) {
      for (let j = 0; j < n; j++) {
        let total = 0
        for (let p = 0; p < k; p++) {
          total +=
            a[atA + i * spec.a.rowStride + p * spec.a.colStride]! *
            b[atB + p * spec.b.rowStride + j * spec.b.colStride]!
        }
        out.push(total)
      }
    }
  }
  return Float64Array.from(out)
}

const toBf16 = (values: Float64Array): Uint16Array =>
  new Uint16Array(Float32Array.from(values).buffer).filter((_, i) => i % 2 === 1)
const fromBf16 = (values: Uint16Array): Float64Array =>
  Float64Array.from(new Float32Array(new Uint32Array(values).map((bits) => bits << 16).buffer))
function encode(dtype: Element, values: Float64Array): Float32Array | Float64Array | Uint16Array {
  if (dtype === 'f16') return new Uint16Array(Float16Array.from(values).buffer)
  return dtype === 'f64' ? values : dtype === 'f32' ? Float32Array.from(values) : toBf16(values)
}

function decode(dtype: Element, out: Float32Array | Float64Array | Uint16Array): Float64Array {
  if (dtype === 'f16') return Float64Array.from(new Float16Array(out.buffer as ArrayBuffer))
  return out instanceof Uint16Array ? fromBf16(out) : Float64Array.from(out)
}

/** Compiles products into one library; `run(i, a, b)` gives product i and the operations it counted. */
async function build(specs: readonly DotSpec[], target: VectorTarget) {
  const kernels = specs.map((spec, i) => emitDot(`dot${i}`, spec, target))
  const library = await compileC(
    [
      prelude(target),
      '#include <pthread.h>',
      uniqueSupport(kernels.flatMap(({ support }) => support)),
      ...kernels.map(
        ({ code }, i) => code + asTeam(`dot${i}`, kernels[i]!) + onTeam(`run${i}`, `dot${i}_team`, 4),
      ),
      'double counted(void) { return (double)counted_operations(); }',
    ].join('\n'),
  )
  const counted = library.func('double counted(void)') as () => number
  return (
    i: number,
    a: Float64Array,
    b: Float64Array,
  ): { out: Float64Array; bits: Uint8Array; operations: number } => {
    const spec = specs[i]!
    const size = spec.batchDims.reduce((total, dim) => total * dim.size, 1) * spec.m * spec.n
    const out = encode(spec.out, new Float64Array(size).fill(99))
    const before = counted()
    // Scratch is exactly as large as promised, filled with NaN: nothing may be read before it is written.
    const scratch = new Uint8Array(scratchOf(kernels[i]!) + 64).fill(0xff)
    library.func(`void run${i}(void *a, void *b, void *out, void *scratch)`)(
      encode(spec.a.dtype, a),
      encode(spec.b.dtype, b),
      out,
      scratch,
    )
    const values = decode(spec.out, out)
    assert.ok(
      scratch.subarray(-64).every((byte) => byte === 0xff),
      'scratch overrun',
    )
    return { out: values, bits: new Uint8Array(out.buffer), operations: counted() - before }
  }
}

const show = ({ spec }: Case): string => JSON.stringify(spec)

test('products of every shape, layout and type are exact, and count their operations', async () => {
  const run = await build(
    cases.map(({ spec }) => spec),
    { threads: 2, vectorBytes: 64, registers: 32 },
  )
  cases.forEach((one, i) => {
    const { out, operations } = run(i, small(one.sizeA, 1), small(one.sizeB, 2))
    assert.deepEqual(out, reference(one), show(one))
    assert.equal(operations, dotFlops(one.spec), show(one))
  })
})

test('narrower vectors give the same integers', async () => {
  const some = cases.filter((_, i) => i % 4 === 1)
  for (const target of [
    { threads: 1, vectorBytes: 32, registers: 16 },
    { threads: 3, vectorBytes: 16, registers: 16 },
  ] as const) {
    const run = await build(
      some.map(({ spec }) => spec),
      target,
    )
    some.forEach((one, i) =>
      assert.deepEqual(run(i, small(one.sizeA, 1), small(one.sizeB, 2)).out, reference(one), show(one)),
    )
  }
})

test('results have the same bits on 1, 2 and 5 threads, with blocks of the depth', async () => {
  const chosen = [
    product([1, 64, 150, 700], ['rows', 'columns']),
    product([1, 64, 65, 900], ['columns', 'rows']),
    product([1, 300, 70, 900], ['rows', 'rows']),
    product([1, 300, 130, 1700], ['columns', 'rows']),
    // By rows on one or two threads, by another driver on five.
    product([1, 100, 200, 900], ['rows', 'rows']),
    product([1, 100, 200, 900], ['rows', 'columns']),
    product([3, 20, 33, 50], ['rows', 'rows']),
    product([1, 2, 30, 100], ['rows', 'columns']),
  ]
  const wave = (length: number): Float64Array => Float64Array.from({ length }, (_, i) => Math.sin(i * 1.7))
  const results: Uint8Array[][] = []
  for (const threads of [1, 2, 5]) {
    const run = await build(
      chosen.map(({ spec }) => spec),
      { threads, vectorBytes: 64, registers: 32 },
    )
    results.push(chosen.map((one, i) => run(i, wave(one.sizeA), wave(one.sizeB)).bits))
  }
  for (const other of results.slice(1)) assert.deepEqual(other, results[0])
})

/** Products of few rows: both drivers, one group of rows and several, tails everywhere, blocks of the depth. */
const skinny: readonly Case[] = [1, 2, 4, 7, 8, 9, 16].flatMap((m) => [
  product([1, m, 230, 205], ['rows', 'rows']),
  product([1, m, 31, 77], ['rows', 'columns']),
  product([1, m, 49, 20], ['rows', 'rows'], 'f64'),
  product([1, m, 6, 100], ['rows', 'columns'], 'f64'),
])

test('products of few rows are exact on vectors of every width, and count their operations', async () => {
  const specs = skinny.map(({ spec }) => spec)
  assert.ok(
    specs.every((spec) => skinnyKind(spec, { threads: 1, vectorBytes: 64, registers: 32 }) !== undefined),
  )
  for (const target of [
    { threads: 2, vectorBytes: 64, registers: 32 },
    { threads: 3, vectorBytes: 32, registers: 16 },
    { threads: 1, vectorBytes: 16, registers: 32 },
  ] as const) {
    const run = await build(specs, target)
    skinny.forEach((one, i) => {
      const { out, operations } = run(i, small(one.sizeA, 1), small(one.sizeB, 2))
      assert.deepEqual(out, reference(one), show(one))
      assert.equal(operations, dotFlops(one.spec), show(one))
    })
  }
})

test('a row of a product of few rows has the same bits whatever the other rows and the team', async () => {
  const wave = (length: number): Float64Array => Float64Array.from({ length }, (_, i) => Math.sin(i * 1.7))
  const widest = [16, 16, 16, 16].map((_, layout) => skinny[6 * 4 + layout]!)
  const rowsOf = new Map<number, Uint8Array[]>()
  for (const threads of [1, 2, 5]) {
    const run = await build(
      skinny.map(({ spec }) => spec),
      { threads, vectorBytes: 64, registers: 32 },
    )
    skinny.forEach((one, i) => {
      const { spec } = one
      const whole = widest[i % 4]!
      const bits = run(i, wave(whole.sizeA).subarray(0, one.sizeA), wave(one.sizeB)).bits
      const rowBytes = bits.length / spec.m
      const known = rowsOf.get(i % 4) ?? []
      rowsOf.set(i % 4, known)
      for (let row = 0; row < spec.m; row++) {
        const mine = bits.slice(row * rowBytes, (row + 1) * rowBytes)
        known[row] ??= mine
        assert.deepEqual(mine, known[row], `${show(one)}, row ${row}, ${threads} threads`)
      }
    })
  }
})
