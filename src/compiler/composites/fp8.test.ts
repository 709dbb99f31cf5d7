/**
 * The 8-bit formats against tables made here from their definition (sign, exponent, fraction): every code, every midpoint,
 * saturation, NaN; quantisation by groups and the three products of dotFp8 against plain loops over those tables; and
 * which products the fp8 pass turns into such.
 */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { compile } from '../compile.ts'
import type { Fp8Name } from '../graph/fp8.ts'
import { bodyOf, reachable, type Func } from '../graph/node.ts'
import { valueType, type ValueType } from '../graph/types.ts'
import { compositeName } from '../ops/call.ts'
import { roundFp8 } from '../ops/round-fp8.ts'
import { runPipeline } from '../passes/pipeline.ts'
import { draw, inFreshGraph, plainPolicies, runCases, worstError, type Case } from '../testing.ts'
import { checkpoint, grad, scan, traceFunction, type Tensors } from '../trace/functions.ts'
import { Tensor } from '../trace/tensor.ts'
import { fp8Scalings } from './dot-fp8.ts'
import { muon } from './muon.ts'
import { quantise, quantiseGroups, type QuantiseGroups } from './quantise.ts'

/** The number behind each of the 256 codes; NaN and infinities as the formats have them. */
function numbersOf(format: Fp8Name): number[] {
  const [bits, bias] = format === 'e4m3' ? [3, 7] : [2, 15]
  return Array.from({ length: 256 }, (_, code) => {
    const sign = code & 128 ? -1 : 1
    const exponent = (code & 127) >> bits
    const fraction = (code & ((1 << bits) - 1)) / 2 ** bits
    if (format === 'e4m3' && (code & 127) === 127) return NaN
    if (format === 'e5m2' && exponent === 31) return fraction === 0 ? sign * Infinity : NaN
    return exponent === 0 ? sign * fraction * 2 ** (1 - bias) : sign * (1 + fraction) * 2 ** (exponent - bias)
  })
}

const tables = { e4m3: numbersOf('e4m3'), e5m2: numbersOf('e5m2') }
/** Finite numbers of a format from 0 up; their place in the list is their code. */
const positive = (format: Fp8Name): number[] => tables[format].slice(0, 128).filter(Number.isFinite)

/** The nearest number of the format by search, ties to the even code, saturating. */
function nearest(format: Fp8Name, x: number): number {
  if (Number.isNaN(x)) return x
  const list = positive(format)
  const size = Math.abs(x)
  let best = 0
  list.forEach((value, code) => {
    const [mine, known] = [Math.abs(value - size), Math.abs(list[best]! - size)]
    if (mine < known || (mine === known && code % 2 === 0)) best = code
  })
  return Math.sign(x) < 0 ? -list[best]! : list[best]!
}

test('the formats have the extremes that they are known for', () => {
  assert.deepEqual(
    [positive('e4m3').length, positive('e4m3').at(-1), positive('e4m3')[1]],
    [127, 448, 2 ** -9],
  )
  assert.deepEqual(
    [positive('e5m2').length, positive('e5m2').at(-1), positive('e5m2')[1]],
    [124, 57_344, 2 ** -16],
  )
})

for (const dtype of ['f32', 'f64'] as const) {
  test(`rounding is exact on all codes and midpoints and saturates, ${dtype}`, async () => {
    for (const format of ['e4m3', 'e5m2'] as const) {
      const list = positive(format)
      const inputs = tables[format].filter(Number.isFinite)
      assert.ok(inputs.length >= 248)
      const want = [...inputs]
      const add = (x: number, y: number): void => void (inputs.push(x, -x), want.push(y, -y))
      list.slice(1).forEach((value, i) => {
        const middle = (value + list[i]!) / 2
        add(middle, i % 2 === 0 ? list[i]! : value)
        add(middle * (1 - 2 ** -20), list[i]!)
        add(middle * (1 + 2 ** -20), value)
      })
      for (const beyond of [list.at(-1)! * 1.01, list.at(-1)! * 1.5, 1e30, Infinity])
        add(beyond, list.at(-1)!)
      add(1e-30, 0)
      const types = [valueType(dtype, [inputs.length])]
      const data = [Float64Array.from(inputs)]
      const build = ([x]: readonly Tensor[]) => [new Tensor(roundFp8(x!.node, format))]
      for (const target of ['reference', 'c'] as const) {
        const { results } = await runCases([{ name: 'x', types, data, build }], { target, threads: 1 })
        const got = Array.from(results.get('x')![0]!)
        want.forEach((value, i) =>
          assert.ok(
            Object.is(got[i], value),
            `${target} ${format}: ${inputs[i]} gives ${got[i]}, not ${value}`,
          ),
        )
      }
      const nan = await runCases([
        { name: 'x', types: [valueType(dtype, [1])], data: [Float64Array.of(NaN)], build },
      ])
      assert.ok(Number.isNaN(nan.results.get('x')![0]![0]))
    }
  })
}

