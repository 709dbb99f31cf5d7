/**
 * Loss scaling: a power of two leaves the bits of unscaled gradients alone, a gradient that is not finite leaves the
 * whole state alone and halves the scale, good steps double it. The language recipe under fp16: tests/precision.test.ts.
 */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import {
  compile,
  grad,
  leaves,
  mapTree,
  valueType,
  type Program,
  type Tensor,
  type Tensorised,
} from '../compiler/index.ts'
import { allFinite, keepIf, lossScaleTypes, nextLossScale, unscaled } from './loss-scale.ts'
import { optimizers, optimizerState, groupedUpdate } from './optimizers.ts'

const f32 = (...shape: number[]) => valueType('f32', shape)
const wave = (size: number, rate: number): Float32Array =>
  Float32Array.from({ length: size }, (_, i) => Math.sin(i * rate) * 0.4)

test('a loss scale of 2^k leaves every bit of the unscaled gradients as it is while half precision holds them', async () => {
  const types = { x: f32(24, 40), w: f32(40, 40), v: f32(40, 9), scale: f32() }
  const body = ({ x, w, v, scale }: Tensorised<typeof types>) => {
    const loss = x.matmul(w).tanh().matmul(v).square().sum()
    return { gradients: unscaled(grad(loss.mul(scale), { w, v }), { scale, good: scale }) }
  }
  for (const precision of ['fp16', 'bf16'] as const) {
    const program = await compile(body, types, { precision, threads: 1 })
    const gradients = async (scale: number): Promise<Uint8Array[]> => {
      await program.run({ x: wave(960, 1.7), w: wave(1600, 2.3), v: wave(360, 0.9), scale: [scale] })
      return ['gradients.w', 'gradients.v'].map(
        (path) => new Uint8Array(Float32Array.from(program.view(path)).buffer),
      )
    }
    const want = await gradients(2 ** 7)
    assert.ok(want[0]!.some((byte) => byte !== 0))
    for (const k of [4, 6, 9, 11]) assert.deepEqual(await gradients(2 ** k), want, `${precision}, 2^${k}`)
    // Far below, gradients of activations lose digits in half precision, far above they overflow; bf16 does neither.
    const [below, above] = [await gradients(2 ** -16), await gradients(2 ** 30)]
    if (precision === 'bf16') assert.deepEqual([below, above], [want, want])
    else {
      assert.notDeepEqual(below, want)
      assert.ok(program.view('gradients.w').some((g) => !Number.isFinite(g)))
    }
    program.close()
  }
})

const parameters = { w: f32(3, 5), b: f32(5) }
const names = Object.entries(parameters)
const inputs = {
  state: {
    step: valueType('i32', []),
    params: parameters,
    optim: optimizerState(names, () => optimizers.adamw),
    lossScale: lossScaleTypes,
  },
  x: f32(4, 3),
  poison: f32(),
}

/** A step of AdamW under a loss scale that doubles after three good steps; `poison` is added to one gradient. */
function step({ state, x, poison }: Tensorised<typeof inputs>) {
  const { step, params, optim, lossScale } = state
  const loss = x.matmul(params.w).add(params.b).square().mean()
  const { w, b } = unscaled(grad(loss.mul(lossScale.scale), params), lossScale)
  const first = w.slice(0, 0, 1).slice(1, 0, 1).add(poison)
  const spoilt = w.add(
    first
      .sub(w.slice(0, 0, 1).slice(1, 0, 1))
      .pad(0, 0, 2)
      .pad(1, 0, 4),
  )
  const gradients = { w: spoilt, b }
  const finite = allFinite(gradients)
  const updated = groupedUpdate(
    leaves<Tensor>(params),
    new Map(leaves<Tensor>(gradients)),
    optim,
    step.cast('f32').add(1),
    () => ({ optimizer: optimizers.adamw, lr: poison.mul(0).add(0.1) }),
    { beta1: 0.9, beta2: 0.95, eps: 1e-8, momentum: 0, weightDecay: 0.1 },
  )
  const next = {
    step: step.add(1),
    params: mapTree<Tensor, Tensor>(params, (_, path) => updated.parameters.get(path)!) as typeof params,
    optim: updated.state as typeof optim,
  }
  return {
    state: {
      ...keepIf(finite, next, { step, params, optim }),
      lossScale: nextLossScale(lossScale, finite, { goodSteps: 3 }),
    },
  }
}

const kept = ['step', 'params.w', 'params.b', 'optim.w.m', 'optim.w.v', 'optim.b.m', 'optim.b.v']

function snapshot(program: Program, paths: readonly string[] = kept): number[][] {
  return paths.map((path) => Array.from(program.view(`state.${path}`)))
}

for (const target of ['reference', 'c'] as const) {
  test(`${target}: a gradient that is not finite leaves parameters, moments and step untouched and halves the scale`, async () => {
    const program = await compile(step, inputs, { target, threads: 1 })
    program.write('state.params.w', wave(15, 1.1))
    program.write('state.lossScale.scale', [1024])
    const run = (poison: number): Promise<void> => program.run({ x: wave(12, 0.7), poison: [poison] })
    const scale = (): number[] => snapshot(program, ['lossScale.scale', 'lossScale.good']).flat()
    await run(0)
    await run(0)
    assert.deepEqual(scale(), [1024, 2])
    for (const [i, poison] of [Infinity, -Infinity, NaN].entries()) {
      const before = snapshot(program)
      assert.ok(before[1]!.every(Number.isFinite) && before[3]!.some((m) => m !== 0))
      await run(poison)
      assert.deepEqual(snapshot(program), before)
      assert.deepEqual(scale(), [1024 / 2 ** (i + 1), 0])
    }
    const stuck = snapshot(program)
    await run(0)
    assert.deepEqual(snapshot(program)[0], [3])
    assert.notDeepEqual(snapshot(program), stuck)
    assert.deepEqual(scale(), [128, 1])
    await run(0)
    await run(0)
    assert.deepEqual(scale(), [256, 0])
    program.close()
  })

  test(`${target}: the scale stays between 1 and 2^24`, async () => {
    const program = await compile(step, inputs, { target, threads: 1 })
    const scaleAfter = async (start: number, good: number, poison: number): Promise<number> => {
      program.write('state.lossScale.scale', [start])
      program.write('state.lossScale.good', [good])
      await program.run({ x: wave(12, 0.7), poison: [poison] })
      return program.view('state.lossScale.scale')[0]!
    }
    assert.equal(await scaleAfter(1, 0, NaN), 1)
    assert.equal(await scaleAfter(2 ** 24, 2, 0), 2 ** 24)
    assert.equal(await scaleAfter(2 ** 23, 2, 0), 2 ** 24)
    program.close()
  })
}
