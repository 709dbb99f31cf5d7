/**
 * The gradient of every differentiable op against central differences in float64, on random shapes, and the second
 * derivative of those that have one worth checking. No C compiler is involved: gradients are graph, which the op suite
 * already runs on every target.
 */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import type { Op, Sample } from '../graph/op.ts'
import { isFloat, valueType } from '../graph/types.ts'
import { randomSample } from '../random-samples.ts'
import { draw, gradientError, inFreshGraph, opCase, plainPolicies, weighted } from '../testing.ts'
import { runPipeline } from '../passes/pipeline.ts'
import { interpret } from '../targets/reference/interpret.ts'
import { grad, traceFunction } from '../trace/functions.ts'
import { Tensor } from '../trace/tensor.ts'
import { ops } from './index.ts'

const arbitrary = (op: Op): fc.Arbitrary<Sample> =>
  fc.gen().map((g) => randomSample(op, (min, max) => g(fc.integer, { min, max }), 4))

/** Rounding is not continuous: differences cannot see the derivative that it is given. */
const isSmooth = (op: Op, { inputs, attrs }: Sample): boolean =>
  op.name !== 'cast' || (isFloat(inputs[0]!.dtype) && attrs?.['to'] === 'f64')

const hasFloats = (op: Op): boolean =>
  op
    .samples()
    .some(
      ({ inputs, attrs }) =>
        inputs.some(({ dtype }) => isFloat(dtype)) &&
        op.infer(inputs, attrs ?? {}, []).some(({ dtype }) => isFloat(dtype)),
    )

const differentiable = ops.filter((op) => op.gradient && hasFloats(op) && op.name !== 'roundFp8')

for (const op of differentiable) {
  test(`gradient of ${op.name} equals differences`, () => {
    let checked = 0
    fc.assert(
      fc.property(arbitrary(op), fc.nat(1e6), (sample, seed) => {
        fc.pre(isSmooth(op, sample) && sample.inputs.some(({ dtype }) => isFloat(dtype)))
        checked++
        const error = gradientError(opCase(op, sample, 'x', seed))
        assert.ok(error < 1e-6, `${op.name}: error ${error}`)
      }),
      { numRuns: 25, seed: 1 },
    )
    assert.ok(checked >= 25)
  })
}

for (const name of [
  'exp',
  'log',
  'sin',
  'cos',
  'sqrt',
  'tanh',
  'erf',
  'mul',
  'div',
  'dot',
  'gather',
  'conv',
  'convInput',
  'convWeight',
  'groupedDot',
  'groupedOuter',
]) {
  test(`second derivative of ${name} equals differences`, () => {
    const op = ops.find((op) => op.name === name)!
    fc.assert(
      fc.property(arbitrary(op), fc.nat(1e6), (sample, seed) => {
        const [first] = sample.inputs
        fc.pre(isFloat(first!.dtype))
        // Powers up to the third, so that linear ops have a second derivative as well.
        const { types, data, build } = opCase(op, sample, 'x', seed)
        const cubed = {
          name,
          types,
          data,
          build: (xs: readonly Tensor[]) => build(xs).map((y) => y.mul(y).mul(y)),
        }
        const error = gradientError(cubed, { order: 2 })
        assert.ok(error < 1e-6, `${name}: error ${error}`)
      }),
      { numRuns: 12, seed: 2 },
    )
  })
}

test('a cast to a narrower type passes the gradient on, rounded to the type it came from', () => {
  const type = valueType('f32', [6])
  const func = inFreshGraph(() =>
    traceFunction('cast', { x: type }, (tree) => {
      const { x } = tree as { x: Tensor }
      return grad(weighted([x.cast('bf16')]), { x })
    }),
  ).func
  const [gradient] = interpret(runPipeline(func, plainPolicies), [draw(type, 3)])
  const weights = Float64Array.from({ length: 6 }, (_, i) => Math.sin(i * 1.7 + 0.3))
  // The cotangent arrives as bf16.
  gradient!.forEach((g, i) => assert.ok(Math.abs(g - weights[i]!) <= 2 ** -8 * Math.abs(weights[i]!), `${g}`))
  assert.notDeepEqual(gradient, weights)
})

test('ops without a gradient are the ones that cannot have one', () => {
  const without = ops.filter((op) => !op.gradient && op.kind !== 'structure').map(({ name }) => name)
  assert.deepEqual(without, ['mod'])
})
