/**
 * A mixture of experts against loops written out by hand, forward and backward; against the dense MLP that one expert is;
 * and what balances the load: the auxiliary loss by its formula, the bias by what it does to a router that prefers one
 * expert, the capacity by who is dropped.
 */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { isDeepStrictEqual } from 'node:util'
import {
  compile,
  full,
  grad,
  valueType,
  type Program,
  type Tensor,
  type Tensorised,
  type ValueType,
} from '../../compiler/index.ts'
import { draw, gradientError, worstError } from '../../compiler/testing.ts'
import { dense, parseStoredConfig, resolveConfig } from './config.ts'
import { balanceLoss, capacityOf, mixture, movedBias, type ExpertConfig } from './experts.ts'
import { countParameters, forward, parameterTypes, type ModelConfig } from './model.ts'

const base = {
  size: 'nano',
  block: 'modern',
  layers: 2,
  width: 24,
  heads: 4,
  kvHeads: 4,
  context: 20,
  dropout: 0,
} as const
const config = (settings: Partial<ExpertConfig> = {}): ExpertConfig => ({
  ...base,
  ...dense,
  experts: 4,
  topK: 2,
  expertHidden: 12,
  ...settings,
})
const activation = (x: Tensor): Tensor => x.max(0).square()

const [batch, time, width] = [2, 5, 6]
const types = ({ experts, expertHidden }: ExpertConfig): Record<string, ValueType> => ({
  x: valueType('f64', [batch, time, width], ['batch', 'time', 'embed']),
  router: valueType('f64', [width, experts], ['embed', 'expert']),
  bias: valueType('f64', [experts], ['expert']),
  up: valueType('f64', [experts, width, expertHidden], ['expert', 'embed', 'hidden']),
  down: valueType('f64', [experts, expertHidden, width], ['expert', 'hidden', 'embed']),
})
const dataOf = (model: ExpertConfig): Record<string, Float64Array> =>
  Object.fromEntries(
    Object.entries(types(model)).map(([name, type], i) => {
      const limit = name === 'bias' ? 0.1 : 1
      return [name, draw(type, 40 + i, [-limit, limit])]
    }),
  )

/** Runs a function of the weights of one layer in float64. */
async function inFloat64(
  model: ExpertConfig,
  body: (given: Record<string, Tensor>) => Record<string, Tensor>,
): Promise<Program> {
  const program = await compile(
    (given: Tensorised<Record<string, ValueType>>) => body(given as Record<string, Tensor>),
    types(model),
    { target: 'reference' },
  )
  await program.run(dataOf(model))
  return program
}

const mixed = (given: Record<string, Tensor>, model: ExpertConfig, limited = false) => {
  const { x, ...w } = given as { x: Tensor; router: Tensor; bias: Tensor; up: Tensor; down: Tensor }
  return mixture(x, w, model, activation, limited)
}

