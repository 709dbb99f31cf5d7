/**
 * Adafactor and 8-bit AdamW: equal to an independent implementation (tests/fixtures/optimizers), exactly as many bytes of
 * state as promised, the same bits on any number of threads, and as good as AdamW on a small problem.
 */
import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { test } from 'node:test'
import {
  bytesOf,
  compile,
  grad,
  leaves,
  mapTree,
  philoxUniform,
  sizeOf,
  valueType,
  type CompileOptions,
  type Program,
  type Tensor,
  type Tensorised,
  type ValueType,
} from '../compiler/index.ts'
import {
  groupedUpdate,
  optimizers,
  optimizerState,
  type OptimizerName,
  type OptimizerOptions,
} from './optimizers.ts'

interface Case {
  readonly shape: readonly number[]
  readonly steps: number
  readonly lr: number
  readonly decay: number
  readonly parameter: readonly number[]
}
interface Reference {
  readonly signed: readonly number[]
  readonly unsigned: readonly number[]
  readonly adafactor: readonly (Case & {
    readonly relative: boolean
    readonly rows?: readonly number[]
    readonly columns?: readonly number[]
    readonly second?: readonly number[]
  })[]
  readonly adamw8bit: readonly (Case & {
    readonly beta1: number
    readonly beta2: number
    readonly eps: number
    readonly m: readonly number[]
    readonly v: readonly number[]
    readonly mScale: readonly number[]
    readonly vScale: readonly number[]
  })[]
}

const reference = JSON.parse(
  readFileSync(new URL('../../tests/fixtures/optimizers/reference.json', import.meta.url), 'utf8'),
) as Reference

const noise = (size: number, stream: number, scale: number): Float64Array =>
  Float64Array.from(
    { length: size },
    (_, i) => (philoxUniform({ seed: 1, step: 0, stream, salt: 0 }, i) - 0.5) * 2 * scale,
  )

const wave = (size: number, rate: number, scale: number): Float64Array =>
  Float64Array.from({ length: size }, (_, i) => Math.sin((i + 1) * rate) * scale)

/** A program of one update of one parameter, its gradient an input. */
function oneParameter(
  name: OptimizerName,
  type: ValueType,
  lr: number,
  options: Partial<OptimizerOptions>,
  compileOptions: CompileOptions,
): Promise<Program> {
  const optimizer = optimizers[name]
  const scalar = valueType(type.dtype, [])
  const inputs = { state: { count: scalar, x: type, optim: optimizer.state(type) }, g: type }
  return compile(
    ({ state, g }: Tensorised<typeof inputs>) => {
      const count = state.count.add(1)
      const scalars = { lr: count.mul(0).add(lr), count }
      const full = { beta1: 0.9, beta2: 0.95, eps: 1e-8, momentum: 0, weightDecay: 0, ...options }
      const next = optimizer.update(state.x, g, state.optim, scalars, full)
      return { state: { count, x: next.parameter, optim: next.state } }
    },
    inputs,
    compileOptions,
  )
}

const near = (got: ArrayLike<number>, want: readonly number[], limit: number, what: string): void => {
  assert.equal(got.length, want.length)
  want.forEach((value, i) =>
    assert.ok(
      Math.abs(got[i]! - value) <= limit * Math.max(1e-3, Math.abs(value)),
      `${what}[${i}]: ${got[i]}, not ${value}`,
    ),
  )
}

for (const [i, one] of reference.adafactor.entries()) {
  test(`adafactor equals the reference: [${one.shape}], relative step ${one.relative}`, async () => {
    const type = valueType('f64', one.shape)
    const options = { weightDecay: one.decay, relativeStep: one.relative }
    for (const target of ['reference', 'c'] as const) {
      const program = await oneParameter('adafactor', type, one.lr, options, {
        target,
        threads: 1,
        name: `af${i}`,
      })
      program.write('state.x', wave(sizeOf(type.shape), 0.7, 0.5))
      for (let t = 1; t <= one.steps; t++)
        await program.run({ g: wave(sizeOf(type.shape), 0.3 + 0.41 * t, 0.1 * t) })
      near(program.view('state.x'), one.parameter, 1e-11, 'parameter')
      for (const name of ['rows', 'columns', 'second'] as const)
        if (one[name]) near(program.view(`state.optim.${name}`), one[name], 1e-11, name)
      assert.equal(program.inputs.has('state.optim.second'), one.second !== undefined)
      program.close()
    }
  })
}

/** Gradients over many decades, as the fixture has them. */
const steep = (size: number, t: number): Float64Array =>
  wave(size, 0.3 + 0.41 * t, 0.1 * t).map((x, i) => x * 10 ** -(i % 6))

for (const [i, one] of reference.adamw8bit.entries()) {
  test(`8-bit AdamW equals the reference, codes and all: [${one.shape}]`, async () => {
    const type = valueType('f64', one.shape)
    const { beta1, beta2, eps, decay, lr } = one
    for (const target of ['reference', 'c'] as const) {
      const options = { beta1, beta2, eps, weightDecay: decay }
      const program = await oneParameter('adamw8bit', type, lr, options, {
        target,
        threads: 1,
        name: `a8${i}`,
      })
      program.write('state.x', wave(sizeOf(type.shape), 0.7, 0.5))
      for (let t = 1; t <= one.steps; t++) await program.run({ g: steep(sizeOf(type.shape), t) })
      for (const name of ['m', 'v'] as const)
        assert.deepEqual(Array.from(program.view(`state.optim.${name}`)), one[name], `${target} ${name}`)
      near(program.view('state.optim.mScale'), one.mScale, 1e-11, 'mScale')
      near(program.view('state.optim.vScale'), one.vScale, 1e-11, 'vScale')
      near(program.view('state.x'), one.parameter, 1e-9, 'parameter')
      program.close()
    }
    // Every part of the code is used.
    assert.ok(new Set(one.m).size > 25 && new Set(one.v).size > 15)
  })
}

