/**
 * Sums in leaves against what they promise: a program over the whole batch gives bit for bit what devices give that own
 * a part of the batch each and add their results pairwise. Here the devices are runs of a program for a smaller batch.
 */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { compile, type CompileOptions } from '../compile.ts'
import { philoxUniform } from '../graph/philox.ts'
import { sizeOf, valueType, type AxisName, type ValueType } from '../graph/types.ts'
import { attention } from '../composites/attention.ts'
import { draw, readValues, writeValues } from '../testing.ts'
import { conv } from '../trace/conv.ts'
import { grad, scan } from '../trace/functions.ts'
import { Tensor } from '../trace/tensor.ts'

/** A function of inputs of which some have the batch as first axis. Results without that axis are sums over it. */
interface Case {
  readonly name: string
  readonly types: (batch: number) => readonly ValueType[]
  readonly build: (inputs: readonly Tensor[]) => readonly Tensor[]
}

const batch = 16
/** Devices that share the batch. The one that has it whole is asked twice, with two teams. */
const widths = [1, 2, 4, 8] as const

type Results = ReadonlyMap<string, ArrayLike<number>>

/** All results on `devices` that own a part of the batch each: sums added pairwise, the rest laid end to end. */
async function spread(
  cases: readonly Case[],
  devices: number,
  options: CompileOptions,
  leaves = 8 / devices,
): Promise<Results> {
  const own = batch / devices
  const types = (count: number): Record<string, Record<string, ValueType>> =>
    Object.fromEntries(
      cases.map((one) => [one.name, Object.fromEntries(one.types(count).map((type, i) => [`x${i}`, type]))]),
    )
  type Given = Readonly<Record<string, Readonly<Record<string, Tensor>>>>
  const body = (given: Given): Given =>
    Object.fromEntries(
      cases.map(({ name, build }) => [
        name,
        Object.fromEntries(build(Object.values(given[name]!)).map((y, i) => [`y${i}`, y])),
      ]),
    )
  const program = await compile(body, types(own), { ...options, leaves, checking: true })
  try {
    const parts: Results[] = []
    for (let device = 0; device < devices; device++) {
      for (const [path, type] of program.inputs) {
        const whole = type.axes[0] === 'batch' ? [batch, ...type.shape.slice(1)] : type.shape
        const seed = [...path].reduce((sum, letter) => sum * 31 + letter.codePointAt(0)!, 7) % 100_000
        const values = draw({ ...type, shape: whole }, seed, type.dtype === 'i32' ? [0, 5] : undefined)
        const length = sizeOf(type.shape)
        const at = type.axes[0] === 'batch' ? device * length : 0
        writeValues(program, path, values.subarray(at, at + length))
      }
      await program.run()
      parts.push(new Map([...program.outputs.keys()].map((path) => [path, readValues(program, path)])))
    }
    assert.equal(program.countedFlops(), devices * program.flops, 'counted FLOPs')
    return new Map(
      [...program.outputs].map(([path, type]) => {
        const each = parts.map((part) => part.get(path)!)
        return [path, type.axes[0] === 'batch' ? endToEnd(each) : pairwise(each)]
      }),
    )
  } finally {
    program.close()
  }
}

function endToEnd(parts: readonly ArrayLike<number>[]): Float32Array {
  const all = new Float32Array(parts.reduce((length, part) => length + part.length, 0))
  let at = 0
  for (const part of parts) {
    all.set(part, at)
    at += part.length
  }
  return all
}

function pairwise(parts: readonly ArrayLike<number>[]): ArrayLike<number> {
  if (parts.length === 1) return parts[0]!
  const half = parts.length / 2
  const [left, right] = [pairwise(parts.slice(0, half)), pairwise(parts.slice(half))]
  const sum = new Float32Array(left.length)
  for (let i = 0; i < sum.length; i++) sum[i] = left[i]! + right[i]!
  return sum
}

function sameBits(got: Results, want: Results, what: string): void {
  for (const [path, values] of want) {
    const bits = (x: ArrayLike<number>): Buffer => Buffer.from(Float32Array.from(x).buffer)
    if (bits(got.get(path)!).equals(bits(values))) continue
    const list = Array.from(values, (x, i) => [i, x, got.get(path)![i]!] as const).filter(
      ([, x, y]) => !Object.is(x, y),
    )
    assert.fail(
      `${what}: ${path} differs in ${list.length} of ${values.length}, first ${list[0]!.join(', ')}`,
    )
  }
}