const tileOf: Readonly<Record<QuantiseGroups, readonly [number, number]>> = {
  tensor: [1e9, 1e9],
  row: [1, 1e9],
  '1x128': [1, 128],
  '128x128': [128, 128],
  mx32: [1, 32],
}

/**
 * Quantisation of a matrix by its definition: the largest of each group, the unit that follows, the nearest number. `share`:
 * the number that makes a unit of a group's largest.
 */
function plainQuantise(
  x: Float64Array,
  columns: number,
  format: Fp8Name,
  groups: QuantiseGroups,
  share = 1 / positive(format).at(-1)!,
): number[] {
  const [r, c] = tileOf[groups]
  const keyOf = (i: number): string =>
    `${Math.floor(Math.floor(i / columns) / r)} ${Math.floor((i % columns) / c)}`
  const largest = new Map<string, number>()
  x.forEach((value, i) => largest.set(keyOf(i), Math.max(largest.get(keyOf(i)) ?? 0, Math.abs(value))))
  return Array.from(x, (value, i) => {
    const size = largest.get(keyOf(i))!
    if (size === 0) return 0
    const unit =
      groups === 'mx32' ? 2 ** (Math.floor(Math.log2(size)) - (format === 'e4m3' ? 8 : 15)) : size * share
    return nearest(format, value / unit) * unit
  })
}

/** Values with outliers, zeros, a row of zeros. */
function spread(type: ValueType, seed: number): Float64Array {
  const columns = type.shape.at(-1)!
  return draw(type, seed).map((x, i) => (Math.floor(i / columns) === 1 ? 0 : i % 37 === 5 ? x * 300 : x))
}

test('groups of every kind hold the nearest numbers, in C and in the reference', async () => {
  const cases = quantiseGroups.flatMap((groups) =>
    (['e4m3', 'e5m2'] as const).map((format): Case & { want: number[] } => {
      const type = valueType('f64', [131, 150])
      const data = spread(type, 3)
      return {
        name: `${groups}_${format}`,
        types: [type],
        data: [data],
        build: ([x]) => [quantise(x!, { format, groups, along: [1] })],
        want: plainQuantise(data, 150, format, groups),
      }
    }),
  )
  for (const target of ['reference', 'c'] as const) {
    const { results } = await runCases(cases, { target, threads: 2 })
    for (const { name, want } of cases) {
      const got = results.get(name)![0]!
      want.forEach((value, i) =>
        assert.ok(
          Math.abs(got[i]! - value) <= 1e-12 * Math.abs(value),
          `${target} ${name}: ${got[i]}, not ${value}`,
        ),
      )
    }
  }
  // Each kind groups differently, and so do the formats.
  assert.equal(new Set(cases.map(({ want }) => want.join())).size, cases.length)
})

test('an infinity makes its group NaN and no other', async () => {
  const type = valueType('f32', [2, 256])
  const data = draw(type, 1)
  data[3] = Infinity
  const build: Case['build'] = ([x]) => [quantise(x!, { format: 'e5m2', groups: '1x128', along: [1] })]
  const { results } = await runCases([{ name: 'x', types: [type], data: [data], build }], { threads: 1 })
  const got = Array.from(results.get('x')![0]!)
  assert.ok(got.slice(0, 128).every(Number.isNaN) && got.slice(128).every(Number.isFinite))
})

const transposed = (x: readonly number[], columns: number): Float64Array =>
  Float64Array.from(x, (_, i) => {
    const rows = x.length / columns
    return x[(i % rows) * columns + Math.floor(i / rows)]!
  })

/** [m, k] by [n, k]: both with the contracted axis last. */
function plainProduct(a: readonly number[], b: readonly number[], k: number): number[] {
  const [m, n] = [a.length / k, b.length / k]
  return Array.from({ length: m * n }, (_, i) => {
    const [row, column] = [Math.floor(i / n), i % n]
    let sum = 0
    for (let p = 0; p < k; p++) sum += a[row * k + p]! * b[column * k + p]!
    return sum
  })
}

