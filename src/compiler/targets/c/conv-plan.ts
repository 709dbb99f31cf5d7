/**
 * How a convolution is cut when a program is emitted. Forward, and backward to the input, it is a matrix product whose
 * rows are positions of the result and whose depth is taps times channels; the rows of its left side are never written
 * out. Instead a thread copies the patch of the source that a block of result rows sees, with zeros at the sides, and the
 * register tile reads it several times, once for each stretch of taps that is contiguous in it.
 *
 * The input's gradient under a stride falls apart into phases: the positions with one remainder see one subset of the
 * taps, and each phase is a convolution with stride 1. The weight's gradient is the product of patch and output's
 * gradient over all positions, summed in a fixed number of leaves. Nothing that decides an order of additions depends on
 * the number of threads.
 */
import type { ConvGeometry } from '../../ops/convolution.ts'
import { floatBytes, lanesOf, roundUp, type Float, type VectorTarget } from './prelude.ts'
import { maxRows, maxVectors } from './tile.ts'

export interface ConvSpec {
  /** Which of input, weight and output is computed from the other two. */
  readonly result: 'x' | 'w' | 'y'
  readonly dtype: Float
  readonly geometry: ConvGeometry
  /** Of a weight's gradient: runs of examples that are summed by themselves and added pairwise (ops/leaves.ts). */
  readonly leaves?: number
}

type Triple = readonly [number, number, number]

/** A convolution with its result spread over a grid; three axes of space. Channels and columns are those of a group. */
export interface ConvPhase {
  readonly source: Triple
  readonly target: Triple
  /** Positions computed along each axis: position q of the grid is first + q * step of the target. */
  readonly count: Triple
  readonly first: Triple
  readonly step: Triple
  /** Tap j of position q is element q * stride + j * dilation - low of the source; low may be negative here. */
  readonly taps: Triple
  readonly stride: Triple
  readonly dilation: Triple
  readonly low: Triple
  readonly channels: number
  readonly columns: number
  /** Offsets into the weight: of the first tap, and the steps between taps, channels, columns and groups. */
  readonly weightFirst: number
  readonly weightTap: Triple
  readonly weightChannel: number
  readonly weightColumn: number
  readonly weightGroup: number
}

/** Register tile and blocks for the products of a phase. */
export interface ConvCut {
  readonly rows: number
  readonly tailRows: number
  readonly vectors: number
  readonly tailVectors: number
  readonly panels: number
  /** Planes (of all batches), and positions along the last two axes, of a block. */
  readonly blockPlanes: number
  readonly blockRows: number
  readonly blockColumns: number
  /** Elements of the patch of one plane of a block. */
  readonly patch: number
}

/** Bytes of a patch: it stays in the second-level cache beside a panel of weights. */
const patchBytes = 192 * 1024
const mostBlockRows = 8

/**
 * Positions of a block that pay for reading the weights, or for loading and storing their gradient: small planes are
 * taken several at a time. And bytes of all their patches.
 */
const enoughPositions = 512
const patchesBytes = 512 * 1024

/** Bytes of all partial weight gradients together. */
const leafBytes = 4 << 20
const mostLeaves = 16

const triple = (list: readonly number[], fill: number): Triple => [
  list.at(-3) ?? fill,
  list.at(-2) ?? fill,
  list.at(-1) ?? fill,
]
const map3 = (make: (axis: 0 | 1 | 2) => number): Triple => [make(0), make(1), make(2)]
const product = ([a, b, c]: Triple): number => a * b * c

/** Axes of one tap that are neither strided nor padded join the axis after them, so that rows are long. */
export function joined(geometry: ConvGeometry): ConvGeometry {
  const { kernel, stride, low, source, target } = geometry
  const plain = (i: number): boolean =>
    kernel[i] === 1 && stride[i] === 1 && low[i] === 0 && source[i] === target[i]
  const at = kernel.findIndex((_, i) => i > 0 && plain(i) && plain(i - 1))
  if (at < 0) return geometry
  const merge = (list: readonly number[]): number[] => list.toSpliced(at - 1, 2, list[at - 1]! * list[at]!)
  const drop = (list: readonly number[]): number[] => list.toSpliced(at, 1)
  return joined({
    ...geometry,
    source: merge(source),
    target: merge(target),
    kernel: drop(kernel),
    stride: drop(stride),
    dilation: drop(geometry.dilation),
    low: drop(low),
    extents: drop(geometry.extents),
  })
}

