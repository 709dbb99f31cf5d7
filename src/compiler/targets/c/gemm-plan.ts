/**
 * How one matrix product is cut: register tile, split over threads, blocks along the contracted axis, which operand is
 * copied ("packed") and where. All of it is decided when the program is emitted, by counting cycles of the tile; the
 * emitted driver only follows. The contracted axis is never split over threads, and blocks of it are added in order, so
 * the split over threads cannot change a bit of the result.
 */
import { floatBytes, lanesOf, roundUp, type Float, type VectorTarget } from './prelude.ts'
import { maxRows, maxVectors } from './tile.ts'

export type Element = 'f32' | 'f64' | 'bf16' | 'f16'

/** Element (i, p) of a is a[i * rowStride + p * colStride]; element (p, j) of b is b[p * rowStride + j * colStride]. */
export interface Operand {
  readonly dtype: Element
  /** In elements; 0 broadcasts. */
  readonly rowStride: number
  readonly colStride: number
}

export interface BatchDim {
  readonly size: number
  /** Strides of the operands along it, in elements; 0 broadcasts. */
  readonly a: number
  readonly b: number
}

/** out[batch…, m, n] = a[batch…, m, k] b[batch…, k, n], out dense and row-major. */
export interface DotSpec {
  readonly a: Operand
  readonly b: Operand
  readonly out: Element
  readonly batchDims: readonly BatchDim[]
  readonly m: number
  readonly n: number
  readonly k: number
  /** The contracted axis in equal runs, each summed by itself and added pairwise: see ops/leaves.ts. */
  readonly leaves?: number
}

export interface GemmPlan {
  /** Rows of a register tile, and of the last one of a matrix. */
  readonly rows: number
  readonly tailRows: number
  /** Vectors of a panel of columns, and of the last panel. */
  readonly vectors: number
  readonly tailVectors: number
  readonly panels: number
  /** Panels from this one on are copied; those before are read in place. */
  readonly firstPacked: number
  /** Panels copied at a time, so that the copy is bounded. */
  readonly panelsAtOnce: number
  /** Whether a is copied too: see `copiesA`. */
  readonly packA: boolean
  /** Block of the contracted axis, and register tiles that one thread takes through it at a time. */
  readonly depthAtOnce: number
  readonly tilesAtOnce: number
  /** Threads along rows (of all batches) and along panels; their product is at most the team. */
  readonly rowParts: number
  readonly columnParts: number
  /** How many different b there are among the batches. */
  readonly copies: number
  readonly sharedBytes: number
  readonly privateBytes: number
}

export const accumulator = (spec: DotSpec): Float => (spec.a.dtype === 'f64' ? 'f64' : 'f32')

export const batchesOf = (spec: DotSpec): number =>
  spec.batchDims.reduce((product, dim) => product * dim.size, 1)

/** Plans a product for a machine; `splits` says whether threads may share out columns, too. */
export function planGemm(spec: DotSpec, target: VectorTarget, splits: 'rows' | 'both' = 'both'): GemmPlan {
  const { m, n, k } = spec
  const dtype = accumulator(spec)
  const bytes = floatBytes[dtype]
  const lanes = lanesOf(dtype, target)
  const shape = chooseTile(spec, target, splits === 'both' ? target.threads : 1)
  const { rows, vectors, panels, tailVectors } = shape

  // Short blocks keep a panel of b in the first-level cache; long ones load and store the result less often.
  const single = k <= 512 || spec.out !== dtype
  const depthAtOnce = single ? k : Math.ceil(k / Math.ceil(k / 320))
  const tilesAtOnce = Math.max(1, Math.floor((512 * 1024) / (depthAtOnce * bytes * rows)))

  const firstPacked = readsInPlace(spec) ? (n % lanes === 0 ? panels : panels - 1) : 0
  const copies = spec.batchDims.some((dim) => dim.b !== 0) ? batchesOf(spec) : 1
  const panelBytes = copies * k * vectors * lanes * bytes
  const bounded = Math.max(1, Math.floor((8 << 20) / panelBytes))
  const panelsAtOnce = Math.min(panels, roundUp(bounded, shape.columnParts))
  const packedPanels = firstPacked === panels ? 0 : Math.min(panels - firstPacked, panelsAtOnce)
  const packA = copiesA(spec)
  return {
    ...shape,
    tailRows: m - (Math.ceil(m / rows) - 1) * rows,
    tailVectors,
    firstPacked,
    panelsAtOnce,
    packA,
    depthAtOnce,
    tilesAtOnce,
    copies,
    sharedBytes: roundUp(packedPanels * panelBytes, 64),
    privateBytes: packA
      ? roundUp(Math.min(tilesAtOnce, Math.ceil(m / rows)) * rows * depthAtOnce * bytes, 64)
      : 0,
  }
}

