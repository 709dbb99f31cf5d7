/**
 * Products of bf16 operands by pairs, both kinds of instruction and both plain fallbacks: exact on small integers, close
 * to float64 on others, the same bits on any team, and what becomes of very large and very small elements.
 */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { philoxUniform } from '../../graph/philox.ts'
import { roundBf16 } from '../../graph/round.ts'
import { emitPairDot, pairKind } from './gemm-bf16.ts'
import { dotFlops, emitDot, type DotSpec, type Operand } from './gemm.ts'
import { compileC, onTeam } from './harness.ts'
import { prelude, uniqueSupport, type VectorTarget } from './prelude.ts'
import { stretch, type PairKind } from './tile-bf16.ts'

process.env['ANNEAL_OPTIMIZE'] = '3' // as users' programs are compiled

type Layout = 'rows' | 'columns' | 'strided'

interface Case {
  readonly spec: DotSpec
  readonly sizeA: number
  readonly sizeB: number
}

/** A product whose operands lie by rows, by columns, or with gaps; batch stride 0 where `shared`. */
function product(
  [batch, m, n, k]: readonly [number, number, number, number],
  [layoutA, layoutB]: readonly [Layout, Layout],
  out: 'f32' | 'bf16' = 'f32',
  shared?: 'a' | 'b',
): Case {
  const operand = (layout: Layout, rows: number, columns: number): Operand => ({
    dtype: 'bf16',
    rowStride: layout === 'rows' ? columns : layout === 'columns' ? 1 : 2 * columns + 1,
    colStride: layout === 'rows' ? 1 : layout === 'columns' ? rows : 2,
  })
  const sizeOf = (layout: Layout, rows: number, columns: number): number =>
    layout === 'strided' ? rows * (2 * columns + 1) : rows * columns
  const [sizeA, sizeB] = [sizeOf(layoutA, m, k), sizeOf(layoutB, k, n)]
  const batchDims =
    batch === 1 ? [] : [{ size: batch, a: shared === 'a' ? 0 : sizeA, b: shared === 'b' ? 0 : sizeB }]
  const spec = { a: operand(layoutA, m, k), b: operand(layoutB, k, n), out, batchDims, m, n, k }
  return { spec, sizeA: sizeA * batch, sizeB: sizeB * batch }
}

const layouts: readonly (readonly [Layout, Layout])[] = [
  ['rows', 'rows'],
  ['rows', 'columns'],
  ['columns', 'rows'],
  ['columns', 'columns'],
  ['strided', 'strided'],
]
const cases: readonly Case[] = [
  ...layouts.map((pair) => product([1, 64, 96, 256], pair)),
  ...layouts.map((pair) => product([1, 37, 65, 199], pair)),
  ...layouts.map((pair) => product([2, 8, 17, 300], pair, 'bf16')),
  product([3, 20, 30, 130], ['rows', 'rows'], 'f32', 'a'),
  product([3, 20, 30, 130], ['rows', 'columns'], 'f32', 'b'),
  // More rows than a thread packs at a time.
  product([1, 900, 50, 1100], ['rows', 'rows']),
]

const small = (length: number, salt: number): Float64Array =>
  Float64Array.from({ length }, (_, i) => ((i * 7 + salt * 13 + (i >> 3)) % 5) - 2)

/** Bell-shaped values, rounded to bf16. */
const bell = (length: number, seed: number): Float64Array =>
  Float64Array.from({ length }, (_, i) => {
    const uniform = (n: number): number => philoxUniform({ seed, step: 0, stream: 0, salt: 0 }, 4 * i + n)
    return roundBf16(uniform(0) + uniform(1) + uniform(2) - 1.5)
  })

function reference({ spec }: Case, a: Float64Array, b: Float64Array): Float64Array {
  const { m, n, k } = spec
  const batch = spec.batchDims[0] ?? { size: 1, a: 0, b: 0 }
  const out = new Float64Array(batch.size * m * n)
  for (let z = 0; z < batch.size; z++)
    for (let i = 0; i < m; i++)
      for (let j = 0; j < n; j++) {
        let total = 0
        for (let p = 0; p < k; p++)
          total +=
            a[z * batch.a + i * spec.a.rowStride + p * spec.a.colStride]! *
            b[z * batch.b + p * spec.b.rowStride + j * spec.b.colStride]!
        out[(z * m + i) * n + j] = total
      }
  return out
}

