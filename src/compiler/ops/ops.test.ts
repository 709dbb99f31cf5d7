/**
 * The op suite on the C target: every op against its own float64 meaning in f64 and f32, the same bits on any number of
 * threads, and the FLOPs that a checking build counts. A new op gets these tests by being in the list. Cases are its
 * samples plus large random shapes, so that work really is shared; all of them run as one program per setting.
 */
import assert from 'node:assert/strict'
import { before, test } from 'node:test'
import type { CompileOptions } from '../compile.ts'
import type { DType } from '../graph/types.ts'
import { largeSamples } from '../random-samples.ts'
import { opCase, runCases, worstError, type Case, type Outcome } from '../testing.ts'
import { ops } from './index.ts'

const sampled = ops.filter((op) => op.samples().length > 0)

function casesOf(dtype: DType): Case[] {
  return sampled.flatMap((op) => {
    const small = op.samples().map((sample, i) => opCase(op, sample, `${op.name}_${i}`, i, dtype))
    const large = largeSamples(op, 2)
    return [...small, ...large.map((sample, i) => opCase(op, sample, `${op.name}_large${i}`, 100 + i, dtype))]
  })
}

const cases = { f64: casesOf('f64'), f32: casesOf('f32') } as const

/** f32: a few roundings of sums over at most 26^4 elements of size 2; where a result is exact it is far below. */
const tolerance = { f64: 1e-12, f32: 2e-5 } as const

const outcomes = new Map<string, Outcome>()
const outcome = (key: string): Outcome => outcomes.get(key)!

before(async () => {
  const settings: Record<string, [DType & keyof typeof cases, CompileOptions]> = {
    reference: ['f64', { target: 'reference' }],
    'f64 2': ['f64', { threads: 2 }],
    'f32 1': ['f32', { threads: 1 }],
    'f32 2': ['f32', { threads: 2 }],
    'f32 3': ['f32', { threads: 3 }],
    'f32 counted': ['f32', { threads: 2, checking: true }],
  }
  for (const [key, [dtype, options]] of Object.entries(settings)) {
    console.time(key);outcomes.set(key, await runCases(cases[dtype], { ...options, name: 'ops' }));console.timeEnd(key)
  }
})

for (const op of sampled) {
  const names = cases.f64.map(({ name }) => name).filter((name) => name.split('_')[0] === op.name)

  for (const dtype of ['f64', 'f32'] as const) {
    test(`${op.name} in C equals its meaning, ${dtype}`, () => {
      for (const name of names) {
        const want = outcome('reference').results.get(name)!
        outcome(`${dtype} 2`)
          .results.get(name)!
          .forEach((got, i) => {
            const error = worstError(got, want[i]!)
            assert.ok(error <= tolerance[dtype], `${name} ${JSON.stringify(typesOf(name))}: error ${error}`)
          })
      }
    })
  }

  test(`${op.name} has the same bits on 1, 2 and 3 threads`, () => {
    for (const name of names) {
      const one = outcome('f32 1').results.get(name)
      assert.deepEqual(outcome('f32 2').results.get(name), one, name)
      assert.deepEqual(outcome('f32 3').results.get(name), one, name)
    }
  })
}

const typesOf = (name: string): unknown => cases.f64.find((one) => one.name === name)!.types

test('counted FLOPs equal declared ones', () => {
  const { program } = outcome('f32 counted')
  assert.ok(program.flops > 1e5)
  assert.equal(program.countedFlops(), program.flops)
})
