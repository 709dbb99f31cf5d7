/**
 * The composite suite. A composite's body, run in float64, is its meaning; everything else about it is compared with
 * that: the C program (a kernel of its own where the target claims the name, the inlined body elsewhere), the gradient
 * (its own where it has one), and the FLOPs it declares against those a checking build counts.
 */
import assert from 'node:assert/strict'
import { before, test } from 'node:test'
import { UserError } from '../../errors.ts'
import { valueType, type DType, type ValueType } from '../graph/types.ts'
import { claimed } from '../targets/c/kernels.ts'
import {
  draw,
  gradientError,
  runCases,
  withFloat,
  worstError,
  type Case,
  type GradientCheck,
  type Outcome,
} from '../testing.ts'
import { grad } from '../trace/functions.ts'
import { attention, attentionWithLse, visiblePairs } from './attention.ts'
import { invoke, type Composite, type CompositeSample } from './composite.ts'
import { crossEntropy } from './cross-entropy.ts'
import { compositeByName, composites } from './index.ts'

process.env['ANNEAL_OPTIMIZE'] = '3' // as users' programs are compiled

function caseOf(
  composite: Composite,
  sample: CompositeSample,
  name: string,
  seed: number,
  dtype: DType,
): Case {
  const types = sample.inputs.map((type) => withFloat(type, dtype))
  return {
    name,
    types,
    data: types.map((type, i) => draw(type, seed * 16 + i, sample.ranges?.[i])),
    build: (inputs) => invoke(composite, inputs, sample.options),
  }
}

const casesOf = (composite: Composite, dtype: DType): Case[] =>
  composite.samples().map((sample, i) => caseOf(composite, sample, `${composite.name}_${i}`, i, dtype))

/** Inlined composites share one program; one with a kernel of its own has its own, so that a defect names it. */
const groups: readonly (readonly Composite[])[] = [
  composites.filter(({ name }) => !claimed(name)),
  ...composites.filter(({ name }) => claimed(name)).map((composite) => [composite]),
]

const tolerance = { f64: 1e-12, f32: 3e-6 } as const

/** f32 rounding grows along the quintic Newton-Schulz steps, whose coefficients reach 4.8. */
const f32Tolerance: Readonly<Record<string, number>> = { muon: 1e-4 }

for (const group of groups) {
  const name = group.length > 1 ? 'inlined composites' : group[0]!.name
  const cases = (dtype: DType): Case[] => group.flatMap((composite) => casesOf(composite, dtype))
  let reference: Outcome
  const compiled = new Map<string, Promise<Outcome>>()
  const outcome = (dtype: 'f64' | 'f32', checking = false): Promise<Outcome> => {
    const key = `${dtype} ${checking}`
    const running = compiled.get(key) ?? runCases(cases(dtype), { threads: 2, checking, name: 'composites' })
    compiled.set(key, running)
    return running
  }

  before(async () => {
    reference = await runCases(cases('f64'), { target: 'reference' })
  })

  for (const composite of group) {
    for (const dtype of ['f64', 'f32'] as const) {
      test(`${composite.name} in C equals its body, ${dtype}`, async () => {
        const { results } = await outcome(dtype)
        const limit = dtype === 'f32' ? (f32Tolerance[composite.name] ?? tolerance.f32) : tolerance.f64
        for (const { name: key } of casesOf(composite, dtype)) {
          const want = reference.results.get(key)!
          assert.ok(want.length > 0)
          results.get(key)!.forEach((got, i) => {
            const error = worstError(got, want[i]!)
            assert.ok(error <= limit, `${key}, result ${i}: error ${error}`)
          })
        }
      })
    }
  }

  test(`${name}: counted FLOPs equal the declared ones`, async () => {
    const { program } = await outcome('f32', true)
    assert.ok(program.flops > 0)
    assert.equal(program.countedFlops(), program.flops)
  })
}

/** What has a gradient: tables, targets and saved values are constants. */
const differentiated: Readonly<Record<string, GradientCheck>> = {
  rope: { wrt: [0] },
  // Straight through by definition: fp8.test.ts.
  quantise: { wrt: [] },
  dotFp8: { wrt: [] },
}

for (const composite of composites) {
  composite.samples().forEach((sample, i) => {
    test(`gradient of ${composite.name} ${JSON.stringify(sample.options ?? {})} equals differences, sample ${i}`, () => {
      const error = gradientError(
        caseOf(composite, sample, 'x', 50 + i, 'f64'),
        differentiated[composite.name],
      )
      assert.ok(error < 1e-6, `error ${error}`)
    })
  })
}

