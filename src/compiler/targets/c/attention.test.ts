/** Emitted attention against plain float64 loops, forward and backward: masks, grouped heads, odd sizes, teams, FLOPs. */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { attentionBackwardFlops, attentionFlops } from '../../composites/attention.ts'
import { emitAttention, emitAttentionBackward, type AttentionSpec } from './attention.ts'
import { compileC, onTeam } from './harness.ts'
import { prelude, uniqueSupport, type VectorTarget } from './prelude.ts'

process.env['ANNEAL_OPTIMIZE'] = '3' // as users' programs are compiled

type Shape = Pick<
  AttentionSpec,
  'batch' | 'queries' | 'keys' | 'heads' | 'kvHeads' | 'dim' | 'causal' | 'window'
>

const shape = (
  [batch, queries, keys, heads, kvHeads, dim]: readonly [number, number, number, number, number, number],
  mask: 'none' | 'causal' | number,
): Shape => ({
  batch,
  queries,
  keys,
  heads,
  kvHeads,
  dim,
  causal: mask !== 'none',
  window: typeof mask === 'number' ? mask : 0,
})

const shapes: readonly Shape[] = [
  shape([1, 1, 1, 1, 1, 4], 'causal'),
  shape([2, 7, 7, 2, 2, 8], 'causal'),
  shape([1, 7, 20, 2, 1, 4], 'none'),
  shape([1, 65, 65, 4, 2, 32], 'causal'),
  shape([1, 65, 65, 2, 2, 32], 20),
  shape([1, 1, 70, 4, 2, 64], 'causal'),
  shape([2, 33, 100, 2, 1, 8], 9),
  shape([1, 130, 130, 2, 1, 64], 40),
  shape([1, 40, 65, 1, 1, 96], 'none'),
  // More queries than keys: the first queries see nothing.
  shape([1, 9, 5, 2, 2, 32], 'causal'),
]

/** q, k, v stored as one interleaved projection [batch, time, (heads + 2 kvHeads) dim] when the lengths agree. */
function specOf(dtype: 'f32' | 'f64', one: Shape): AttentionSpec {
  const dense = (time: number, heads: number) => ({
    batch: time * heads * one.dim,
    time: heads * one.dim,
    head: one.dim,
  })
  return {
    ...one,
    dtype,
    scale: 1 / Math.sqrt(one.dim),
    q: dense(one.queries, one.heads),
    // Keys and values lie side by side, so their time stride is twice the dense one.
    k: { ...dense(one.keys, 2 * one.kvHeads) },
    v: { ...dense(one.keys, 2 * one.kvHeads) },
  }
}

interface Tensors {
  readonly q: Float64Array
  readonly kv: Float64Array
  readonly dO: Float64Array
}

function inputs(spec: AttentionSpec): Tensors {
  const wave = (length: number, salt: number): Float64Array =>
    Float64Array.from({ length }, (_, i) => Math.fround(2 * Math.sin(i * 1.37 + salt * 2.1 + (i % 7))))
  const { batch, queries, keys, heads, kvHeads, dim } = spec
  return {
    q: wave(batch * queries * heads * dim, 1),
    kv: wave(batch * keys * 2 * kvHeads * dim, 2),
    dO: wave(batch * queries * heads * dim, 3),
  }
}

type Results = Record<'o' | 'lse' | 'dq' | 'dk' | 'dv', Float64Array>

/** The definition, a pair at a time. */
function reference(spec: AttentionSpec, { q, kv, dO }: Tensors): Results {
  const { batch, queries, keys, heads, kvHeads, dim, causal, window, scale } = spec
  const results: Results = {
    o: new Float64Array(q.length),
    lse: new Float64Array(batch * heads * queries),
    dq: new Float64Array(q.length),
    dk: new Float64Array(batch * keys * kvHeads * dim),
    dv: new Float64Array(batch * keys * kvHeads * dim),
  }
  for (let b = 0; b < batch; b++) {
    for (let h = 0; h < heads; h++) {
      const shared = Math.floor(h / (heads / kvHeads))
      for (let i = 0; i < queries; i++) {
        const at = ((b * queries + i) * heads + h) * dim
        const place = i + keys - queries
        const visible = Array.from({ length: keys }, (_, j) => j).filter(
          (j) => (!causal || j <= place) && (window === 0 || j > place - window),
        )
        const key = (j: number): number => ((b * keys + j) * 2 * kvHeads + shared) * dim
        const value = (j: number): number => key(j) + kvHeads * dim
        const dot = (x: Float64Array, from: number, y: Float64Array, other: number): number => {
          let total = 0
          for (let d = 0; d < dim; d++) total += x[from + d]! * y[other + d]!
          return total
        }
        const scores = visible.map((j) => scale * dot(q, at, kv, key(j)))
        const most = Math.max(...scores)
        const lse = most + Math.log(scores.reduce((sum, s) => sum + Math.exp(s - most), 0))
        results.lse[(b * heads + h) * queries + i] = visible.length === 0 ? -Infinity : lse
        const weights = scores.map((s) => Math.exp(s - lse))
        visible.forEach((j, n) => {
          for (let d = 0; d < dim; d++) results.o[at + d]! += weights[n]! * kv[value(j) + d]!
        })
        const delta = dot(dO, at, results.o, at)
        visible.forEach((j, n) => {
          const ds = weights[n]! * (dot(dO, at, kv, value(j)) - delta) * scale
          const to = ((b * keys + j) * kvHeads + shared) * dim
          for (let d = 0; d < dim; d++) {
            results.dq[at + d]! += ds * kv[key(j) + d]!
            results.dk[to + d]! += ds * q[at + d]!
            results.dv[to + d]! += weights[n]! * dO[at + d]!
          }
        })
      }
    }
  }
  return results
}

