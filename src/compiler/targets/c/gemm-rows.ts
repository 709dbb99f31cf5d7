/**
 * Matrix products that are shared out by rows: a thread computes whole rows of the result, so that what made those rows
 * of `a` and what uses the result can run in the same chain (schedule.ts). `b`, the weights, is packed once before, by a
 * kernel of its own, unless it is better read where it lies.
 */
import { accumulator, batchesOf, type DotSpec, type GemmPlan } from './gemm-plan.ts'
import {
  cTypes,
  floatBytes,
  lanesOf,
  roundUp,
  type Float,
  type Support,
  type VectorTarget,
} from './prelude.ts'

/** No batches, one element type throughout, and more than one column. */
export function isPlain(spec: DotSpec): boolean {
  const acc = accumulator(spec)
  return (
    batchesOf(spec) === 1 && spec.a.dtype === acc && spec.b.dtype === acc && spec.out === acc && spec.n > 1
  )
}

/**
 * Whether a product is shared out by rows: rows enough for every thread, `a` readable as it is, and so many rows, or so
 * small a `b`, that packing it through memory costs little.
 */
export function goesByRows(spec: DotSpec, target: VectorTarget): boolean {
  const { a, m, n, k } = spec
  const bytes = k * n * floatBytes[accumulator(spec)]
  const cheap = bytes <= 1 << 20 || (m >= 1024 && bytes <= 4 << 20)
  return isPlain(spec) && a.colStride === 1 && m >= 48 * target.threads && cheap
}

/**
 * Whether b is read where it lies: it is one panel of whole vectors already, or so few rows of a pass by that a copy is
 * not worth its cost.
 */
export const readsWhereItLies = ({ b, m, n }: DotSpec, plan: GemmPlan, lanes: number): boolean =>
  n % lanes === 0 && b.colStride === 1 && (m <= fewRows || (plan.panels === 1 && b.rowStride === n))

/** Rows of a that make a copy of b worth it. */
export const fewRows = 256

/** Blocks that the register tiles like: long in depth, and as many rows of a as the second-level cache holds. */
export function longBlocks(
  { k }: DotSpec,
  rows: number,
  bytes: number,
): Pick<GemmPlan, 'depthAtOnce' | 'tilesAtOnce'> {
  return blocksOfDepth(Math.ceil(k / Math.ceil(k / 768)), rows, bytes)
}

export const blocksOfDepth = (
  depthAtOnce: number,
  rows: number,
  bytes: number,
): Pick<GemmPlan, 'depthAtOnce' | 'tilesAtOnce'> => ({
  depthAtOnce,
  tilesAtOnce: Math.max(1, Math.floor((1024 * 1024) / (depthAtOnce * bytes * rows))),
})

/** The plan of the team's driver with blocks for whole rows. */
export function planRows(plan: GemmPlan, spec: DotSpec, inPlace: boolean): GemmPlan {
  const blocks = longBlocks(spec, plan.rows, floatBytes[accumulator(spec)])
  const firstPacked = inPlace ? plan.panels : 0
  return { ...plan, ...blocks, firstPacked, panelsAtOnce: plan.panels, packA: false, copies: 1 }
}

/** Bytes of the copy of b. */
export function packedBytes(
  { panels, vectors, tailVectors }: GemmPlan,
  spec: DotSpec,
  target: VectorTarget,
): number {
  const acc = accumulator(spec)
  const columns = ((panels - 1) * vectors + tailVectors) * lanesOf(acc, target)
  return roundUp(columns * spec.k * floatBytes[acc], 64)
}

/** The register tiles of one block: rows [first, last) x panels [panelFirst, panelEnd) x `depth` elements. */
export function emitTilesDriver(acc: Float, edge: number, target: VectorTarget): Support {
  const T = cTypes[acc]
  const lanes = lanesOf(acc, target)
  return {
    name: `gemm_tiles_${acc}`,
    code: `
/* The left operand of a tile starts aTile elements behind the one before, a panel of the right one bPanel behind panelFirst's;
 * its rows lie bRow apart, or side by side (0), and the first bSkip of them belong to other blocks. */
static void gemm_tiles_${acc}(const gemm_plan *g, const long first, const long last, const long panelFirst, const long panelEnd,
                      const long depth, const ${T} *a, const long aRow, const long aColumn, const long aTile, const ${T} *b,
                      const long bRow, const long bPanel, const long bSkip, ${T} *out, const int accumulate) {
  const long whole = g->vectors * ${lanes};
  ${T} edge[${edge}] __attribute__((aligned(64)));
  for (long panel = panelFirst; panel < panelEnd; panel++, b += bPanel) {
    const int lastPanel = panel == g->panels - 1;
    const long width = (lastPanel ? g->tailVectors : g->vectors) * ${lanes}, columns = least(width, g->n - panel * whole);
    const long line = bRow ? bRow : width;
    const ${T} *right = b + bSkip * line;
    const ${T} *left = a;
    for (long i = first; i < last; i += g->rows, left += aTile) {
      const long rows = least(g->rows, last - i);
      tile_${acc} *compute = (tile_${acc} *)g->tiles[2 * lastPanel + (rows < g->rows)];
      ${T} *target = out + i * g->n + panel * whole;
      if (panel == panelFirst && aColumn == 1) /* the next rows of a come in meanwhile */
        for (long r = 0; r < g->rows; r++)
          for (long p = 0; p < depth; p += 64 / (long)sizeof *a) __builtin_prefetch(left + aTile + r * aRow + p);
      if (columns == width) {
        compute(depth, left, aRow, aColumn, right, line, target, g->n, accumulate);
        continue;
      }
      if (accumulate)
        for (long r = 0; r < rows; r++)
          for (long j = 0; j < columns; j++) edge[r * width + j] = target[r * g->n + j];
      compute(depth, left, aRow, aColumn, right, line, edge, width, accumulate);
      for (long r = 0; r < rows; r++)
        for (long j = 0; j < columns; j++) target[r * g->n + j] = edge[r * width + j];
    }
  }
}
`,
  }
}

/** The driver: rows [begin, end) of the result, from panels of b, packed or where they lie. */
export function emitRowsDriver(acc: Float, target: VectorTarget): Support {
  const T = cTypes[acc]
  return {
    name: `gemm_rows_${acc}`,
    code: `
static void gemm_rows_${acc}(const int tid, const gemm_plan *g, const long begin, const long end, const ${T} *a, const ${T} *b, ${T} *out) {
  const long whole = g->vectors * ${lanesOf(acc, target)}, rowsAtOnce = g->rows * g->tilesAtOnce;
  for (long first = begin; first < end; first += rowsAtOnce) {
    const long last = least(first + rowsAtOnce, end);
    COUNT(2 * g->k * g->n * (last - first));
    for (long p = 0; p < g->k; p += g->depthAtOnce) {
      const ${T} *left = a + first * g->aRow + p;
      const int packed = g->firstPacked == 0;
      gemm_tiles_${acc}(g, first, last, 0, g->panels, least(g->depthAtOnce, g->k - p), left, g->aRow, 1, g->rows * g->aRow, b,
                     packed ? 0 : g->bRow, packed ? g->k * whole : whole, p, out, p > 0);
    }
  }
}
`,
  }
}