test('state takes exactly as many bytes as promised', async () => {
  const bytes = (name: OptimizerName, shape: readonly number[]): number =>
    Object.values(optimizers[name].state(valueType('f32', shape))).reduce(
      (sum, type) => sum + bytesOf(type),
      0,
    )
  assert.equal(bytes('adamw', [300, 200]), 8 * 60_000)
  assert.equal(bytes('adafactor', [300, 200]), 4 * (300 + 200))
  assert.equal(bytes('adafactor', [6, 300, 200]), 4 * 6 * (300 + 200))
  assert.equal(bytes('adafactor', [70]), 4 * 70)
  assert.equal(bytes('adamw8bit', [300, 200]), 2 * 60_000 + 2 * 4 * Math.ceil(60_000 / 256))
  assert.equal(bytes('adamw8bit', [512]), 2 * 512 + 2 * 4 * 2)
  assert.equal(bytes('adamw8bit', []), 2 + 8)
  // And a program holds just that beside the parameter and the count.
  for (const name of ['adafactor', 'adamw8bit'] as const) {
    const type = valueType('f32', [300, 200])
    const program = await oneParameter(name, type, 0.1, {}, { target: 'text' })
    assert.equal(program.memory.stateBytes, bytesOf(type) + 4 + bytes(name, type.shape))
  }
})

test('the same bits on 1, 2 and 3 threads, and FLOPs as declared', async () => {
  for (const name of ['adafactor', 'adamw8bit'] as const) {
    const type = valueType('f32', [70, 90])
    const states: string[] = []
    for (const threads of [1, 2, 3]) {
      const program = await oneParameter(
        name,
        type,
        0.01,
        {},
        { threads, checking: true, name: `lean-${name}` },
      )
      program.write('state.x', wave(6300, 0.7, 0.5))
      await program.run({ g: steep(6300, 1) })
      assert.equal(program.countedFlops(), program.flops)
      await program.run({ g: steep(6300, 2) })
      states.push(JSON.stringify([...program.outputs.keys()].map((path) => Array.from(program.view(path)))))
      program.close()
    }
    assert.equal(new Set(states).size, 1)
  }
})

/** A two-layer network learns another one, at a falling rate: the mean loss of the last ten of 150 steps. */
async function learnt(
  name: OptimizerName,
  lr: number,
  options: Partial<OptimizerOptions> = {},
): Promise<number> {
  const parameters = {
    w: valueType('f32', [12, 24]),
    b: valueType('f32', [24]),
    v: valueType('f32', [24, 3]),
  }
  const inputs = {
    state: {
      count: valueType('f32', []),
      params: parameters,
      optim: optimizerState(Object.entries(parameters), () => optimizers[name]),
    },
    x: valueType('f32', [64, 12]),
    y: valueType('f32', [64, 3]),
  }
  const program = await compile(
    ({ state, x, y }: Tensorised<typeof inputs>) => {
      const { w, b, v } = state.params
      const loss = x.matmul(w).add(b).tanh().matmul(v).sub(y).square().mean()
      const count = state.count.add(1)
      const updated = groupedUpdate(
        leaves<Tensor>(state.params),
        new Map(leaves<Tensor>(grad(loss, state.params))),
        state.optim,
        count,
        () => ({
          optimizer: optimizers[name],
          lr: count
            .mul(-1 / 151)
            .add(1)
            .mul(lr),
        }),
        { beta1: 0.9, beta2: 0.95, eps: 1e-8, momentum: 0, weightDecay: 0, ...options },
      )
      const params = mapTree<Tensor, Tensor>(state.params, (_, path) => updated.parameters.get(path)!)
      return { state: { count, params, optim: updated.state }, loss }
    },
    inputs,
    { threads: 1, name: `learn-${name}` },
  )
  program.write('state.params.w', noise(288, 1, 0.4))
  program.write('state.params.v', noise(72, 2, 0.4))
  const [x, teacher, head] = [noise(64 * 12, 3, 1), noise(12 * 4, 4, 0.7), noise(12, 5, 1)]
  const y = Float64Array.from({ length: 64 * 3 }, (_, i) => {
    const [row, out] = [Math.floor(i / 3), i % 3]
    let sum = 0
    for (let h = 0; h < 4; h++) {
      let pre = 0
      for (let p = 0; p < 12; p++) pre += x[row * 12 + p]! * teacher[p * 4 + h]!
      sum += Math.tanh(pre) * head[h * 3 + out]!
    }
    return sum
  })
  const losses: number[] = []
  for (let step = 0; step < 150; step++) {
    await program.run({ x, y })
    losses.push(program.view('loss')[0]!)
  }
  program.close()
  assert.ok(losses[0]! > 0.1, `the first loss is ${losses[0]}`)
  return losses.slice(-10).reduce((a, b) => a + b) / 10
}

test('both learn a small problem about as well as AdamW', async () => {
  const adamw = await learnt('adamw', 0.01)
  assert.ok(adamw < 0.02, `adamw ${adamw}`)
  const eight = await learnt('adamw8bit', 0.01)
  assert.ok(Math.abs(eight - adamw) < 0.25 * adamw, `8 bits: ${eight}, 32 bits: ${adamw}`)
  for (const [lr, relativeStep] of [
    [0.02, false],
    [0.2, true],
  ] as const) {
    const lean = await learnt('adafactor', lr, { relativeStep })
    assert.ok(lean < 1.2 * adamw, `adafactor, relative step ${relativeStep}: ${lean}, adamw: ${adamw}`)
  }
})
