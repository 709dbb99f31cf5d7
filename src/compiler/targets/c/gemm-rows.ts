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
export const readsWhereItLies = (spec: DotSpec, plan: GemmPlan, target: VectorTarget): boolean =>
  spec.n % lanesOf(accumulator(spec), target) === 0 &&
  spec.b.colStride === 1 &&
  (readsFew(spec, target) || (plan.panels === 1 && spec.b.rowStride === spec.n))

/**
 * Whether a copy of b is not worth it: few rows of a; or twice as many, a b that stays in the second-level cache, and
 * vectors of a whole line. (Of shorter ones two wait for each line: with AVX2 [512, 512] [512, 512] runs at 85 % of the
 * peak from a copy and at 78 % without.)
 */
export const readsFew = ({ m, n, k }: DotSpec, { vectorBytes }: VectorTarget): boolean =>
  m <= 256 || (m <= 512 && k * n <= 256 * 1024 && vectorBytes === 64)

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

/** Bytes of b that stay in the second-level cache while rows of a pass by. */
const stayingBytes = 768 * 1024

/** How many panels stay, for a block of the contracted axis. */
export const stayingPanels = (vectors: number, depth: number, target: VectorTarget): number =>
  Math.max(1, Math.floor(stayingBytes / (depth * vectors * target.vectorBytes)))

/** The plan of the team's driver with blocks for whole rows. */
export function planRows(plan: GemmPlan, spec: DotSpec, inPlace: boolean, target: VectorTarget): GemmPlan {
  const blocks = longBlocks(spec, plan.rows, floatBytes[accumulator(spec)])
  const firstPacked = inPlace ? plan.panels : 0
  const panelsAtOnce = Math.min(plan.panels, stayingPanels(plan.vectors, blocks.depthAtOnce, target))
  return { ...plan, ...blocks, firstPacked, panelsAtOnce, packA: false, copies: 1 }
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

/**
 * The register tiles of one block: rows [first, last) x panels [panelFirst, panelEnd) x `depth` elements. Panels run inside
 * rows: those of b stay in the second-level cache, and the next rows of a come in from wherever they are, a part of them
 * during each panel. (The other way around a whole block of a would have to come in during the first panel.) A packed
 * block of a is in that cache already, beside panels that may be more than fit: there rows run inside panels.
 */
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
  const long panels = panelEnd - panelFirst, tiles = (last - first + g->rows - 1) / g->rows;
  const int packed = aColumn != 1;
  /* Rows that lie one behind the other are asked for as one run, shared out among the panels; others one a panel. */
  const long run = aRow == depth ? (g->rows + panels - 1) / panels : 1, soonRow = aRow == depth ? run * depth : aRow;
  for (long unit = 0; unit < tiles * panels; unit++) {
    const long tile = packed ? unit % tiles : unit / panels, across = packed ? unit / tiles : unit % panels;
    const long panel = panelFirst + across, i = first + tile * g->rows, rows = least(g->rows, last - i);
    const ${T} *left = a + tile * aTile;
    const int asks = !packed && across * run < g->rows;
    const ${T} *soon = asks ? left + aTile + across * soonRow : left;
    const long soonStep = asks ? run : 0;
    const int lastPanel = panel == g->panels - 1;
    const long width = (lastPanel ? g->tailVectors : g->vectors) * ${lanes}, columns = least(width, g->n - panel * whole);
    const long line = bRow ? bRow : width;
    const ${T} *right = b + across * bPanel + bSkip * line;
    tile_${acc} *compute = (tile_${acc} *)g->tiles[2 * lastPanel + (rows < g->rows)];
    ${T} *target = out + i * g->n + panel * whole;
    if (columns == width) {
      compute(depth, left, aRow, aColumn, right, line, target, g->n, accumulate, soon, soonStep);
      continue;
    }
    if (accumulate)
      for (long r = 0; r < rows; r++)
        for (long j = 0; j < columns; j++) edge[r * width + j] = target[r * g->n + j];
    compute(depth, left, aRow, aColumn, right, line, edge, width, accumulate, soon, soonStep);
    for (long r = 0; r < rows; r++)
      for (long j = 0; j < columns; j++) target[r * g->n + j] = edge[r * width + j];
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
      const long bPanel = packed ? g->k * whole : whole;
      for (long panel = 0; panel < g->panels; panel += g->panelsAtOnce)
        gemm_tiles_${acc}(g, first, last, panel, least(panel + g->panelsAtOnce, g->panels), least(g->depthAtOnce, g->k - p), left,
                       g->aRow, 1, g->rows * g->aRow, b + panel * bPanel, packed ? 0 : g->bRow, bPanel, p, out, p > 0);
    }
  }
}
`,
  }
}
