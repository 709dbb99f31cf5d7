/**
 * Where every sum is exact, every plan gives the same bits: what differs is a wrong value rather than rounding. Loss,
 * gradients and parameters of a step (integer-nets.ts), in float64 on simulated ranks, and in f32 as compiled for ranks
 * that are threads.
 */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { compile } from '../src/compiler/index.ts'
import { convolutional, layered, textual, type Net } from './integer-nets.ts'
import { assertAgree, ran, spread } from './plans.ts'

interface Case {
  readonly net: Net
  /** On simulated ranks, in float64. */
  readonly plans: readonly string[]
  /** As compiled, in f32; one device, too. Not of every net: some partial sums need more than 24 bits. */
  readonly native?: readonly string[]
}

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
const cases: Readonly<Record<string, Case>> = {
  layers: {
    net: layered(),
    plans: [...dense, ...withTime],
    native: ['data=2 zero=1', 'tensor=2 sequence', 'data=2 tensor=2 zero=3'],
  },
  'a language model': {
    net: textual(),
    plans: [...dense, ...withTime, ...withAttention],
  },
  'a convolutional net': {
    net: convolutional(),
    plans: [...dense, 'tensor=8', 'data=2 tensor=2 zero=2', 'data=4 tensor=2 zero=3'],
    native: ['data=4 zero=1', 'tensor=2', 'data=2 tensor=2 zero=3'],
  },
}

for (const [name, { net, plans, native }] of Object.entries(cases)) {
  const { source, fill } = net
  const alone = ran(source, {}, fill)

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

  if (!native) continue
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