test('the gradient of cross-entropy with respect to either result, alone, equals differences', () => {
  const composite = compositeByName.get('crossEntropy')!
  composite.samples().forEach((sample, i) => {
    const one = caseOf(composite, sample, 'x', 70 + i, 'f64')
    for (const result of [0, 1]) assert.ok(gradientError(one, { results: [result] }) < 1e-6)
  })
})

test('a composite can be differentiated twice where its gradient is primitives', () => {
  for (const name of ['gelu', 'silu', 'layerNorm', 'rmsNorm', 'crossEntropy']) {
    const composite = compositeByName.get(name)!
    const error = gradientError(caseOf(composite, composite.samples()[0]!, 'x', 90, 'f64'), { order: 2 })
    assert.ok(error < 1e-6, `${name}: error ${error}`)
  }
})

test('names are unique, and every composite says what it is and has samples', () => {
  assert.equal(compositeByName.size, composites.length)
  for (const { name, doc, samples } of composites) assert.ok(doc.length > 0 && samples().length > 0, name)
})

// Meaning, against formulas written out here: a wrong body would otherwise agree with itself.

const f64 = (...shape: number[]): ValueType => valueType('f64', shape)
const scalar = (value: number): [ValueType, number[]] => [f64(), [value]]
const one = (value: number): [ValueType, number[]] => [f64(1), [value]]

/** Runs one composite on given values in the reference. */
async function run(
  name: string,
  inputs: readonly (readonly [ValueType, readonly number[]])[],
  options = {},
): Promise<number[][]> {
  const only: Case = {
    name,
    types: inputs.map(([type]) => type),
    data: inputs.map(([, values]) => Float64Array.from(values)),
    build: (xs) => invoke(compositeByName.get(name)!, xs, options),
  }
  const { results } = await runCases([only], { target: 'reference' })
  return results.get(name)!.map((values) => Array.from(values))
}

const close = (got: readonly number[], want: readonly number[], limit = 1e-12): void => {
  const error = worstError(got, want)
  assert.ok(error <= limit, `got ${got.join(', ')}; expected ${want.join(', ')}`)
}

test('layer norm and RMS norm normalise', async () => {
  const [layer] = await run(
    'layerNorm',
    [
      [f64(1, 4), [1, 2, 3, 6]],
      [f64(4), [1, 1, 1, 2]],
      [f64(4), [0, 0, 0, 1]],
    ],
    { eps: 0 },
  )
  close(
    layer!,
    [-2, -1, 0, 6].map((x, i) => x / Math.sqrt(3.5) + (i === 3 ? 1 : 0)),
  )
  const [rms] = await run('rmsNorm', [[f64(1, 4), [1, 1, 5, 3]]], { eps: 0 })
  close(
    rms!,
    [1, 1, 5, 3].map((x) => x / 3),
  )
})

test('gelu and silu at known points', async () => {
  const [exact] = await run('gelu', [[f64(3), [-1, 0, 2]]], { form: 'erf' })
  close(exact!, [-0.15865525393145707, 0, 1.9544997361036416], 1e-12)
  const [tanh] = await run('gelu', [[f64(3), [-1, 0, 2]]], { form: 'tanh' })
  close(tanh!, [-0.15880800939172324, 0, 1.954597694087775], 1e-12)
  const [silu] = await run('silu', [[f64(2), [0, 3]]])
  close(silu!, [0, 3 / (1 + Math.exp(-3))])
})

test('cross-entropy is -log softmax at the target, also for large logits', async () => {
  const [loss, logSum] = await run('crossEntropy', [
    [f64(2, 3), [1, 2, 3, 1000, 0, 999]],
    [valueType('i32', [2]), [2, 0]],
  ])
  const first = Math.log(Math.exp(1) + Math.exp(2) + Math.exp(3))
  close(loss!, [first - 3, Math.log(1 + Math.exp(-1))])
  close(logSum!, [first, 1000 + Math.log(1 + Math.exp(-1))])
})

test('rope turns each pair by its angle and undoes it by the opposite one', async () => {
  const [c, s] = [Math.cos(0.3), Math.sin(0.3)]
  const [turned] = await run('rope', [
    [f64(1, 1, 1, 2), [2, 5]],
    [f64(1, 1), [c]],
    [f64(1, 1), [s]],
  ])
  close(turned!, [2 * c - 5 * s, 5 * c + 2 * s])
})

