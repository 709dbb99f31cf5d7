/**
 * Where every sum is exact, every plan gives the same bits: what differs is a wrong value rather than rounding. Loss,
 * gradients and parameters of a step (integer-nets.ts), in float64 on simulated ranks, and in f32 as compiled for ranks
 * that are threads. That sums are exact is measured, not assumed (exact-sums.ts).
 */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { compile } from '../src/compiler/index.ts'
import { bitsOfSums } from './exact-sums.ts'
import { convolutional, layered, textual, type Net } from './integer-nets.ts'
import { staged } from './integer-pipeline.ts'
import { assertAgree, ran, spread } from './plans.ts'

interface Case {
  readonly net: Net
  /** On simulated ranks, in float64. */
  readonly plans: readonly string[]
  /** As compiled, in f32; one device, too. */
  readonly native: readonly string[]
  /** Plans with a pipeline, in float64: schedule and microbatches. Compared in what the step leaves. */
  readonly pipelines?: readonly (readonly [plan: string, ...Schedule])[]
}
type Schedule = readonly [name: string, microbatches: number]

const dense = ['data=2', 'data=8 zero=1', 'data=4 zero=3', 'tensor=2', 'data=2 tensor=4 zero=1']
const withTime = [
  'tensor=4 sequence',
  'context=2',
  'context=4 data=2 zero=2',
  'data=2 tensor=2 zero=2 sequence',
  'data=2 context=2 tensor=2 zero=3',
]
const withAttention = [
  'context=2 attention=ring',
  'context=4 attention=heads',
  'data=2 context=4 zero=2 attention=ring',
  'tensor=2 context=2 attention=heads',
  'tensor=2 context=4 sequence attention=ring',
]
const withExperts = [
  'expert=2',
  'expert=4',
  'expert=2 data=2 zero=2',
  'expert=4 tensor=2',
  'expert=2 data=2 tensor=2 sequence',
  'expert=2 data=2 context=2 zero=3',
  'expert=2 context=2 tensor=2 attention=heads',
]

const pipelines = [
  ['pipe=2', 'gpipe', 4],
  ['pipe=2', '1f1b', 4],
  ['pipe=2', 'zb-h1', 8],
  ['pipe=2 data=2 zero=1', '1f1b', 2],
  ['pipe=2 tensor=2', '1f1b', 4],
  ['data=2 pipe=2 tensor=2 sequence', 'zb-h1', 4],
  ['pipe=2 context=2', '1f1b', 2],
] as const
const cases: Readonly<Record<string, Case>> = {
  layers: {
    net: layered(),
    plans: [...dense, ...withTime],
    native: ['data=2 zero=1', 'tensor=2 sequence', 'data=2 tensor=2 zero=3'],
    pipelines,
  },
  'a language model': {
    net: textual(0),
    pipelines: [...pipelines, ['pipe=2 context=2 attention=ring', 'zb-h1', 4]],
    plans: [...dense, ...withTime, ...withAttention],
    native: ['tensor=2 context=2 attention=heads', 'data=2 context=2 zero=3 attention=ring'],
  },
  'a mixture of experts': {
    net: textual(4),
    plans: [...dense, ...withTime, ...withAttention, ...withExperts],
    native: ['expert=2 data=2 tensor=2 sequence', 'expert=2 context=2 attention=ring'],
  },
  'a convolutional net': {
    net: convolutional(),
    plans: [...dense, 'tensor=8', 'data=2 tensor=2 zero=2', 'data=4 tensor=2 zero=3'],
    native: ['data=4 zero=1', 'data=2 tensor=2 zero=3'],
  },
}

for (const [name, { net, plans, native, pipelines = [] }] of Object.entries(cases)) {
  const { source, fill } = net
  const alone = ran(source, {}, fill)

  test(`integers, ${name}: no order of a sum's terms needs more than the 24 bits of f32`, async () => {
    const { inputs, func } = await alone
    const given = await compile(source.body, source.inputs, { target: 'reference' })
    fill(given)
    const sums = bitsOfSums(
      func,
      [...inputs.keys()].map((path) => given.view(path) as Float64Array),
    )
    assert.ok(sums.length > 5)
    for (const { what, bits } of sums) assert.ok(bits <= 24, `${what} needs ${bits} bits`)
  })

  test(`integers in float64, ${name}: every plan gives the bits of one device`, async () => {
    const one = await alone
    for (const path of one.outputs.keys()) {
      const values = Array.from(one.view(path))
      assert.ok(
        values.some((x) => x !== 0),
        `${path} is not all zeros`,
      )
      // Exact in f32, too.
      assert.ok(
        values.every((x) => Math.fround(x) === x && Math.abs(x) < 2 ** 24),
        path,
      )
    }
    for (const plan of plans) {
      assertAgree(plan, one, await ran(source, { parallel: spread(plan) }, fill), 0)
    }
  })

  if (pipelines.length > 0) {
    test(`integers in float64, ${name}: every pipeline leaves the bits of one device`, async () => {
      const one = await alone
      for (const [plan, ...schedule] of pipelines) {
        const many = await ran(source, { parallel: staged(net, plan, ...schedule) }, fill)
        for (const path of one.inputs.keys()) {
          if (path.startsWith('state.')) {
            assert.deepEqual(many.view(path), one.view(path), `${plan} ${schedule.join(' ')}: ${path}`)
          }
        }
      }
    })
  }

  test(`integers in f32, compiled, ${name}: every plan gives the bits of float64 on one device`, async () => {
    for (const plan of [null, ...native]) {
      const program = await compile(source.body, source.inputs, {
        threads: 1,
        ...(plan === null ? {} : { parallel: spread(plan) }),
      })
      fill(program)
      await program.run()
      assertAgree(`${plan}`, await alone, program, 0)
      program.close()
    }
  })
}