/** One token through the mixture, forward and backward, as loops. `g`: gradient of the result. */
function byHand(model: ExpertConfig, data: Record<string, Float64Array>, g: Float64Array) {
  const { experts, topK, expertHidden: hidden, routing } = model
  const { x, router, bias, up, down } = data as Record<'x' | 'router' | 'bias' | 'up' | 'down', Float64Array>
  const out = new Float64Array(x.length)
  const grads = {
    x: x.map(() => 0),
    router: router.map(() => 0),
    up: up.map(() => 0),
    down: down.map(() => 0),
  }
  const load = new Float64Array(experts)
  for (let t = 0; t < batch * time; t++) {
    const row = x.subarray(t * width, (t + 1) * width)
    const dOut = g.subarray(t * width, (t + 1) * width)
    const logits = Array.from({ length: experts }, (_, e) =>
      row.reduce((sum, value, i) => sum + value * router[i * experts + e]!, 0),
    )
    const raised = logits.map((s) => Math.exp(s))
    const all = raised.reduce((a, b) => a + b)
    const scores =
      routing === 'softmax' ? raised.map((s) => s / all) : logits.map((s) => 1 / (1 + Math.exp(-s)))
    const chosen = scores
      .map((score, e) => ({ e, by: score + bias[e]! }))
      .toSorted((a, b) => b.by - a.by || a.e - b.e)
      .slice(0, topK)
      .map(({ e }) => e)
    const sum = chosen.reduce((total, e) => total + scores[e]!, 0)
    const dScores = scores.map(() => 0)
    const dots = new Map<number, number>()
    for (const e of chosen) {
      load[e]!++
      const weight = scores[e]! / sum
      const at = (i: number, h: number): number => (e * width + i) * hidden + h
      const to = (h: number, i: number): number => (e * hidden + h) * width + i
      const before = Array.from({ length: hidden }, (_, h) =>
        row.reduce((a, v, i) => a + v * up[at(i, h)]!, 0),
      )
      const active = before.map((v) => Math.max(v, 0) ** 2)
      const y = Array.from({ length: width }, (_, i) =>
        active.reduce((a, v, h) => a + v * down[to(h, i)]!, 0),
      )
      y.forEach((value, i) => (out[t * width + i]! += weight * value))
      dots.set(
        e,
        y.reduce((a, value, i) => a + value * dOut[i]!, 0),
      )
      const dBefore = before.map((v, h) => {
        let dActive = 0
        for (let i = 0; i < width; i++) {
          dActive += weight * dOut[i]! * down[to(h, i)]!
          grads.down[to(h, i)]! += weight * dOut[i]! * active[h]!
        }
        return dActive * 2 * Math.max(v, 0)
      })
      dBefore.forEach((d, h) => {
        for (let i = 0; i < width; i++) {
          grads.up[at(i, h)]! += row[i]! * d
          grads.x[t * width + i]! += d * up[at(i, h)]!
        }
      })
    }
    // weight_e = s_e / sum: its derivative by s_f is (e == f ? 1 : -weight_e... ) / sum.
    const mean = [...dots].reduce((total, [e, dot]) => total + (dot * scores[e]!) / sum, 0)
    for (const [e, dot] of dots) dScores[e] = (dot - mean) / sum
    const inner = scores.reduce((total, s, e) => total + s * dScores[e]!, 0)
    scores.forEach((s, e) => {
      const dLogit = routing === 'softmax' ? s * (dScores[e]! - inner) : dScores[e]! * s * (1 - s)
      for (let i = 0; i < width; i++) {
        grads.router[i * experts + e]! += row[i]! * dLogit
        grads.x[t * width + i]! += dLogit * router[i * experts + e]!
      }
    })
  }
  return { out, grads, load }
}

for (const routing of ['softmax', 'sigmoid'] as const) {
  test(`four experts, two a token, ${routing}: result, load and every gradient as by hand`, async () => {
    const model = config({ routing })
    const g = draw(types(model)['x']!, 99)
    const program = await compile(
      (given: Tensorised<Record<string, ValueType>>) => {
        const { g: weights, ...rest } = given as Record<string, Tensor>
        const { y, routing: routed } = mixed(rest, model)
        return { y, load: routed.load, d: grad(y.mul(weights!).sum(), rest) }
      },
      { ...types(model), g: types(model)['x']! },
      { target: 'reference' },
    )
    await program.run({ ...dataOf(model), g })
    const { out, grads, load } = byHand(model, dataOf(model), g)
    assert.ok(worstError(program.view('y'), out) < 1e-12)
    assert.deepEqual(Array.from(program.view('load')), [...load])
    assert.equal(
      load.reduce((a, b) => a + b),
      batch * time * model.topK,
    )
    assert.ok(Math.max(...load) < batch * time, 'choices differ from token to token')
    for (const [name, want] of Object.entries(grads))
      assert.ok(worstError(program.view(`d.${name}`), want) < 1e-11, name)
    // The bias decides who is chosen, and nothing else.
    assert.deepEqual([...program.view('d.bias')], [0, 0, 0, 0])
  })

  test(`gradients of a mixture equal differences, ${routing}`, () => {
    for (const topK of [1, 2, 4]) {
      const model = config({ routing, topK, sharedExperts: 0 })
      const own = Object.entries(types(model))
      const error = gradientError({
        name: 'mixture',
        types: own.map(([, type]) => type),
        data: Object.values(dataOf(model)),
        build: (inputs) => {
          const given = Object.fromEntries(own.map(([name], i) => [name, inputs[i]!]))
          const { y, routing: routed } = mixed(given, model)
          return [y, balanceLoss(routed, model)]
        },
      })
      assert.ok(error < 1e-6, `top ${topK}: ${error}`)
    }
  })
}

