/**
 * For tests: samples of an op with shapes drawn at random, small for exhaustive checks or large for threads. Elementwise
 * ops follow a rule; an op not listed here falls back on the samples it declares, so a new op is tested either way.
 */
import { philoxUniform } from './graph/philox.ts'
import type { Op, Sample } from './graph/op.ts'
import { convTypes, spaceOf, withExtents, type ConvShape } from './ops/convolution.ts'
import { groupedRanges } from './ops/grouped.ts'
import { sizeOf, valueType, type AxisName, type DType, type ValueType } from './graph/types.ts'

/** An integer from `low` to `high`, both included. */
export type Pick = (low: number, high: number) => number

const f64 = (shape: readonly number[]): ValueType => valueType('f64', shape)
const i32 = (shape: readonly number[]): ValueType => valueType('i32', shape)
const unnamed = (shape: readonly unknown[]): AxisName[] => shape.map(() => null)

/** Uniform and deterministic: for tests that want sizes where a property test would look for small ones. */
export function uniformPick(seed: number): Pick {
  let index = 0
  return (low, high) =>
    low + Math.floor(philoxUniform({ seed, step: 0, stream: 2, salt: 0 }, index++) * (high - low + 1))
}

/** Samples of `op` with an input or result of 1,500 to 20,000 elements: enough that threads share the work. */
export function largeSamples(op: Op, count: number): Sample[] {
  const found: Sample[] = []
  for (let seed = 0; seed < 40 && found.length < count; seed++) {
    const sample = randomSample(op, uniformPick(seed), 26)
    const sizes = [...sample.inputs.map(({ shape }) => sizeOf(shape)), ...resultSizes(op, sample)]
    const most = Math.max(...sizes)
    if (most >= 1500 && most <= 20_000) found.push(sample)
  }
  return found
}

const resultSizes = (op: Op, sample: Sample): number[] =>
  op.infer(sample.inputs, sample.attrs ?? {}, []).map(({ shape }) => sizeOf(shape))

/** A sample of `op` whose axes have 1 to `extent` elements. */
export function randomSample(op: Op, pick: Pick, extent: number): Sample {
  const shape = (minRank: number, maxRank: number): number[] =>
    Array.from({ length: pick(minRank, maxRank) }, () => pick(1, extent))
  const known = generators[op.name]
  if (known) return known(shape, pick, extent)
  const samples = op.samples()
  const sample = samples[pick(0, samples.length - 1)]!
  if (op.kind !== 'elementwise') return sample
  const common = shape(0, 3)
  return { ...sample, inputs: sample.inputs.map((type) => valueType(type.dtype, common)) }
}

type Generator = (shape: (minRank: number, maxRank: number) => number[], pick: Pick, extent: number) => Sample

