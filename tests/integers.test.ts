/**
 * Where every sum is exact, every plan gives the same bits: weights, inputs and learning rate are small integers and powers
 * of two, so no order of additions can matter, and what differs is a wrong value rather than rounding. In float64 on
 * simulated ranks, and in f32 as compiled for ranks that are threads.
 */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import {
  compile,
  full,
  grad,
  leaves,
  mapTree,
  scan,
  sizeOf,
  valueType,
  type AxisName,
  type Program,
  type Tensor,
  type Tensorised,
  type Tensors,
  type ValueType,
} from '../src/compiler/index.ts'
import { linear } from '../src/nn/layers.ts'
import { groupedUpdate, optimizers } from '../src/optim/optimizers.ts'
import type { Source } from '../src/train/programs.ts'
import { assertAgree, ran, spread } from './plans.ts'

const f32 = (shape: readonly number[], axes: readonly AxisName[]): ValueType => valueType('f32', shape, axes)

/** Two layers over a window, loss a sum of squares, one step of SGD. Mind the magnitudes: f32 has 24 bits. */
function exactStep(): Pick<Source, 'inputs' | 'body'> {
  const params = {
    layers: {
      up: f32([2, 8, 8], ['layer', 'embed', 'hidden']),
      bias: f32([2, 8], ['layer', 'hidden']),
      down: f32([2, 8, 8], ['layer', 'hidden', 'embed']),
    },
    head: f32([8, 8], ['embed', 'vocab']),
  }
  const inputs = {
    state: { params },
    x: f32([8, 8, 8], ['batch', 'time', 'embed']),
    y: f32([8, 8, 8], ['batch', 'time', 'vocab']),
  }
  const body = ({ state, x, y }: Tensorised<typeof inputs>): Tensors => {
    const { params } = state
    const [{ h }] = scan({ h: x }, params.layers, ({ h }, { up, bias, down }) => [
      { h: h.add(linear(linear(h, up, bias).max(0), down)) },
      {},
    ])
    const loss = linear(h, params.head).sub(y).square().sum().mul(0.5)
    const gradients = grad(loss, params)
    const updated = groupedUpdate(
      leaves<Tensor>(params),
      new Map(leaves<Tensor>(gradients)),
      {},
      full(1, valueType('f32', [])),
      () => ({ optimizer: optimizers.sgd, lr: full(1 / 64, valueType('f32', [])) }),
      { beta1: 0, beta2: 0, eps: 0, momentum: 0, weightDecay: 0 },
    )
    return {
      state: { params: mapTree<Tensor, Tensor>(params, (_, path) => updated.parameters.get(path)!) },
      loss,
      gradients,
    }
  }
  return { inputs, body: body as unknown as Source['body'] }
}

/** One element in four is 1, one is -1, the rest are 0. */
function fillIntegers(program: Program): void {
  let seed = 5
  const next = (): number => (seed = (seed * 16807) % 2147483647) % 4
  for (const [path, { shape }] of program.inputs) {
    program.write(
      path,
      Array.from({ length: sizeOf(shape) }, () => [1, -1, 0, 0][next()]!),
    )
  }
}

const plans = [
  'data=2',
  'data=8 zero=1',
  'data=4 zero=3',
  'tensor=2',
  'tensor=4 sequence',
  'context=2',
  'context=4 data=2 zero=2',
  'data=2 tensor=2 zero=2 sequence',
  'data=2 context=2 tensor=2 zero=3',
]

test('integers in float64: every plan gives the bits of one device', async () => {
  const source = exactStep()
  const one = await ran(source, {}, fillIntegers)
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
    assertAgree(plan, one, await ran(source, { parallel: spread(plan) }, fillIntegers), 0)
  }
})

test('integers in f32, compiled: every plan gives the bits of float64 on one device', async () => {
  const source = exactStep()
  const one = await ran(source, {}, fillIntegers)
  for (const plan of [null, 'data=2 zero=1', 'tensor=2 sequence', 'data=2 tensor=2 zero=3']) {
    const program = await compile(source.body, source.inputs, {
      threads: 1,
      ...(plan === null ? {} : { parallel: spread(plan) }),
    })
    fillIntegers(program)
    await program.run()
    assertAgree(`${plan}`, one, program, 0)
    program.close()
  }
})