/** The phases of a forward convolution (one) or of the input's gradient (one for each remainder of the strides). */
export function phasesOf({ result, geometry: given }: ConvSpec): ConvPhase[] {
  const geometry = joined(given)
  const { channels, columns, groups } = geometry
  const [stride, dilation] = [triple(geometry.stride, 1), triple(geometry.dilation, 1)]
  const [kernel, low] = [triple(geometry.kernel, 1), triple(geometry.low, 0)]
  const [x, y] = [triple(geometry.source, 1), triple(geometry.target, 1)]
  const inGroup = channels / groups
  const outGroup = columns / groups
  const tap = [kernel[1] * kernel[2], kernel[2], 1].map((taps) => taps * inGroup * columns)
  const ones: Triple = [1, 1, 1]
  if (result !== 'x') {
    return [
      {
        source: x,
        target: y,
        count: y,
        first: [0, 0, 0],
        step: ones,
        taps: kernel,
        stride,
        dilation,
        low,
        channels: inGroup,
        columns: outGroup,
        weightFirst: 0,
        weightTap: triple(tap, 0),
        weightChannel: columns,
        weightColumn: 1,
        weightGroup: outGroup,
      },
    ]
  }
  // Element i of the input meets tap k at output (i + low - k * dilation) / stride, where that is whole.
  const phases: ConvPhase[] = []
  for (let p = 0; p < product(stride); p++) {
    const remainder: Triple = [
      Math.floor(p / (stride[1] * stride[2])),
      Math.floor(p / stride[2]) % stride[1],
      p % stride[2],
    ]
    const along = ([0, 1, 2] as const).map((axis) =>
      phaseAlong(kernel[axis], stride[axis], dilation[axis], low[axis], x[axis], remainder[axis]),
    )
    const pick = (key: keyof (typeof along)[number]): Triple => map3((axis) => along[axis]![key])
    if (product(pick('count')) === 0) continue
    phases.push({
      source: y,
      target: x,
      count: pick('count'),
      first: remainder,
      step: stride,
      taps: pick('taps'),
      stride: ones,
      dilation: pick('dilation'),
      low: pick('low'),
      channels: outGroup,
      columns: inGroup,
      weightFirst: along.reduce((total, { last }, axis) => total + last * tap[axis]!, 0),
      weightTap: map3((axis) => -along[axis]!.tapStep * tap[axis]!),
      weightChannel: 1,
      weightColumn: columns,
      weightGroup: outGroup,
    })
  }
  return phases
}

/** Along one axis: which taps the elements first, first + stride, … see, the last tap first, and where in the output. */
function phaseAlong(
  kernel: number,
  stride: number,
  dilation: number,
  low: number,
  extent: number,
  first: number,
): { count: number; taps: number; last: number; tapStep: number; dilation: number; low: number } {
  const found = Array.from({ length: kernel }, (_, k) => k).filter(
    (k) => (first + low - k * dilation) % stride === 0,
  )
  const count = Math.max(0, Math.ceil((extent - first) / stride))
  const tapStep = found.length > 1 ? found[1]! - found[0]! : 1
  const last = found.at(-1) ?? 0
  return {
    count,
    taps: found.length,
    last,
    tapStep,
    dilation: found.length > 1 ? (tapStep * dilation) / stride : 1,
    low: found.length === 0 ? 0 : -(first + low - last * dilation) / stride,
  }
}

/** Consecutive taps of the last axis lie side by side in a patch: one stretch. Otherwise each is its own. */
export const stretches = ({ taps, dilation }: ConvPhase): number => (dilation[2] === 1 ? 1 : taps[2])
/** Elements of a stretch, for one position. */
export const stretchDepth = (phase: ConvPhase): number =>
  (phase.channels * phase.taps[2]) / Math.max(1, stretches(phase))

/** The most rows of a tile: a narrow one has more, since its loads and not its accumulators are the limit. */
const mostRows = (vectors: number, target: VectorTarget): number =>
  vectors === 1 ? (target.registers === 32 ? 14 : 10) : maxRows(vectors, target)

interface Shape {
  readonly rows: number
  readonly tailRows: number
  readonly vectors: number
  readonly tailVectors: number
  readonly panels: number
}

/** The tile under which `rows` x `columns` results need the fewest cycles. */
export function chooseTile(rows: number, columns: number, dtype: Float, target: VectorTarget): Shape {
  const across = Math.ceil(columns / lanesOf(dtype, target))
  let best: Shape | undefined
  let bestCycles = Infinity
  for (let vectors = 1; vectors <= Math.min(maxVectors, across); vectors++) {
    const tiles = Math.ceil(rows / mostRows(vectors, target))
    const height = Math.ceil(rows / tiles)
    const panels = Math.ceil(across / vectors)
    const tailVectors = across - (panels - 1) * vectors
    const cycles = tiles * ((panels - 1) * stepCycles(height, vectors) + stepCycles(height, tailVectors))
    if (cycles < bestCycles) {
      bestCycles = cycles
      best = { rows: height, tailRows: rows - (tiles - 1) * height, vectors, tailVectors, panels }
    }
  }
  return best!
}

