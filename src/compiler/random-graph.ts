/**
 * For tests: random programs from all kinds of ops, built so that every value stays in a range where comparing targets
 * makes sense. The subtle part is that: each value carries a bound on its magnitude, and is squashed before an op would
 * leave it; discontinuous ops read inputs only, so that a last-bit difference cannot turn into another result.
 */
import type { Pick } from './random-samples.ts'
import { sizeOf, valueType, type ValueType } from './graph/types.ts'
import { barrier } from './ops/barrier.ts'
import { scan } from './trace/functions.ts'
import { concat, full, iota, Tensor, where } from './trace/tensor.ts'

interface Value {
  readonly x: Tensor
  /** No element is larger in magnitude. */
  readonly bound: number
}

const maxSize = 6000
const extents = [1, 2, 3, 4, 6, 8, 17, 40]

/** Types of the inputs of a random program: floats in `dtype` of ranks 0 to 3 that share extents, and an i32 index. */
export function randomInputs(pick: Pick, dtype: 'f64' | 'f32' = 'f64'): ValueType[] {
  const extent = (): number => extents[pick(0, extents.length - 1)]!
  const [a, b, c] = [extent(), extent(), extent()]
  const small = sizeOf([a, b, c]) <= maxSize
  const shapes = [[c], [b, c], small ? [a, b, c] : [a, c], [b, 1], []]
  return [...shapes.map((shape) => valueType(dtype, shape)), valueType('i32', [pick(1, 8)])]
}

/** Ranges to draw those inputs from. */
export const inputRanges = [
  [-2, 2],
  [-2, 2],
  [-2, 2],
  [-2, 2],
  [-2, 2],
  [0, 6],
] as const

/**
 * Applies `numOps` random ops to the inputs.
 *
 * @returns one to three results, the last of them a value that everything before may feed.
 */
export function randomProgram(pick: Pick, inputs: readonly Tensor[], numOps: number): Tensor[] {
  const index = inputs.at(-1)!
  const floats = inputs.slice(0, -1)
  const pool: Value[] = floats.map((x) => ({ x, bound: 2 }))
  const choose = <T>(list: readonly T[]): T => list[pick(0, list.length - 1)]!
  // Recent values are preferred, which makes deep programs rather than wide ones.
  const some = (): Value =>
    pick(0, 2) === 0 ? choose(pool) : pool[pick(Math.max(0, pool.length - 3), pool.length - 1)]!
  const within = ({ x, bound }: Value, limit: number): Value =>
    bound <= limit ? { x, bound } : { x: x.tanh(), bound: 1 }
  for (let i = 0; i < numOps; i++) {
    const made = choose(makers)({ pick, some, within, choose, index, floats })
    if (made && sizeOf(made.x.shape) <= maxSize) pool.push(within(made, 1e4))
  }
  const last = pool.at(-1)!.x
  const others = Array.from({ length: pick(0, 2) }, () => choose(pool).x)
  return [
    ...new Set([...others.filter((x) => !floats.includes(x)), floats.includes(last) ? last.mul(2) : last]),
  ]
}

interface Tools {
  readonly pick: Pick
  readonly some: () => Value
  readonly within: (value: Value, limit: number) => Value
  readonly choose: <T>(list: readonly T[]) => T
  readonly index: Tensor
  readonly floats: readonly Tensor[]
}

/** Two values that broadcast against each other. */
function pair({ some, within }: Tools): [Value, Value] {
  const [a, b] = [some(), some()].map((value) => within(value, 30)) as [Value, Value]
  const fits = a.x.shape.every((extent, i) => {
    const other = b.x.shape[i - a.x.rank + b.x.rank] ?? 1
    return extent === other || extent === 1 || other === 1
  })
  return fits ? [a, b] : [a, { x: b.x.mean(), bound: b.bound }]
}

const anyAxis = ({ pick }: Tools, x: Tensor): number => pick(0, x.rank - 1)

type Maker = (tools: Tools) => Value | undefined

const unary: Maker = (tools) => {
  const { x, bound } = tools.within(tools.some(), 3)
  return tools.choose<() => Value>([
    () => ({ x: x.neg(), bound }),
    () => ({ x: x.exp(), bound: 21 }),
    () => ({ x: x.sin(), bound: 1 }),
    () => ({ x: x.cos(), bound: 1 }),
    () => ({ x: x.tanh(), bound: 1 }),
    () => ({ x: x.erf(), bound: 1 }),
    () => ({ x: x.square().add(0.5).sqrt(), bound: 4 }),
    () => ({ x: x.square().add(0.5).log(), bound: 3 }),
  ])()
}

const binary: Maker = (tools) => {
  const [a, b] = pair(tools)
  return tools.choose<() => Value>([
    () => ({ x: a.x.add(b.x), bound: a.bound + b.bound }),
    () => ({ x: a.x.sub(b.x), bound: a.bound + b.bound }),
    () => ({ x: a.x.mul(b.x), bound: a.bound * b.bound }),
    () => ({ x: a.x.max(b.x), bound: Math.max(a.bound, b.bound) }),
    () => ({ x: a.x.div(b.x.square().add(0.5)), bound: a.bound * 2 }),
  ])()
}