test('adamw follows the paper', async () => {
  const options = { beta1: 0.9, beta2: 0.99, eps: 1e-8, weightDecay: 0.1 }
  const [parameter, m, v] = await run(
    'adamw',
    [
      one(2),
      one(0.5),
      one(0.1),
      one(0.2),
      scalar(0.01),
      scalar(1 / (1 - 0.9 ** 3)),
      scalar(1 / (1 - 0.99 ** 3)),
    ],
    options,
  )
  const [nextM, nextV] = [0.9 * 0.1 + 0.1 * 0.5, 0.99 * 0.2 + 0.01 * 0.25]
  const step = nextM / (1 - 0.9 ** 3) / (Math.sqrt(nextV / (1 - 0.99 ** 3)) + 1e-8)
  close(m!, [nextM])
  close(v!, [nextV])
  close(parameter!, [2 - 0.01 * 0.1 * 2 - 0.01 * step])
})

for (const [inputs, outputs] of [
  [3, 5],
  [5, 3],
] as const) {
  test(`muon makes an update of [${inputs}, ${outputs}] nearly orthogonal, scaled by sqrt(max(1, out / in))`, async () => {
    const type = f64(inputs, outputs)
    const zero = Array.from({ length: inputs * outputs }, () => 0)
    const gradient = Array.from(draw(type, 4))
    const [update] = await run(
      'muon',
      [
        [type, zero],
        [type, gradient],
        [type, zero],
        [f64(), [-1]],
      ],
      { momentum: 0.95, weightDecay: 0 },
    )
    // These coefficients bring singular values to between 0.68 and 1.13, and not to 1: their squares are the eigenvalues
    // of the Gram matrix of the shorter side, and bound its diagonal.
    const tall = inputs > outputs
    const [short, long] = tall ? [outputs, inputs] : [inputs, outputs]
    const at = (i: number, k: number): number => update![tall ? k * outputs + i : i * outputs + k]!
    for (let i = 0; i < short; i++) {
      for (let j = 0; j < short; j++) {
        let product = 0
        for (let k = 0; k < long; k++) product += at(i, k) * at(j, k)
        product /= Math.max(1, outputs / inputs)
        if (i === j) assert.ok(product > 0.45 && product < 1.3, `vector ${i} has squared length ${product}`)
        else assert.ok(Math.abs(product) < 0.42, `vectors ${i} and ${j} have product ${product}`)
      }
    }
  })
}

interface AttentionCall {
  readonly causal: boolean
  readonly window: number
  readonly scale: number
  readonly bias?: boolean
  readonly mask?: boolean
}

/** Attention one query at a time, as the paper writes it. */
function plainAttention(
  types: readonly ValueType[],
  [q, k, v, ...rest]: readonly Float64Array[],
  { causal, window, scale, ...given }: AttentionCall,
): number[] {
  const [batch, queries, heads, dim] = types[0]!.shape as [number, number, number, number]
  const [, keys, kvHeads] = types[1]!.shape as [number, number, number]
  const out: number[] = []
  /** Element of a bias or mask that may be shared along any axis. */
  const pair = (n: number, at: readonly number[]): number =>
    rest[n]![
      types[3 + n]!.shape.reduce((sum, extent, axis) => sum * extent + (extent === 1 ? 0 : at[axis]!), 0)
    ]!
  for (let b = 0; b < batch; b++) {
    for (let t = 0; t < queries; t++) {
      for (let h = 0; h < heads; h++) {
        const group = Math.floor(h / (heads / kvHeads))
        const position = t + keys - queries
        const at = (x: Float64Array, s: number, d: number): number =>
          x[((b * keys + s) * kvHeads + group) * dim + d]!
        const weights = Array.from({ length: keys }, (_, s) => {
          if (((causal || window > 0) && s > position) || (window > 0 && s <= position - window)) return 0
          if (given.mask && pair(rest.length - 1, [b, h, t, s]) === 0) return 0
          let score = 0
          for (let d = 0; d < dim; d++) score += q![((b * queries + t) * heads + h) * dim + d]! * at(k!, s, d)
          return Math.exp(score * scale + (given.bias ? pair(0, [b, h, t, s]) : 0))
        })
        const total = weights.reduce((x, y) => x + y)
        for (let d = 0; d < dim; d++)
          out.push(weights.reduce((sum, w, s) => sum + (w / (total || 1)) * at(v!, s, d), 0))
      }
    }
  }
  return out
}

test('attention equals the formula, one query at a time', async () => {
  const composite = compositeByName.get('attention')!
  const cases = casesOf(composite, 'f64')
  const { results } = await runCases(cases, { target: 'reference' })
  composite.samples().forEach(({ inputs, options }, i) => {
    const { data, name } = cases[i]!
    close(
      Array.from(results.get(name)![0]!),
      plainAttention(inputs, data, options as unknown as AttentionCall),
    )
  })
})

