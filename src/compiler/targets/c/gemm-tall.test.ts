/**
 * Products of two tall matrices against plain loops, and their order of additions against separate products of each leaf,
 * added in the tree that ops/leaves.ts describes: the same bits for any team.
 */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { dotFlops, emitDot, type DotSpec } from './gemm.ts'
import { goesTall } from './gemm-tall.ts'
import { asTeam, compileC, onTeam, scratchOf } from './harness.ts'
import { prelude, uniqueSupport, type VectorTarget } from './prelude.ts'

process.env['ANNEAL_OPTIMIZE'] = '3' // as users' programs are compiled

interface Tall {
  readonly m: number
  readonly n: number
  readonly k: number
  readonly leaves?: number
  /** Elements between the rows of an operand that do not belong to it. */
  readonly gap?: number
  readonly dtype?: 'f32' | 'f64'
}

const specOf = ({ m, n, k, leaves, gap = 0, dtype = 'f32' }: Tall): DotSpec => ({
  a: { dtype, rowStride: 1, colStride: m + gap },
  b: { dtype, rowStride: n + gap, colStride: 1 },
  out: dtype,
  batchDims: [],
  m,
  n,
  k,
  ...(leaves === undefined ? {} : { leaves }),
})

const cases: readonly Tall[] = [
  // Whole tiles and b where it lies; odd sizes with copies; rows with gaps; leaves that are no multiple of a block.
  { m: 32, n: 32, k: 2048 },
  { m: 32, n: 64, k: 1024, leaves: 8 },
  { m: 37, n: 65, k: 600, leaves: 4 },
  { m: 50, n: 48, k: 700, leaves: 2, gap: 5 },
  { m: 19, n: 130, k: 532, leaves: 4 },
  { m: 23, n: 40, k: 1100, dtype: 'f64' },
  // More columns than one strip of a result has.
  { m: 700, n: 250, k: 704, leaves: 4 },
]

type Values = Float32Array | Float64Array
const arrayOf = (dtype: DotSpec['out'] = 'f32', length: number, at: (i: number) => number): Values =>
  (dtype === 'f64' ? new Float64Array(length) : new Float32Array(length)).map((_, i) => at(i))

/** Operands that stay small integers, or not. */
const operand = ({ dtype }: Tall, length: number, exact: boolean): Values =>
  arrayOf(dtype, length, (i) => (exact ? ((i * 7 + (i >> 3)) % 5) - 2 : Math.sin(i * 1.7)))

type Run = (i: number, a: Values, b: Values) => { out: Values; operations: number }

async function build(specs: readonly DotSpec[], target: VectorTarget): Promise<Run> {
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
  return (i, a, b) => {
    const { m, n, out: dtype } = specs[i]!
    const out = arrayOf(dtype, m * n, () => 99)
    const before = counted()
    // Scratch is exactly as large as promised, filled with NaN: nothing may be read before it is written.
    const scratch = new Uint8Array(scratchOf(kernels[i]!) + 64).fill(0xff)
    library.func(`void run${i}(void *a, void *b, void *out, void *scratch)`)(a, b, out, scratch)
    assert.ok(
      scratch.subarray(-64).every((byte) => byte === 0xff),
      'scratch overrun',
    )
    return { out, operations: counted() - before }
  }
}

const operands = (one: Tall, exact: boolean): [Values, Values] => {
  const { m, n, k, gap = 0 } = one
  return [operand(one, k * (m + gap), exact), operand(one, k * (n + gap), exact)]
}

test('products of tall matrices are exact on vectors of every width, and count their operations', async () => {
  for (const target of [
    { threads: 2, vectorBytes: 64, registers: 32 },
    { threads: 3, vectorBytes: 32, registers: 16 },
    { threads: 1, vectorBytes: 16, registers: 32 },
  ] as const) {
    const specs = cases.map(specOf)
    assert.ok(specs.every((spec) => goesTall(spec, target)))
    const run = await build(specs, target)
    cases.forEach((one, c) => {
      const { m, n, k, gap = 0 } = one
      const [a, b] = operands(one, true)
      const expected = arrayOf(one.dtype, m * n, (at) => {
        let total = 0
        for (let p = 0; p < k; p++)
          total += a[p * (m + gap) + Math.floor(at / n)]! * b[p * (n + gap) + (at % n)]!
        return total
      })
      const { out, operations } = run(c, a, b)
      assert.deepEqual(out, expected, JSON.stringify(one))
      assert.equal(operations, dotFlops(specs[c]!), JSON.stringify(one))
    })
  }
})

test('the bits are those of the leaves, each a product of its own, added as a tree, for any team', async () => {
  const inLeaves = cases.filter(({ leaves }) => leaves !== undefined)
  // With a the other way around another driver takes them.
  const byLeaf = inLeaves.map(({ leaves, ...one }): DotSpec => {
    const spec = specOf({ ...one, k: one.k / leaves! })
    return { ...spec, a: { ...spec.a, rowStride: spec.k, colStride: 1 } }
  })
  const one = { threads: 1, vectorBytes: 64, registers: 32, rowsAlike: true } as const
  assert.ok(byLeaf.every((spec) => !goesTall(spec, one)))
  const leaf = await build(byLeaf, one)
  const expected = inLeaves.map((whole, c) => {
    const [a, b] = operands(whole, false)
    let level = Array.from({ length: whole.leaves! }, (_, i) => {
      const part = (all: Values): Values => {
        const length = all.length / whole.leaves!
        return all.slice(i * length, (i + 1) * length)
      }
      return leaf(c, turned(whole, part(a)), part(b)).out
    })
    while (level.length > 1) {
      level = level.flatMap((left, i) => (i % 2 === 0 ? [left.map((x, at) => x + level[i + 1]![at]!)] : []))
    }
    return level[0]!
  })
  for (const threads of [1, 2, 3, 8]) {
    const run = await build(inLeaves.map(specOf), { threads, vectorBytes: 64, registers: 32 })
    inLeaves.forEach((whole, c) => {
      const { out } = run(c, ...operands(whole, false))
      assert.deepEqual(out, expected[c], `${JSON.stringify(whole)} on ${threads} threads`)
    })
  }
})

/** Rows of a leaf of a as columns, without gaps. */
function turned({ m, gap = 0, dtype }: Tall, values: Values): Values {
  const k = values.length / (m + gap)
  return arrayOf(dtype, m * k, (at) => values[(at % k) * (m + gap) + Math.floor(at / k)]!)
}

test('a product that says nothing about leaves has the same bits on 1, 2, 3 and 8 threads', async () => {
  const free = cases.filter(({ leaves }) => leaves === undefined)
  const results: Values[][] = []
  for (const threads of [1, 2, 3, 8]) {
    const run = await build(free.map(specOf), { threads, vectorBytes: 64, registers: 32 })
    results.push(free.map((one, c) => run(c, ...operands(one, false)).out))
  }
  for (const other of results.slice(1)) assert.deepEqual(other, results[0])
})