/** Neutral elements and foldable constants: what `simplify` looks for. */
const withConstant: Maker = (tools) => {
  const { x, bound } = tools.some()
  const value = tools.choose([0, 1, -1, 0.5])
  const constant = full(value, x.type)
  return tools.choose<() => Value>([
    () => ({ x: x.add(constant), bound: bound + 1 }),
    () => ({ x: constant.add(x), bound: bound + 1 }),
    () => ({ x: x.mul(value), bound }),
    () => ({ x: x.div(full(1, x.type)), bound }),
    () => ({ x: x.neg().neg(), bound }),
    () => ({ x: x.add(constant.add(2).mul(constant)), bound: bound + 3 }),
  ])()
}

const reduction: Maker = (tools) => {
  const { x, bound } = tools.some()
  if (x.rank === 0) return undefined
  const axes = x.shape.map((_, i) => i).filter(() => tools.pick(0, 1) === 0)
  const keep = tools.pick(0, 1) === 0
  const over = axes.length === 0 ? [x.rank - 1] : axes
  const count = sizeOf(over.map((axis) => x.shape[axis]!))
  return tools.pick(0, 2) === 0
    ? { x: x.maxOver(over, keep), bound }
    : { x: x.sum(over, keep).mul(1 / count), bound }
}

/** What softmax and norms do: reduce a row, then use the value all along it. */
const normalised: Maker = (tools) => {
  const { x } = tools.within(tools.some(), 10)
  if (x.rank === 0) return undefined
  const weights = x.sub(x.maxOver(-1, true)).exp()
  return { x: weights.div(weights.sum(-1, true)), bound: 1 }
}

const movement: Maker = (tools) => {
  const { x, bound } = tools.some()
  const { pick, choose } = tools
  if (x.rank === 0) return { x: x.broadcastTo({ shape: [pick(1, 8)], axes: [null] }), bound }
  const axis = anyAxis(tools, x)
  const extent = x.shape[axis]!
  return choose<() => Value>([
    () => ({ x: x.transpose(), bound }),
    () => ({ x: x.transpose([...x.shape.keys()].toSpliced(axis, 1).concat(axis)), bound }),
    () => ({ x: x.reshape([sizeOf(x.shape)]), bound }),
    () => ({
      x: x.rank > 1 ? x.reshape([x.shape[0]! * x.shape[1]!, ...x.shape.slice(2)]) : x.reshape([1, extent]),
      bound,
    }),
    () => ({
      x: extent % 2 === 0 ? x.reshape(x.shape.toSpliced(axis, 1, 2, extent / 2)) : x.reshape([...x.shape, 1]),
      bound,
    }),
    () => ({ x: x.slice(axis, pick(0, extent - 1), 1), bound }),
    () => {
      const start = pick(0, extent - 1)
      return { x: x.slice(axis, start, pick(1, extent - start)), bound }
    },
    () => ({ x: x.pad(axis, pick(0, 2), pick(0, 2)), bound }),
    () => ({ x: x.reshape([1, ...x.shape]).broadcastTo({ shape: [3, ...x.shape], axes: [] }), bound }),
    () => ({ x: concat([x, x.tanh()], axis), bound: Math.max(bound, 1) }),
    () => ({ x: concat([x.slice(axis, 0, 1), x], axis), bound }),
    () => ({ x: new Tensor(barrier(x.node, tools.some().x.node)), bound }),
  ])()
}

const product: Maker = (tools) => {
  const { x, bound } = tools.within(tools.some(), 2)
  if (x.rank === 0) return undefined
  const n = x.shape.at(-1)!
  return tools.choose<() => Value>([
    // With itself, transposed: [.., n] becomes [m, m].
    () => {
      const flat = x.reshape([sizeOf(x.shape) / n, n])
      return { x: flat.matmul(flat.transpose()).mul(1 / n), bound: bound * bound }
    },
    () => {
      const table = iota(n * 3, null, x.dtype)
        .sin()
        .reshape([n, 3])
      return { x: x.reshape([sizeOf(x.shape) / n, n]).matmul(table), bound: bound * n }
    },
    () => {
      const rows = x.reshape([sizeOf(x.shape) / n, n])
      return {
        x: rows
          .transpose()
          .matmul(rows)
          .mul(1 / rows.shape[0]!),
        bound: bound * bound,
      }
    },
  ])()
}

const selection: Maker = (tools) => {
  const { x, bound } = tools.some()
  const source = tools.choose(tools.floats)
  if (x.rank === 0) return { x: where(source.less(0.3), x, 1), bound: Math.max(bound, 1) }
  const n = x.shape.at(-1)!
  const mask = iota(n).less(tools.pick(0, n)).broadcastTo({ shape: x.shape, axes: x.axes })
  return tools.pick(0, 1) === 0
    ? { x: where(mask, x, -1), bound: Math.max(bound, 1) }
    : { x: x.take(tools.index), bound }
}

const loop: Maker = (tools) => {
  const { x, bound } = tools.within(tools.some(), 2)
  if (x.rank === 0 || x.shape[0]! > 8) return undefined
  const carry = x.slice(0, 0, 1).reshape(x.shape.slice(1))
  const other = tools.within(tools.some(), 2)
  const reverse = tools.pick(0, 1) === 0
  const [last, rows] = scan(
    carry,
    x,
    (sum, row) => [sum.mul(0.5).add(row.mul(other.x.mean())), sum.add(row).tanh()] as const,
    { reverse },
  )
  return tools.pick(0, 1) === 0
    ? { x: last, bound: 2 * bound * Math.max(1, other.bound) }
    : { x: rows, bound: 1 }
}

const makers: readonly Maker[] = [
  unary,
  unary,
  binary,
  binary,
  binary,
  withConstant,
  reduction,
  reduction,
  normalised,
  movement,
  movement,
  movement,
  product,
  selection,
  loop,
]