const generators: Readonly<Record<string, Generator>> = {
  iota(shape, pick) {
    const dims = shape(1, 3)
    const dtype: DType = pick(0, 1) === 0 ? 'i32' : 'f32'
    return { inputs: [], attrs: { dtype, shape: dims, axes: unnamed(dims), axis: pick(0, dims.length - 1) } }
  },
  random(shape) {
    const dims = shape(1, 3)
    const scalar = valueType('i32', [])
    const ranges = [
      [0, 1000],
      [0, 1000],
      [0, 12],
    ] as const
    return {
      inputs: [scalar, scalar, scalar],
      attrs: { stream: 5, shape: dims, axes: unnamed(dims) },
      ranges,
    }
  },
  sum: reduction,
  reduceMax: reduction,
  dot(shape, pick) {
    const [batch, left, right, contract] = [shape(0, 1), shape(0, 2), shape(0, 2), shape(0, 2)]
    const a = shuffled([...batch, ...contract, ...left], pick)
    const b = shuffled([...batch, ...contract, ...right], pick)
    const numBatch = batch.length
    const numPaired = numBatch + contract.length
    return {
      inputs: [f64(a.shape), f64(b.shape)],
      attrs: {
        aBatch: a.at.slice(0, numBatch),
        bBatch: b.at.slice(0, numBatch),
        aContract: a.at.slice(numBatch, numPaired),
        bContract: b.at.slice(numBatch, numPaired),
      },
    }
  },
  reshape(shape, pick) {
    const from = shape(1, 3)
    // Split one axis at a divisor, then perhaps merge two other neighbours: both ways of mixing axes.
    const at = pick(0, from.length - 1)
    const divisors = Array.from({ length: from[at]! }, (_, i) => i + 1).filter((d) => from[at]! % d === 0)
    const divisor = divisors[pick(0, divisors.length - 1)]!
    const split = from.toSpliced(at, 1, divisor, from[at]! / divisor)
    const pairs = split.slice(1).flatMap((_, i) => (i === at ? [] : [i]))
    const first = pairs[pick(0, Math.max(0, pairs.length - 1))]
    const merge = first !== undefined && pick(0, 2) > 0
    const to = merge ? split.toSpliced(first, 2, split[first]! * split[first + 1]!) : split
    return { inputs: [f64(from)], attrs: { shape: to, axes: unnamed(to) } }
  },
  transpose(shape, pick) {
    const { shape: from, at } = shuffled(shape(1, 4), pick)
    return { inputs: [f64(from)], attrs: { permutation: at } }
  },
  broadcast(shape, pick) {
    const to = shape(1, 4)
    const dims = to.map((_, i) => i).filter(() => pick(0, 1) === 0)
    const from = dims.map((axis) => (pick(0, 2) === 0 ? 1 : to[axis]!))
    return { inputs: [f64(from)], attrs: { shape: to, dims, axes: unnamed(to) } }
  },
  slice(shape, pick) {
    const from = shape(1, 3)
    const start = from.map((n) => (pick(0, 1) === 0 ? 0 : pick(0, n - 1)))
    const size = from.map((n, i) => (pick(0, 1) === 0 ? n - start[i]! : pick(1, n - start[i]!)))
    return { inputs: [f64(from)], attrs: { start, size } }
  },
  pad(shape, pick) {
    const from = shape(1, 3)
    const counts = (): number[] => from.map(() => (pick(0, 1) === 0 ? 0 : pick(1, 3)))
    return { inputs: [f64(from)], attrs: { low: counts(), high: counts() } }
  },
  concat(shape, pick, extent) {
    const first = shape(1, 3)
    const axis = pick(0, first.length - 1)
    const parts = Array.from({ length: pick(2, 4) }, () => first.with(axis, pick(1, extent)))
    return { inputs: parts.map(f64), attrs: { axis } }
  },
  conv(_, pick, extent) {
    const { x, w, attrs } = convTypes(convolution(pick, extent))
    return { inputs: [x, w], attrs: { ...attrs } }
  },
  convInput(_, pick, extent) {
    const { x, w, y, attrs } = convTypes(convolution(pick, extent))
    return { inputs: [y, w], attrs: { ...withExtents(attrs, spaceOf(x.shape)) } }
  },
  convWeight(_, pick, extent) {
    const shape = convolution(pick, extent)
    const { x, y, attrs } = convTypes(shape)
    return { inputs: [x, y], attrs: { ...withExtents(attrs, shape.kernel) } }
  },
  topk(shape, pick) {
    const from = shape(1, 3)
    return { inputs: [f64(from)], attrs: { k: pick(1, Math.min(from.at(-1)!, 9)) } }
  },
  groupRank(shape, pick) {
    const groups = pick(1, 9)
    return { inputs: [valueType('i32', shape(1, 2))], attrs: { groups }, ranges: [[-1, groups + 1]] }
  },
  groupedDot(shape, pick, extent) {
    const { rows, inner, groups, columns } = grouped(shape, pick, extent)
    const inputs = [f64([...rows, inner]), i32(rows), f64([groups, inner, columns]), i32([groups])]
    return { inputs, ranges: groupedRanges(groups) }
  },
  groupedOuter(shape, pick, extent) {
    const { rows, inner, groups, columns } = grouped(shape, pick, extent)
    const inputs = [f64([...rows, inner]), i32(rows), f64([...rows, columns]), i32([groups])]
    return { inputs, ranges: groupedRanges(groups) }
  },
  barrier: (shape) => ({ inputs: [f64(shape(0, 3)), f64(shape(0, 2))] }),
  gather(shape) {
    const table = shape(1, 3)
    const index = shape(0, 2)
    return {
      inputs: [f64(table), valueType('i32', index)],
      ranges: [
        [-2, 2],
        [0, table[0]!],
      ],
    }
  },
  scatterAdd(shape, pick, extent) {
    const index = shape(0, 2)
    const rest = shape(0, 2)
    const rows = pick(1, extent)
    return {
      inputs: [valueType('i32', index), f64([...index, ...rest])],
      attrs: { rows, axis: null },
      ranges: [
        [0, rows],
        [-2, 2],
      ],
    }
  },
  scatter(shape, pick, extent) {
    const index = shape(0, 2)
    const rest = shape(0, 2)
    const rows = pick(1, extent)
    return {
      inputs: [f64([rows, ...rest]), valueType('i32', index), f64([...index, ...rest])],
      ranges: [
        [-2, 2],
        [-1, rows + 1],
        [-2, 2],
      ],
    }
  },
}

/** 1 to 3 axes, kernels and padding that may exceed the input, strides that may skip some of it. */
function convolution(pick: Pick, extent: number): ConvShape {
  const rank = pick(1, extent > 8 ? 3 : 2)
  const each = (low: number, high: number): number[] => Array.from({ length: rank }, () => pick(low, high))
  const [kernel, stride, dilation] = [each(1, 3), each(1, 2), each(1, 2)]
  const groups = pick(1, 2)
  const source = each(1, Math.ceil(extent / (rank * rank)) + 1)
  const low = each(0, 2)
  const high = source.map((size, i) =>
    Math.max(pick(0, 2), (kernel[i]! - 1) * dilation[i]! + 1 - size - low[i]!),
  )
  const channels = (): number => groups * pick(1, Math.ceil(extent / (4 * groups)))
  return {
    batch: pick(1, 2),
    source,
    kernel,
    channels: channels(),
    columns: channels() * (extent > 8 ? 3 : 1),
    stride,
    dilation,
    low,
    high,
    groups,
  }
}

function grouped(
  shape: (minRank: number, maxRank: number) => number[],
  pick: Pick,
  extent: number,
): { rows: number[]; inner: number; groups: number; columns: number } {
  return { rows: shape(1, 2), inner: pick(1, extent), groups: pick(1, 5), columns: pick(1, extent) }
}

function reduction(shape: (minRank: number, maxRank: number) => number[], pick: Pick): Sample {
  const from = shape(1, 4)
  const axes = from.map((_, i) => i).filter(() => pick(0, 1) === 0)
  return { inputs: [f64(from)], attrs: { axes: axes.length === 0 ? [pick(0, from.length - 1)] : axes } }
}

/** A shape in random order, and where each axis went. */
function shuffled(shape: readonly number[], pick: Pick): { shape: number[]; at: number[] } {
  const order = shape.map((_, i) => i)
  for (let i = order.length - 1; i > 0; i--) {
    const j = pick(0, i)
    ;[order[i], order[j]] = [order[j]!, order[i]!]
  }
  return { shape: order.map((i) => shape[i]!), at: shape.map((_, i) => order.indexOf(i)) }
}
