/**
 * Large products that are no chain's: gradients of weights, and products of few rows with much weight. A thread owns a
 * rectangle of the result and packs what it needs of both operands for itself, a block at a time, into buffers that stay
 * in its cache: memory is read once, and nobody waits. The contracted axis is never split between threads.
 */
import { accumulator, type DotSpec, type GemmPlan } from './gemm-plan.ts'
import { blocksOfDepth, isPlain, readsFew, stayingPanels } from './gemm-rows.ts'
import {
  cTypes,
  floatBytes,
  lanesOf,
  roundUp,
  type Float,
  type Support,
  type VectorTarget,
} from './prelude.ts'

/** Bytes of packed b beside a block of a that stays, and where every block of a passes by the same b. */
const smallPanels = 512 * 1024
const largePanels = 4 << 20

/** Whether a product is large enough to be packed by each thread for itself, and b is not better read where it lies. */
export function goesDeep(spec: DotSpec, target: VectorTarget): boolean {
  const { a, b, m, n, k } = spec
  const readable = b.colStride === 1 && readsFew(spec, target) && k * n <= 1 << 20
  return (
    isPlain(spec) && (a.colStride === 1 || a.rowStride === 1) && m >= 96 && k * n >= 128 * 1024 && !readable
  )
}

/** The plan of the team's driver with a split into rectangles and private blocks. */
export function planDeep(
  plan: GemmPlan,
  spec: DotSpec,
  target: VectorTarget,
  depth = Math.ceil(spec.k / Math.ceil(spec.k / 768)),
): GemmPlan {
  const acc = accumulator(spec)
  const bytes = floatBytes[acc]
  const { rows, vectors, panels } = plan
  const tiles = Math.ceil(spec.m / rows)
  const split = chooseSplit(spec, tiles, panels, target.threads)
  const blocks = blocksOfDepth(depth, rows, bytes)
  const ownTiles = Math.ceil(tiles / split.rowParts)
  const ownPanels = Math.ceil(panels / split.columnParts)
  const panelBytes = blocks.depthAtOnce * vectors * lanesOf(acc, target) * bytes
  const staying = stayingPanels(vectors, blocks.depthAtOnce, target)
  const budget = ownTiles <= blocks.tilesAtOnce ? smallPanels : largePanels
  const packA = spec.a.colStride !== 1
  const panelsAtOnce = Math.min(ownPanels, packA ? Math.max(1, Math.floor(budget / panelBytes)) : staying)
  const aBytes = packA ? Math.min(ownTiles, blocks.tilesAtOnce) * rows * blocks.depthAtOnce * bytes : 0
  return {
    ...plan,
    ...blocks,
    ...split,
    firstPacked: 0,
    panelsAtOnce,
    packA,
    copies: 1,
    sharedBytes: 0,
    privateBytes: roundUp(panelsAtOnce * panelBytes, 64) + roundUp(aBytes, 64),
  }
}

/** Rectangles of about equal work under which a thread packs least: n / columnParts columns of b, m / rowParts rows of a. */
export function chooseSplit(
  { m, n }: DotSpec,
  tiles: number,
  panels: number,
  threads: number,
): Pick<GemmPlan, 'rowParts' | 'columnParts'> {
  let best = { rowParts: 1, columnParts: 1, cost: Infinity }
  for (let columnParts = 1; columnParts <= Math.min(threads, panels); columnParts++) {
    const rowParts = Math.min(tiles, Math.floor(threads / columnParts))
    const share = Math.ceil(tiles / rowParts) * Math.ceil(panels / columnParts)
    // A packed element costs about as much as 32 columns or rows of arithmetic with it.
    const cost = share / (tiles * panels) + 32 * (1 / (columnParts * m) + 1 / (rowParts * n))
    if (cost < best.cost) best = { rowParts, columnParts, cost }
  }
  return { rowParts: best.rowParts, columnParts: best.columnParts }
}

/** The copy of a tile of the left operand. */
export function emitTilePacking(acc: Float): Support {
  const T = cTypes[acc]
  const copyRows = (rows: number): string =>
    `if (g->rows == ${rows} && count == ${rows}) for (long q = 0; q < depth; q++) memcpy(out + q * ${rows}, in + q * g->aColumn, ${rows} * sizeof *out);`
  return {
    name: `gemm_pack_tile_${acc}`,
    code: `
/* A tile of rows of a, contiguous in memory along its rows, as [depth, rows]. */
static void gemm_pack_tile_${acc}(const gemm_plan *g, const long count, const long depth, const ${T} *in, ${T} *out) {
  ${[12, 8, 6].map(copyRows).join('\n  else ')}
  else
    for (long q = 0; q < depth; q++)
      for (long r = 0; r < count; r++) out[q * g->rows + r] = in[q * g->aColumn + r];
}
`,
  }
}

export function emitDeepDriver(acc: Float, target: VectorTarget): Support {
  const T = cTypes[acc]
  const lanes = lanesOf(acc, target)
  return {
    name: `gemm_deep_${acc}`,
    code: `
static void gemm_deep_${acc}(const int tid, const gemm_plan *g, const ${T} *a, const ${T} *b, ${T} *out, void *scratch) {
  const long whole = g->vectors * ${lanes}, tiles = (g->m + g->rows - 1) / g->rows;
  const long rowPart = tid % g->rowParts, columnPart = tid / g->rowParts;
  if (columnPart >= g->columnParts) return;
  const long tileFirst = tiles * rowPart / g->rowParts, tileEnd = tiles * (rowPart + 1) / g->rowParts;
  const long panelFirst = g->panels * columnPart / g->columnParts, panelEnd = g->panels * (columnPart + 1) / g->columnParts;
  ${T} *packedB = (${T} *)((char *)scratch + tid * g->privateBytes);
  ${T} *packedA = packedB + g->panelsAtOnce * g->depthAtOnce * whole;
  for (long p = 0; p < g->k; p += g->depthAtOnce) {
    const long depth = least(g->depthAtOnce, g->k - p);
    for (long panel = panelFirst; panel < panelEnd; panel += g->panelsAtOnce) {
      const long next = least(panel + g->panelsAtOnce, panelEnd);
      for (long q = panel; q < next; q++)
        gemm_pack_panel_${acc}(g, b, q, p, p + depth, packedB + (q - panel) * depth * whole);
      for (long tile = tileFirst; tile < tileEnd; tile += g->tilesAtOnce) {
        const long end = least(tile + g->tilesAtOnce, tileEnd), first = tile * g->rows, last = least(end * g->rows, g->m);
        const ${T} *left = a + first * g->aRow + p;
        long aRow = g->aRow, aColumn = 1, aTile = g->rows * g->aRow;
        if (g->packA) {
          for (long t = tile; t < end; t++)
            gemm_pack_tile_${acc}(g, least(g->rows, g->m - t * g->rows), depth, a + t * g->rows + p * g->aColumn,
                            packedA + (t - tile) * depth * g->rows);
          left = packedA, aRow = 1, aColumn = g->rows, aTile = depth * g->rows;
        }
        gemm_tiles_${acc}(g, first, last, panel, next, depth, left, aRow, aColumn, aTile, packedB, 0, depth * whole, 0, out, p > 0);
        COUNT(2 * depth * (last - first) * (least(g->n, next * whole) - panel * whole));
      }
    }
  }
}
`,
  }
}