test('the auxiliary loss is E times the sum of f P, and 1 when the load is even', async () => {
  const type = valueType('f64', [4], ['expert'])
  const program = await compile(
    ({ load, importance }: { load: Tensor; importance: Tensor }) => ({
      loss: balanceLoss({ load, importance }, config()),
    }),
    { load: type, importance: type },
    { target: 'reference' },
  )
  await program.run({ load: [12, 4, 3, 1], importance: [5, 3, 1, 1] })
  const byHand = 4 * ((12 / 20) * 0.5 + (4 / 20) * 0.3 + (3 / 20) * 0.1 + (1 / 20) * 0.1)
  assert.ok(Math.abs(program.view('loss')[0]! - byHand) < 1e-14)
  await program.run({ load: [5, 5, 5, 5], importance: [7, 1, 1, 1] })
  assert.ok(Math.abs(program.view('loss')[0]! - 1) < 1e-14)
})

test('the bias evens the load of a router that prefers one expert', async () => {
  const [tokens, experts] = [256, 8]
  const model = config({ experts, topK: 2, expertHidden: 8 })
  const inputs = {
    state: { bias: valueType('f32', [experts], ['expert']) },
    x: valueType('f32', [1, tokens, width], ['batch', 'time', 'embed']),
    router: valueType('f32', [width, experts], ['embed', 'expert']),
  }
  const program = await compile(
    ({ state, x, router }: Tensorised<typeof inputs>) => {
      const weight = (a: string, b: string, shape: number[]): Tensor =>
        full(0, valueType('f32', [experts, ...shape], ['expert', a, b]))
      const [up, down] = [weight('embed', 'hidden', [width, 8]), weight('hidden', 'embed', [8, width])]
      const { routing } = mixture(x, { router, bias: state.bias, up, down }, model, activation, false)
      return { state: { bias: movedBias(state.bias, routing.load, 0.001) }, load: routing.load }
    },
    inputs,
    { threads: 1 },
  )
  // The first coordinate of every token is 1, and the first two experts like it.
  const router = draw(inputs.router, 5, [-0.5, 0.5])
  router.set([3, 2], 0)
  program.write('router', router)
  // Of one step the load is a draw of 512 choices, so what it is on average is summed over a hundred.
  const early = new Float64Array(experts)
  const late = new Float64Array(experts)
  for (let step = 0; step < 800; step++) {
    const x = draw(inputs.x, 100 + step, [-1, 1])
    for (let t = 0; t < tokens; t++) x[t * width] = 1
    await program.run({ x })
    const sums = step < 10 ? early : step >= 700 ? late : undefined
    if (sums) program.view('load').forEach((count, e) => (sums[e]! += count))
  }
  program.close()
  const uneven = (load: Float64Array): number => (Math.max(...load) * experts) / load.reduce((a, b) => a + b)
  assert.equal(
    late.reduce((a, b) => a + b),
    100 * 2 * tokens,
  )
  assert.ok(uneven(early) > 3, `at first ${uneven(early)}`)
  assert.ok(uneven(late) < 1.05, `at last ${uneven(late)}`)
})