/** The largest difference, as a part of the largest value. */
function assertNear(got: Results, want: Results, tolerance: number): void {
  for (const [path, values] of want) {
    let [difference, largest] = [0, 0]
    for (let i = 0; i < values.length; i++) {
      difference = Math.max(difference, Math.abs(values[i]! - got.get(path)![i]!))
      largest = Math.max(largest, Math.abs(values[i]!))
    }
    assert.ok(difference <= tolerance * largest, `${path}: off by ${difference} of ${largest}`)
  }
}

const f32 = (shape: readonly number[], ...axes: AxisName[]): ValueType =>
  valueType(
    'f32',
    shape,
    shape.map((_, i) => axes[i] ?? null),
  )

/** Whole numbers in [low, high), the same every time. */
function dice(seed: number): (low: number, high: number) => number {
  let at = 0
  return (low, high) =>
    low + Math.floor(philoxUniform({ seed, step: 0, stream: 0, salt: 0 }, at++) * (high - low))
}

const parameterGradients = (loss: Tensor, ...by: Tensor[]): Tensor[] =>
  Object.values(grad(loss, Object.fromEntries(by.map((x, i) => [`g${i}`, x]))))

/** Products, sums, tables and convolutions of random shapes. */
function randomCases(seed: number): Case[] {
  const roll = dice(seed)
  const dims = (): { time: number; m: number; n: number } => ({
    time: roll(1, 40),
    m: roll(1, 70),
    n: roll(1, 70),
  })
  const products = Array.from({ length: 4 }, (_, i): Case => {
    const { time, m, n } = dims()
    return {
      name: `product${i}`,
      types: (count) => [f32([count, time, m], 'batch'), f32([count, time, n], 'batch'), f32([m, n])],
      build: ([x, y, w]) => [
        x!.named(['batch', 'time', 'm']).dot(y!.named(['batch', 'time', 'n']), ['batch', 'time']),
        // Rows of the batch, however few: to the right, and back through the weights.
        x!
          .reshape([x!.shape[0]! * time, m])
          .matmul(w!)
          .reshape([x!.shape[0]!, time, n], ['batch', null, null]),
        y!
          .reshape([x!.shape[0]! * time, n])
          .matmul(w!.transpose())
          .reshape([x!.shape[0]!, time, m], ['batch', null, null]),
      ],
    }
  })
  const [t, m, n] = [roll(1, 30), roll(1, 40), roll(2, 40)]
  const inner = (x: Tensor): Tensor => x.transpose([1, 0, 2])
  return [
    ...products,
    {
      name: 'timeFirst',
      types: (count) => [f32([count, t, m], 'batch', 'time', 'm'), f32([count, t, n], 'batch', 'time', 'n')],
      build: ([x, y]) => [
        inner(x!)
          .merge(['time', 'batch'], 'k')
          .dot(inner(y!).merge(['time', 'batch'], 'k'), 'k'),
        inner(x!).merge(['time', 'batch'], 'k').sum('k'),
        inner(y!).sum(['time', 'batch']),
      ],
    },
    {
      name: 'batchLast',
      types: (count) => [f32([count, 200], 'batch'), f32([count, 9], 'batch')],
      build: ([x, y]) => [x!.transpose().mul(2).add(1).matmul(y!), x!.transpose().matmul(y!.slice(1, 0, 1))],
    },
    {
      name: 'sums',
      types: (count) => [f32([count, t, n], 'batch'), f32([count, 3, 2, 5], 'batch')],
      build: ([x, y]) => [
        x!.square().sum([0, 1]),
        x!.sum(0),
        x!.tanh().sum(),
        y!.sum([0, 3]),
        y!.reshape([y!.shape[0]! * 3, 2, 5]).sum([0, 2]),
        x!.reshape([x!.shape[0]! * t, n]).sum(0),
      ],
    },
    {
      name: 'long',
      types: (count) => [f32([count, 300, 3], 'batch'), f32([count, 1000], 'batch')],
      build: ([x, y]) => [x!.sum([0, 1]), y!.sum(), y!.mul(y!).sum()],
    },
    {
      name: 'table',
      types: (count) => [
        f32([5, m]),
        valueType('i32', [count, t], ['batch', null]),
        f32([count, t, m], 'batch'),
      ],
      build: ([table, index, weights]) => parameterGradients(table!.take(index!).mul(weights!).sum(), table!),
    },
    {
      name: 'convolution',
      types: (count) => [f32([count, 7, 6, 3], 'batch'), f32([3, 3, 3, n])],
      build: ([x, w]) => {
        const y = conv(x!, w!, { padding: 'same' })
        return [y, ...parameterGradients(y.square().sum(), w!)]
      },
    },
    {
      name: 'grouped',
      types: (count) => [f32([count, 9, 4], 'batch'), f32([3, 2, 6])],
      build: ([x, w]) => parameterGradients(conv(x!, w!, { groups: 2, stride: 2 }).square().sum(), w!),
    },
  ]
}