test('a query that the mask hides everything from gives 0 and passes no gradient', async () => {
  const types = [f64(1, 2, 1, 4), f64(1, 3, 1, 4), f64(1, 3, 1, 4), valueType('bool', [2, 3])]
  const data = types.map((type, i) => draw(type, i))
  data[3] = Float64Array.of(0, 0, 0, 1, 0, 1)
  const only: Case = {
    name: 'hidden',
    types,
    data,
    build: ([q, k, v, mask]) => {
      const out = attention(q!, k!, v!, { causal: false, mask: mask! })
      return [out, ...Object.values(grad(out.square().sum(), { q: q!, k: k!, v: v! }))]
    },
  }
  const [reference, program] = await Promise.all([
    runCases([only], { target: 'reference' }),
    runCases([only], { threads: 2, name: 'hidden' }),
  ])
  for (const { results } of [reference, program]) {
    const [out, dq, dk] = results.get('hidden')!
    assert.deepEqual(Array.from(out!).slice(0, 4), [0, 0, 0, 0])
    assert.deepEqual(Array.from(dq!).slice(0, 4), [0, 0, 0, 0])
    assert.ok(Array.from(dq!).slice(4).every(Number.isFinite) && Math.abs(dq![4]!) > 0)
    assert.deepEqual(Array.from(dk!).slice(4, 8), [0, 0, 0, 0])
  }
  reference.results.get('hidden')!.forEach((want, i) => {
    assert.ok(worstError(program.results.get('hidden')![i]!, want) < 1e-12)
  })
})

for (const dtype of ['f64', 'f32'] as const) {
  test(`attention of several blocks with bias and mask, its log-sum-exp and all gradients, ${dtype}`, async () => {
    const [q, kv] = [valueType(dtype, [2, 70, 4, 8]), valueType(dtype, [2, 150, 2, 8])]
    const shapes = [
      [4, 70, 150],
      [2, 1, 1, 150],
      [70, 1],
    ]
    const cases: Case[] = shapes.map((shape, i) => {
      const types = [q, kv, kv, valueType(dtype, shape), valueType('bool', [2, 1, 70, 150])]
      return {
        name: `shape${i}`,
        types,
        data: types.map((type, n) => draw(type, 30 + n)),
        build: ([q, k, v, bias, mask]) => {
          const { out, lse } = attentionWithLse(q!, k!, v!, {
            causal: i !== 1,
            window: i === 2 ? 60 : 0,
            bias: bias!,
            mask: mask!,
          })
          const loss = out.square().sum().add(lse.sin().sum())
          return [out, lse, ...Object.values(grad(loss, { q: q!, k: k!, v: v!, bias: bias! }))]
        },
      }
    })
    const reference = await runCases(cases, { target: 'reference' })
    const limit = dtype === 'f64' ? 1e-12 : 3e-5
    const bits: unknown[] = []
    for (const threads of [1, 3]) {
      const { results, program } = await runCases(cases, { threads, checking: true, name: 'biased' })
      assert.equal(program.countedFlops(), program.flops)
      for (const { name } of cases) {
        reference.results.get(name)!.forEach((want, n) => {
          const error = worstError(results.get(name)![n]!, want)
          assert.ok(error < limit, `${name}, result ${n}: error ${error}`)
        })
      }
      bits.push(cases.map(({ name }) => results.get(name)))
    }
    assert.deepEqual(bits[0], bits[1])
  })
}

test('visible pairs are those of the mask', () => {
  assert.equal(visiblePairs(4, 4, true, 0), 10)
  assert.equal(visiblePairs(4, 4, false, 0), 16)
  assert.equal(visiblePairs(2, 5, true, 0), 9)
  assert.equal(visiblePairs(5, 5, true, 2), 9)
  assert.equal(visiblePairs(5, 5, false, 2), 9)
})

const bad = (build: Case['build'], ...types: ValueType[]): Promise<unknown> =>
  runCases([{ name: 'bad', types, data: types.map((type) => draw(type, 1)), build }], {
    target: 'reference',
  })

test('mistakes in calls are found while tracing', async () => {
  const q = f64(1, 3, 2, 4)
  await assert.rejects(
    bad(([x, y]) => [attention(x!, y!, y!)], q, f64(1, 3, 2, 5)),
    UserError,
  )
  await assert.rejects(
    bad(([x, y]) => [crossEntropy(x!, y!)], f64(4, 7), valueType('i32', [5])),
    UserError,
  )
})