const encode = (values: Float64Array): Uint16Array =>
  new Uint16Array(Float32Array.from(values).buffer).filter((_, i) => i % 2 === 1)
const decode = (values: Uint16Array): Float64Array =>
  Float64Array.from(new Float32Array(new Uint32Array(values).map((bits) => bits << 16).buffer))

type Run = (
  i: number,
  a: Float64Array,
  b: Float64Array,
) => { out: Float64Array; bits: Uint8Array; operations: number }

/** Compiles products into one library; `portable` leaves the instructions out. */
async function build(
  specs: readonly DotSpec[],
  kind: PairKind,
  threads: number,
  portable = false,
): Promise<Run> {
  const target: VectorTarget = { threads, vectorBytes: 64, registers: 32, bf16Products: kind }
  const kernels = specs.map((spec, i) => emitPairDot(`dot${i}`, spec, kind, target))
  const library = await compileC(
    [
      portable ? '#define ANNEAL_PORTABLE' : '',
      prelude(target),
      '#include <pthread.h>',
      uniqueSupport(kernels.flatMap(({ support }) => support)),
      ...kernels.map(({ code }, i) => code + onTeam(`run${i}`, `dot${i}`, 4)),
      'double counted(void) { return (double)counted_operations(); }',
    ].join('\n'),
  )
  const counted = library.func('double counted(void)') as () => number
  return (i, a, b) => {
    const { m, n, batchDims, out: dtype } = specs[i]!
    const size = (batchDims[0]?.size ?? 1) * m * n
    const out = dtype === 'bf16' ? new Uint16Array(size) : new Float32Array(size)
    const before = counted()
    // Scratch starts at a multiple of 64, is exactly as large as promised, and full of NaN.
    const { scratchBytes } = kernels[i]!
    const memory = new Uint8Array(scratchBytes + 64).fill(0xff)
    library.func(`void run${i}(void *a, void *b, void *out, void *scratch)`)(
      encode(a),
      encode(b),
      out,
      memory,
    )
    assert.ok(
      memory.subarray(scratchBytes).every((byte) => byte === 0xff),
      'scratch overrun',
    )
    const values = out instanceof Uint16Array ? decode(out) : Float64Array.from(out)
    return { out: values, bits: new Uint8Array(out.buffer), operations: counted() - before }
  }
}

for (const kind of ['bf16', 'i16'] as const) {
  for (const portable of [false, true]) {
    test(`${kind} ${portable ? 'in plain C' : 'instructions'}: exact on small integers`, async () => {
      const run = await build(
        cases.map(({ spec }) => spec),
        kind,
        2,
        portable,
      )
      cases.forEach((one, i) => {
        const [a, b] = [small(one.sizeA, 1), small(one.sizeB, 2)]
        const { out, operations } = run(i, a, b)
        const want = reference(one, a, b)
        assert.deepEqual(out, one.spec.out === 'bf16' ? want.map(roundBf16) : want, JSON.stringify(one.spec))
        assert.equal(operations, dotFlops(one.spec))
      })
    })
  }

  test(`${kind}: the same bits on 1, 2 and 3 threads`, async () => {
    const chosen = [cases[0]!, cases[6]!, cases[12]!, cases[15]!]
    const bits: Uint8Array[][] = []
    for (const threads of [1, 2, 3]) {
      const run = await build(
        chosen.map(({ spec }) => spec),
        kind,
        threads,
      )
      bits.push(chosen.map((one, i) => run(i, bell(one.sizeA, 1), bell(one.sizeB, 2)).bits))
    }
    for (const other of bits.slice(1)) assert.deepEqual(other, bits[0])
  })
}

/** Root of the mean square of differences. */
const rms = (x: Float64Array, y: Float64Array): number =>
  Math.sqrt(x.reduce((total, value, i) => total + (value - y[i]!) ** 2, 0) / x.length)