/** Rows of the batch times weights and back through them, from many rows to one: no driver may add in another order. */
const fewTokens = [
  [1, 17, 48],
  [2, 33, 17],
  [5, 64, 1],
  [3, 1, 35],
].map(([time, m, n], i): Case => ({
  name: `rows${i}`,
  types: (count) => [f32([count, time!, m!], 'batch'), f32([m!, n!]), f32([count, time!, n!], 'batch')],
  build: ([x, w, g]) => {
    const times = (a: Tensor, b: Tensor): Tensor =>
      a
        .reshape([a.shape[0]! * time!, a.shape[2]!])
        .matmul(b)
        .reshape([a.shape[0]!, time!, b.shape[1]!], ['batch', null, null])
    return [times(x!, w!), times(g!, w!.transpose())]
  },
}))

/** A product over the batch and a time of values that are made of few. */
const product = (name: string, time: number, m: number, n: number): Case => ({
  name,
  types: (count) => [f32([count, time], 'batch'), f32([m]), f32([n])],
  build: ([u, v, w]) => {
    const outer = (x: Tensor): Tensor =>
      u!
        .reshape([...u!.shape, 1])
        .mul(x.reshape([1, 1, x.shape[0]!]))
        .sin()
    const [x, y] = [outer(v!), outer(w!)]
    const rows = x.shape[0]! * time
    return [
      x
        .reshape([rows, m])
        .transpose()
        .matmul(y.reshape([rows, n])),
    ]
  },
})

/** Products that the drivers of large ones take, alone and in a loop over layers. */
const largeCases: readonly Case[] = [
  product('leavesOfABlock', 40, 130, 520),
  product('pairsOfABlock', 125, 100, 70),
  product('blockALeaf', 250, 110, 70),
  product('blocksOfALeaf', 500, 100, 70),
  product('columnsAtATime', 250, 2000, 900),
  product('rowsAtATime', 250, 5000, 300),
  product('fewRows', 9, 3, 200_000),
  {
    name: 'layers',
    types: (count) => [
      f32([count, 9, 32], 'batch', 'time', 'embed'),
      f32([3, 32, 32], 'layer', 'embed', 'other'),
    ],
    build: ([x, w]) => {
      const [last] = scan(x!, { w: w! }, (x, { w }) => [
        x.dot(w, 'embed').rename({ other: 'embed' }).tanh(),
        {},
      ])
      return parameterGradients(last.square().sum(), w!)
    },
  },
  {
    name: 'sharedBias',
    types: (count) => [f32([count, 8, 2, 16], 'batch'), f32([1, 2, 8, 8])],
    build: ([q, bias]) =>
      parameterGradients(attention(q!, q!, q!, { causal: true, bias: bias! }).square().sum(), bias!),
  },
]

const suites: readonly (readonly [string, readonly Case[], CompileOptions])[] = [
  ['random shapes, few rows', [...randomCases(1), ...fewTokens], {}],
  ['large products, loops, a shared bias', largeCases, {}],
  ['products of bf16', [...randomCases(2).slice(0, 2), ...fewTokens, ...largeCases], { precision: 'bf16' }],
]

for (const [what, cases, options] of suites) {
  test(`a spread batch gives the same bits: ${what}`, async () => {
    const whole = await spread(cases, 1, { ...options, threads: 3 })
    const tolerance = options.precision === 'bf16' ? 1e-2 : 3e-5
    assertNear(whole, await spread(cases, 1, options, 0), tolerance)
    const parts = await Promise.all(
      widths.map((devices) => spread(cases, devices, { ...options, threads: (devices % 3) + 1 })),
    )
    parts.forEach((got, i) => sameBits(got, whole, `${widths[i]} devices`))
  })
}