test('a capacity drops the later tokens of a full expert, and nothing without one', async () => {
  const model = config({ capacity: 0.75 })
  const most = capacityOf(model, batch * time)
  assert.equal(most, 4)
  const programs = await Promise.all(
    [true, false].map((limited) => inFloat64(model, (given) => ({ y: mixed(given, model, limited).y }))),
  )
  const [dropping, keeping] = programs.map((program) => program.view('y')) as [Float64Array, Float64Array]
  const { out, load } = byHand(model, dataOf(model), new Float64Array(batch * time * width))
  assert.ok(worstError(keeping, out) < 1e-12)
  assert.ok(Math.max(...load) > most, 'an expert overflows')
  // Every expert's first `most` tokens stay: as long as all of them have room, tokens are what they were.
  const rows = (y: Float64Array, t: number): number[] => [...y.subarray(t * width, (t + 1) * width)]
  assert.deepEqual(rows(dropping, 0), rows(keeping, 0))
  const changed = Array.from({ length: batch * time }, (_, t) => t).filter(
    (t) => worstError(rows(dropping, t), rows(keeping, t)) > 0,
  )
  assert.ok(changed.length > 0 && changed.every((t) => t >= most))
})

test('one expert is the dense MLP, bit for bit in C and in float64', async () => {
  const plain: ModelConfig = { ...base, ...dense, vocab: 19 }
  const single: ModelConfig = { ...plain, experts: 1, topK: 1, expertHidden: 4 * base.width }
  for (const [target, threads] of [
    ['reference', 1],
    ['c', 2],
  ] as const) {
    const logits = []
    for (const model of [plain, single]) {
      const inputs = { params: parameterTypes(model), tokens: valueType('i32', [2, 20], ['batch', 'time']) }
      const body = ({ params, tokens }: Tensorised<typeof inputs>) => {
        const y = forward(params, tokens, model)
        const { up, down } = params.layers.mlp
        return { y, d: grad(y.mul(y).sum(), { up, down, o: params.layers.attn.o }) }
      }
      const program = await compile(body, inputs, { target, threads })
      for (const [path, type] of program.inputs) {
        // Drawn by name, so that both models get the same; the bias is zero, as it starts.
        const seed = [...path].reduce((sum, letter) => sum * 31 + letter.charCodeAt(0), 7) % 1e6
        const limit = path.endsWith('bias') ? 0 : 0.4
        if (path !== 'tokens') program.write(path, draw(type, seed, [-limit, limit]))
      }
      await program.run({ tokens: Array.from({ length: 40 }, (_, i) => (i * 7 + (i >> 2)) % 19) })
      logits.push(['y', 'd.up', 'd.down', 'd.o'].map((path) => program.view(path).slice()))
      program.close()
    }
    assert.ok(isDeepStrictEqual(logits[0], logits[1]), target)
  }
})

test('parameters, all and active', () => {
  const { model } = resolveConfig({ model: { experts: 8, topK: 2, sharedExperts: 1 } })
  assert.equal(model.expertHidden, 80)
  const { parameters, activeParameters } = countParameters({ ...model, vocab: 65 })
  const plain = countParameters({ ...resolveConfig({}).model, vocab: 65 })
  const expert = 2 * 64 * 80
  const rest = plain.parameters - 3 * 2 * 64 * 256 + 3 * (64 * 8 + expert)
  assert.equal(parameters, rest + 3 * 8 * expert)
  assert.equal(activeParameters, rest + 3 * 2 * expert)
  assert.equal(plain.activeParameters, plain.parameters)
})

test('a run from before there were experts is read as a dense model', () => {
  const config = resolveConfig({})
  const { model } = config
  const old = Object.fromEntries(Object.entries(model).filter(([key]) => !(key in dense)))
  assert.deepEqual(parseStoredConfig({ ...config, model: old }, 'here'), config)
  assert.throws(() => resolveConfig({ model: { experts: 4, topK: 5 } }), /at most model\.experts=4/)
  assert.throws(() => resolveConfig({ model: { topK: 2 } }), /model\.experts/)
})