/** Compiles the kernels of some specs; `run(i)` gives what they write and the operations each counted. */
async function build(specs: readonly AttentionSpec[], target: VectorTarget) {
  const kernels = specs.map((spec, i) => ({
    forward: emitAttention(`forward${i}`, spec, target),
    backward: emitAttentionBackward(`backward${i}`, spec, target),
  }))
  const library = await compileC(
    [
      prelude(target),
      '#include <pthread.h>',
      uniqueSupport(kernels.flatMap(({ forward, backward }) => [...forward.support, ...backward.support])),
      ...kernels.map(
        ({ forward, backward }, i) =>
          forward.code +
          backward.code +
          onTeam(`f${i}`, `forward${i}`, 6) +
          onTeam(`b${i}`, `backward${i}`, 10),
      ),
      'double counted(void) { return (double)counted_operations(); }',
    ].join('\n'),
  )
  const counted = library.func('double counted(void)') as () => number
  const pointers = (n: number): string => Array.from({ length: n }, (_, i) => `void *p${i}`).join(', ')
  return (i: number): { results: Results; flops: readonly [number, number] } => {
    const spec = specs[i]!
    const { q, kv, dO } = inputs(spec)
    const Kind = spec.dtype === 'f64' ? Float64Array : Float32Array
    const like = (length: number): Float32Array | Float64Array => new Kind(length).fill(77)
    const [inQ, inKV, inDO] = [Kind.from(q), Kind.from(kv), Kind.from(dO)]
    const inV = inKV.subarray(spec.kvHeads * spec.dim)
    const { batch, keys, kvHeads, dim, heads, queries } = spec
    const [o, lse, dq] = [like(q.length), like(batch * heads * queries), like(q.length)]
    const [dk, dv] = [like(batch * keys * kvHeads * dim), like(batch * keys * kvHeads * dim)]
    // Scratch is exactly as large as promised, and NaN: nothing may be used before it is written.
    const scratch = (bytes: number): Uint8Array => new Uint8Array(bytes + 64).fill(0xff)
    const [one, two] = [scratch(kernels[i]!.forward.scratchBytes), scratch(kernels[i]!.backward.scratchBytes)]
    const start = counted()
    library.func(`void f${i}(${pointers(6)})`)(inQ, inKV, inV, o, lse, one)
    const middle = counted()
    library.func(`void b${i}(${pointers(10)})`)(inQ, inKV, inV, o, lse, inDO, dq, dk, dv, two)
    const flops = [middle - start, counted() - middle] as const
    for (const bytes of [one, two])
      assert.ok(
        bytes.subarray(-64).every((byte) => byte === 0xff),
        'scratch overrun',
      )
    const wide = (values: Float32Array | Float64Array): Float64Array => Float64Array.from(values)
    return { results: { o: wide(o), lse: wide(lse), dq: wide(dq), dk: wide(dk), dv: wide(dv) }, flops }
  }
}

function assertClose(got: Results, want: Results, tolerance: number, label: string): void {
  for (const name of ['o', 'lse', 'dq', 'dk', 'dv'] as const) {
    const scale = Math.max(1, ...want[name].filter(Number.isFinite).map(Math.abs))
    got[name].forEach((value, i) => {
      const expected = want[name][i]!
      const close = value === expected || Math.abs(value - expected) <= tolerance * scale
      assert.ok(close, `${label}: ${name}[${i}] = ${value}, expected ${expected}`)
    })
  }
}

const targets = {
  wide: { threads: 2, vectorBytes: 64, registers: 32 },
  narrow: { threads: 1, vectorBytes: 16, registers: 16 },
} as const

for (const [dtype, tolerance, target] of [
  ['f64', 1e-12, targets.wide],
  ['f32', 2e-5, targets.wide],
  ['f32', 2e-5, targets.narrow],
] as const) {
  test(`${dtype} on ${target.vectorBytes}-byte vectors equals the definition and counts its operations`, async () => {
    const specs = shapes.map((one) => specOf(dtype, one))
    const run = await build(specs, target)
    specs.forEach((spec, i) => {
      const { results, flops } = run(i)
      const label = JSON.stringify(shapes[i])
      assertClose(results, reference(spec, inputs(spec)), tolerance, label)
      assert.deepEqual(flops, [attentionFlops(spec), attentionBackwardFlops(spec)], label)
    })
  })
}

test('results have the same bits on 1, 2 and 3 threads', async () => {
  const specs = shapes.map((one) => specOf('f32', one))
  const all: Results[][] = []
  for (const threads of [1, 2, 3]) {
    const run = await build(specs, { ...targets.wide, threads })
    all.push(specs.map((_, i) => run(i).results))
  }
  for (const other of all.slice(1)) assert.deepEqual(other, all[0])
})