test('errors beside float64: f32 sums for bf16, below the rounding of the operands for i16', async () => {
  const one = product([1, 64, 96, 1024], ['rows', 'columns'])
  const [a, b] = [bell(one.sizeA, 3), bell(one.sizeB, 4)]
  const want = reference(one, a, b)
  const size = rms(want, new Float64Array(want.length))
  const bf16 = rms((await build([one.spec], 'bf16', 2))(0, a, b).out, want)
  // 1024 additions of which each rounds by at most 2^-24 of a sum that grows to `size`.
  assert.ok(bf16 < 2 ** -24 * Math.sqrt(1024) * size, `bf16: ${bf16 / size}`)
  const i16 = rms((await build([one.spec], 'i16', 2))(0, a, b).out, want)
  // What rounding both operands to bf16 costs by itself: 2^-9 at most, a third of it in the mean, twice.
  const operands = 2 ** -9 * 0.4 * Math.SQRT2
  assert.ok(i16 < (operands / 3) * size, `i16: ${i16 / size}`)
  assert.ok(i16 > 0)
})

test('i16: every error is below the bound that the largest of each stretch sets', async () => {
  const one = product([1, 40, 48, 640], ['columns', 'rows'])
  // Magnitudes over ten powers of two, so that small elements do lose bits.
  const wild = (length: number, seed: number): Float64Array =>
    bell(length, seed).map((x, i) => roundBf16(x * 2 ** -((i * 7) % 11)))
  const [a, b] = [wild(one.sizeA, 5), wild(one.sizeB, 6)]
  const want = reference(one, a, b)
  const { out } = (await build([one.spec], 'i16', 2))(0, a, b)
  const { m, n, k } = one.spec
  const at = (x: Float64Array, operand: Operand, free: boolean, i: number, p: number): number =>
    Math.abs(
      x[
        free ? i * operand.rowStride + p * operand.colStride : p * operand.rowStride + i * operand.colStride
      ]!,
    )
  for (let i = 0; i < m; i++)
    for (let j = 0; j < n; j++) {
      let bound = 0
      for (let start = 0; start < k; start += stretch) {
        const [xs, ys]: [number[], number[]] = [[], []]
        for (let p = start; p < Math.min(k, start + stretch); p++) {
          xs.push(at(a, one.spec.a, true, i, p))
          ys.push(at(b, one.spec.b, false, j, p))
        }
        // Half a unit of the last place, where a unit is at most 2^-11 of the largest.
        const [dx, dy] = [Math.max(...xs) * 2 ** -12, Math.max(...ys) * 2 ** -12]
        for (let p = 0; p < xs.length; p++) bound += xs[p]! * dy + ys[p]! * dx + dx * dy
      }
      const error = Math.abs(out[i * n + j]! - want[i * n + j]!)
      assert.ok(error <= bound * 1.0001, `${i}, ${j}: ${error} > ${bound}`)
    }
})

test('i16: infinities and NaN make NaN of their row, a tiny stretch counts as zero', async () => {
  const one = product([1, 16, 16, 256], ['rows', 'rows'])
  const run = await build([one.spec], 'i16', 1)
  const ones = new Float64Array(one.sizeB).fill(1)
  const a = new Float64Array(one.sizeA).fill(1)
  a[3 * 256 + 5] = Infinity
  a[4 * 256 + 200] = NaN
  a.fill(2 ** -120, 5 * 256, 5 * 256 + 128)
  a.fill(2 ** 100, 6 * 256, 7 * 256)
  a.fill(2 ** -114, 7 * 256, 8 * 256)
  const { out } = run(0, a, ones)
  const row = (i: number): number[] => [...out.subarray(i * 16, i * 16 + 16)]
  assert.deepEqual(row(2), Array<number>(16).fill(256))
  assert.ok([...row(3), ...row(4)].every(Number.isNaN))
  assert.deepEqual(row(5), Array<number>(16).fill(128))
  assert.deepEqual(row(6), Array<number>(16).fill(2 ** 108))
  assert.deepEqual(row(7), Array<number>(16).fill(2 ** -106))
})

test('a product takes the instructions of its machine, small ones and other types do not', () => {
  const target: VectorTarget = { threads: 2, vectorBytes: 64, registers: 32, bf16Products: 'i16' }
  const { spec } = product([1, 64, 64, 64], ['rows', 'rows'])
  assert.equal(pairKind(spec, target), 'i16')
  assert.match(emitDot('dot', spec, target).code, /gemm_i16_pairs_f32/)
  assert.equal(pairKind(spec, { ...target, bf16Products: undefined }), undefined)
  assert.equal(pairKind({ ...spec, m: 1 }, target), undefined)
  assert.equal(pairKind({ ...spec, a: { ...spec.a, dtype: 'f32' } }, target), undefined)
})