type Shape = Pick<GemmPlan, 'rows' | 'vectors' | 'tailVectors' | 'panels' | 'rowParts' | 'columnParts'>

/** The tile and the split over threads under which the busiest thread needs the fewest cycles. */
function chooseTile(spec: DotSpec, target: VectorTarget, mostParts: number): Shape {
  const columns = Math.ceil(spec.n / lanesOf(accumulator(spec), target))
  let best: Shape | undefined
  let bestCycles = Infinity
  for (let vectors = Math.min(maxVectors, columns); vectors >= 1; vectors--) {
    const panels = Math.ceil(columns / vectors)
    const tailVectors = columns - (panels - 1) * vectors
    const rows = Math.min(spec.m, maxRows(vectors, target))
    const tiles = batchesOf(spec) * Math.ceil(spec.m / rows)
    const whole = tileCycles(rows, vectors, spec.k, target)
    const tail = tileCycles(rows, tailVectors, spec.k, target)
    for (let columnParts = 1; columnParts <= Math.min(mostParts, panels); columnParts++) {
      const rowParts = Math.min(tiles, Math.floor(target.threads / columnParts))
      const mostPanels = Math.ceil(panels / columnParts)
      // With one part the last, narrower panel is in the count; with several the busiest thread need not have it.
      const across = columnParts === 1 ? (panels - 1) * whole + tail : mostPanels * whole
      const cycles = Math.ceil(tiles / rowParts) * across
      if (cycles < bestCycles) {
        bestCycles = cycles
        best = { rows, vectors, tailVectors, panels, rowParts, columnParts }
      }
    }
  }
  return best!
}

/**
 * Cycles of one tile: two multiply-adds and two loads a cycle, results 4 to 5 cycles later, and a fixed cost for a call.
 * A panel beyond half of the first-level cache comes from the second for every tile, at no more than about 20 bytes a cycle
 * beside all else.
 */
function tileCycles(rows: number, vectors: number, depth: number, target: VectorTarget): number {
  const line = vectors * target.vectorBytes
  const stream = line * depth > 24 * 1024 ? line / 20 : 0
  const step = Math.max((rows * vectors) / 2, (rows + vectors) / 2, 5, stream)
  return step * depth + 2 * rows * vectors + 30
}

/**
 * Whether whole panels of b are read where they are. Rows must be contiguous and of the right type; and a copy, which
 * the prefetcher and the caches like better, must not be worth its cost, because only few rows of a use it.
 */
function readsInPlace(spec: DotSpec): boolean {
  const { b, m } = spec
  return b.dtype === accumulator(spec) && (b.colStride === 1 || spec.n === 1) && m <= 256
}

/** Whether a is copied: to convert it, to make one of its strides 1, or because its columns are far apart and much used. */
function copiesA(spec: DotSpec): boolean {
  const { dtype, rowStride, colStride } = spec.a
  if (dtype !== accumulator(spec) || (rowStride !== 1 && colStride !== 1)) return true
  return colStride !== 1 && colStride * floatBytes[dtype] >= 1024 && spec.n >= 256
}