/** Cycles of one step of the depth: two multiply-adds and two loads a cycle, results 4 cycles later. */
const stepCycles = (rows: number, vectors: number): number =>
  Math.max((rows * vectors) / 2, (rows + vectors) / 2 + 0.5, 4)

/** Result rows and columns of a block: as many as its patch may hold, in whole tiles of `unit` columns. */
function chooseBlock(
  phase: ConvPhase,
  unit: number,
  dtype: Float,
): Pick<ConvCut, 'blockRows' | 'blockColumns' | 'patch'> {
  const span = (axis: 1 | 2, positions: number): number =>
    (positions - 1) * phase.stride[axis] + Math.max(0, phase.taps[axis] - 1) * phase.dilation[axis] + 1
  const elements = (rows: number, columns: number): number =>
    phase.taps[0] * span(1, rows) * span(2, columns) * phase.channels
  const fits = (rows: number, columns: number): boolean =>
    elements(rows, columns) * floatBytes[dtype] <= patchBytes
  let blockColumns = phase.count[2]
  while (blockColumns > unit && !fits(1, blockColumns))
    blockColumns = Math.max(unit, Math.floor(blockColumns / 2 / unit) * unit)
  let blockRows = 1
  while (blockRows < Math.min(mostBlockRows, phase.count[1]) && fits(blockRows + 1, blockColumns)) blockRows++
  // Blocks of one size.
  blockRows = Math.ceil(phase.count[1] / Math.ceil(phase.count[1] / blockRows))
  // Patches, and what lies behind them, start at whole vectors.
  return { blockRows, blockColumns, patch: roundUp(elements(blockRows, blockColumns), 16) }
}

export function cutPhase(phase: ConvPhase, batch: number, dtype: Float, target: VectorTarget): ConvCut {
  const tile = chooseTile(phase.count[2], phase.columns, dtype, target)
  const block = chooseBlock(phase, tile.rows, dtype)
  const planes = batch * phase.count[0]
  const perPlane = blocksOf(1, phase, block)
  // The busiest thread must not get more than with single planes.
  const share = (at: number): number => at * Math.ceil((Math.ceil(planes / at) * perPlane) / target.threads)
  let blockPlanes = mostPlanes(planes, block, dtype)
  while (blockPlanes > 1 && share(blockPlanes) > share(1)) blockPlanes--
  return { ...tile, ...block, blockPlanes }
}

type Block = ReturnType<typeof chooseBlock>

const mostPlanes = (planes: number, { blockRows, blockColumns, patch }: Block, dtype: Float): number =>
  Math.max(
    1,
    Math.min(
      planes,
      Math.ceil(enoughPositions / (blockRows * blockColumns)),
      Math.floor(patchesBytes / (patch * floatBytes[dtype])),
    ),
  )

/** Blocks in a number of (groups of) planes. */
const blocksOf = (planes: number, { count }: ConvPhase, { blockRows, blockColumns }: Block): number =>
  planes * Math.ceil(count[1] / blockRows) * Math.ceil(count[2] / blockColumns)

/** Elements of the packed weights of a phase. */
export const packedElements = (phase: ConvPhase, cut: Shape, groups: number, lanes: number): number =>
  groups * product(phase.taps) * phase.channels * paddedColumns(cut, lanes)

export const paddedColumns = ({ panels, vectors, tailVectors }: Shape, lanes: number): number =>
  ((panels - 1) * vectors + tailVectors) * lanes

export interface WeightCut extends ConvCut {
  /** Examples of a run, and runs of examples that the order of additions keeps apart. */
  readonly batch: number
  readonly runs: number
  /** Sums over runs of blocks, added pairwise at the end. */
  readonly leaves: number
  /** Threads that share a leaf, each with panels of its own. */
  readonly parts: number
}

export function cutWeight(
  phase: ConvPhase,
  { geometry, dtype, leaves: given }: ConvSpec,
  target: VectorTarget,
): WeightCut {
  const runs = given ?? 1
  const batch = geometry.batch / runs
  const tile = chooseTile(stretchDepth(phase), phase.columns, dtype, target)
  const block = chooseBlock(phase, 1, dtype)
  const planes = batch * phase.count[0]
  const blockPlanes = mostPlanes(planes, block, dtype)
  const blocks = blocksOf(Math.ceil(planes / blockPlanes), phase, block)
  const bytes = packedElements(phase, tile, geometry.groups, lanesOf(dtype, target)) * floatBytes[dtype]
  const leaves =
    given === undefined ? Math.max(1, Math.min(mostLeaves, blocks, Math.floor(leafBytes / bytes))) : 1
  const parts = Math.min(tile.panels, Math.ceil(target.threads / (runs * leaves)))
  return { ...tile, ...block, blockPlanes, batch, runs, leaves, parts }
}

export const scratchOf = (elements: number, dtype: Float): number => roundUp(elements * floatBytes[dtype], 64)
