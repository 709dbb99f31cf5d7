/**
 * The op suite on the C target: every op against its own float64 meaning in f64 and f32, the same bits on any number of
 * threads, and the FLOPs that a checking build counts. A new op gets these tests by being in the list. Cases are its
 * samples plus large random shapes, so that work really is shared; all of them run as one program per setting.
 */
import assert from 'node:assert/strict'
import { before, test } from 'node:test'
import type { DType } from '../graph/types.ts'
import { largeSamples } from '../random-samples.ts'
import { opCase, runCases, worstError, type Case, type Outcome } from '../testing.ts'
import { ops } from './index.ts'

process.env['ANNEAL_OPTIMIZE'] = '3' // as users' programs are compiled

const sampled = ops.filter((op) => op.samples().length > 0)
const casesOf = (op: (typeof ops)[number], dtype: DType): Case[] =>
  op.samples().map((sample, i) => opCase(op, sample, `${op.name}_${i}`, i, dtype))
const largeCasesOf = (op: (typeof ops)[number], dtype: DType): Case[] =>
  largeSamples(op, 2).map((sample, i) => opCase(op, sample, `${op.name}_large${i}`, 100 + i, dtype))
const allCases = (dtype: DType): Case[] =>
  sampled.flatMap((op) => [...casesOf(op, dtype), ...largeCasesOf(op, dtype)])
/** Small kernels run on one thread anyway. */
const largeCases = sampled.flatMap((op) => largeCasesOf(op, 'f32'))

/** f32: a few roundings of sums over at most 26^4 elements of size 2; where a result is exact it is far below. */
const tolerance = { f64: 1e-12, f32: 2e-5 } as const

let reference: Outcome
let counted: Outcome
const compiled = new Map<DType, Outcome>()
const threaded = new Map<number, Outcome>()

before(async () => {
  reference = await runCases(allCases('f64'), { target: 'reference' })
  compiled.set('f64', await runCases(allCases('f64'), { threads: 2, name: 'ops-f64' }))
  compiled.set('f32', await runCases(allCases('f32'), { threads: 2, name: 'ops-f32' }))
  for (const threads of [1, 3]) {
    threaded.set(threads, await runCases(largeCases, { threads, name: 'ops-threads' }))
  }
  counted = await runCases(allCases('f32'), { threads: 2, checking: true, name: 'ops-counted' })
})

for (const op of sampled) {
  for (const dtype of ['f64', 'f32'] as const) {
    test(`${op.name} in C equals its meaning, ${dtype}`, () => {
      for (const { name, types } of [...casesOf(op, dtype), ...largeCasesOf(op, dtype)]) {
        const want = reference.results.get(name)!
        compiled
          .get(dtype)!
          .results.get(name)!
          .forEach((got, i) => {
            const error = worstError(got, want[i]!)
            assert.ok(error <= tolerance[dtype], `${name} ${JSON.stringify(types)}: error ${error}`)
          })
      }
    })
  }
}

for (const op of sampled.filter((op) => largeSamples(op, 1).length > 0)) {
  test(`${op.name} has the same bits on 1, 2 and 3 threads`, () => {
    for (const { name } of largeCasesOf(op, 'f32')) {
      const two = compiled.get('f32')!.results.get(name)
      assert.ok(two)
      assert.deepEqual(threaded.get(1)!.results.get(name), two, name)
      assert.deepEqual(threaded.get(3)!.results.get(name), two, name)
    }
  })
}

test('counted FLOPs of all ops equal the declared ones', () => {
  assert.ok(counted.program.flops > 1e5)
  assert.equal(counted.program.countedFlops(), counted.program.flops)
})