for (const scaling of fp8Scalings) {
  test(`${scaling}: the product and its gradients are those of quantised operands`, async () => {
    const [m, k, n] = [140, 36, 150]
    const types = { x: valueType('f32', [m, k]), w: valueType('f32', [k, n]), g: valueType('f32', [m, n]) }
    const body = ({ x, w, g }: { x: Tensor; w: Tensor; g: Tensor }) => {
      const y = x.matmul(w)
      return { y, gradients: grad(y.mul(g).sum(), { x, w }) }
    }
    const program = await compile(body, types, { target: 'reference', precision: 'fp8', fp8Scaling: scaling })
    const [x, w, g] = [spread(types.x, 5), spread(types.w, 6), spread(types.g, 7)]
    await program.run({ x, w, g })
    const [data, weight] = (
      {
        tensor: ['tensor', 'tensor'],
        row: ['row', 'row'],
        block: ['1x128', '128x128'],
        mx: ['mx32', 'mx32'],
      } as const
    )[scaling]
    const small = (
      values: Float64Array,
      columns: number,
      format: Fp8Name,
      groups: QuantiseGroups,
      // A constant of an f32 program.
    ): number[] => plainQuantise(values, columns, format, groups, Math.fround(1 / positive(format).at(-1)!))
    const across = (values: Float64Array, columns: number): Float64Array => transposed([...values], columns)
    const want = {
      y: plainProduct(small(x, k, 'e4m3', data), small(across(w, n), k, 'e4m3', weight), k),
      'gradients.x': plainProduct(small(g, n, 'e5m2', data), small(w, n, 'e4m3', weight), n),
      'gradients.w': plainProduct(
        small(across(x, k), m, 'e4m3', data),
        small(across(g, n), m, 'e5m2', data),
        m,
      ),
    }
    for (const [path, values] of Object.entries(want)) {
      const scale = Math.max(...values.map(Math.abs))
      const error = worstError(
        program.view(path).map((value) => value / scale),
        values.map((value) => value / scale),
      )
      assert.ok(error < 1e-12, `${path}: ${error}`)
    }
  })
}

test('the gradient goes straight through, whatever is rounded away', async () => {
  const type = valueType('f64', [3, 40])
  const build: Case['build'] = ([x, w]) => {
    const y = quantise(x!, { format: 'e4m3', groups: 'mx32', along: [1] })
    return [grad(y.mul(w!).sum(), x!)]
  }
  const data = [spread(type, 1), draw(type, 2)]
  const { results } = await runCases([{ name: 'x', types: [type, type], data, build }], {
    target: 'reference',
  })
  assert.deepEqual(results.get('x')![0], data[1])
})

/** How many products of each precision a program has, by the time it reaches a target. */
function products(func: Func): { small: number; plain: number } {
  let [small, plain] = [0, 0]
  const visit = (func: Func): void => {
    for (const node of reachable([...func.params, ...func.results])) {
      if (node.op.name === 'call' && compositeName(node) === 'dotFp8') small++
      else if (node.op.name === 'dot') plain++
      const inner = bodyOf(node)
      if (inner && !(node.op.name === 'call' && compositeName(node) === 'dotFp8')) visit(inner)
    }
  }
  visit(func)
  return { small, plain }
}

function traced(dtype: 'f32' | 'f64', body: (inputs: Record<string, Tensor>) => Tensors): Func {
  const square = valueType(dtype, [6, 6])
  const types = { x: square, w: square, s: valueType(dtype, [2, 6, 6]), lr: valueType(dtype, []) }
  let after: Func | undefined
  const { func } = inFreshGraph(() =>
    traceFunction('main', types, (inputs) => body(inputs as Record<string, Tensor>)),
  )
  runPipeline(func, { ...plainPolicies, precision: 'fp8' }, (stage, done) => {
    if (stage === 'fp8') after = done
  })
  return after!
}

test('products of the loss become fp8, in loops and marked regions too; those of an optimizer and f64 stay', () => {
  const model = ({ x, w, s }: Record<string, Tensor>): Tensor => {
    const [last] = scan(x!, { s: s! }, (x, slice) => [
      checkpoint(({ x, s }) => x.matmul(s).tanh(), { x, s: slice.s }) as Tensor,
      {},
    ])
    return last.matmul(w!).square().mean()
  }
  const step = (inputs: Record<string, Tensor>): Tensors => {
    const gradient = grad(model(inputs), inputs['w']!)
    const [next] = muon([inputs['w']!, gradient, inputs['x']!, inputs['lr']!], {
      momentum: 0.9,
      weightDecay: 0,
    })
    return { next, outside: gradient.matmul(inputs['x']!) }
  }
  const trained = products(traced('f32', step))
  assert.equal(trained.small, 2)
  assert.ok(trained.plain > 10)
  assert.deepEqual(products(traced('f32', (inputs) => ({ loss: model(inputs) }))), { small: 2, plain: 0 })
  assert.equal(products(traced('f64', step)).small, 0)
})
