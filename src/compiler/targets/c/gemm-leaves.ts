/**
 * Large products in leaves (ops/leaves.ts): gradients of weights whose sums over the batch must not depend on how it is
 * spread. As in gemm-deep.ts, a thread owns a rectangle of the result and packs what it needs for itself. Blocks of the
 * contracted axis end where leaves end. A register tile adds up the leaves of a block by itself; its sum then carries
 * like a digit of a binary counter: into the sum of an equally large run that waits for it, as often as there is one,
 * else it waits, in a copy of the rectangle. So there are as many additions as without leaves, and for 2^i blocks i
 * copies, of a bounded part of the rectangle at a time.
 */
import { accumulator, type DotSpec, type GemmPlan } from './gemm-plan.ts'
import { goesDeep, planDeep } from './gemm-deep.ts'
import { isPlain } from './gemm-rows.ts'
import {
  cTypes,
  floatBytes,
  lanesOf,
  roundUp,
  type Float,
  type Support,
  type VectorTarget,
} from './prelude.ts'
import type { Tile } from './tile.ts'

/** Steps of the contracted axis that a packed block may have. */
const mostDepth = 768

/** Leaves that a register tile takes at a time; a sum for each halving of them waits beside it. */
const mostHalves = 64

/** Bytes of sums that wait, for each thread. */
const waitingBytes = 8 << 20

export interface LeafPlan extends GemmPlan {
  /** Leaves of a block, or blocks of a leaf: one of the two is 1. */
  readonly leavesAtOnce: number
  readonly blocksOfLeaf: number
  readonly leafDepth: number
  /** Runs of leaves that are carried, 2^levels of them. */
  readonly runs: number
  readonly levels: number
  /** Panels of columns and tiles of rows whose sums wait at a time, and elements of one copy of them. */
  readonly panelsOfSums: number
  readonly tilesOfSums: number
  readonly levelSize: number
}

/** Whether a product is worth it: large, or too large to be kept once for each leaf. */
export function goesInLeaves(spec: DotSpec, target: VectorTarget): boolean {
  const { a, m, n, leaves = 1 } = spec
  const usable = isPlain(spec) && (a.colStride === 1 || a.rowStride === 1)
  return goesDeep(spec, target) || (usable && leaves * m * n > 1 << 20)
}

export function planLeaves(base: GemmPlan, spec: DotSpec, target: VectorTarget): LeafPlan {
  const leaves = spec.leaves!
  const leafDepth = spec.k / leaves
  let leavesAtOnce = 1
  while (leavesAtOnce < Math.min(leaves, mostHalves) && 2 * leavesAtOnce * leafDepth <= mostDepth)
    leavesAtOnce *= 2
  const blocksOfLeaf = leavesAtOnce > 1 ? 1 : Math.ceil(leafDepth / mostDepth)
  const depthAtOnce = leavesAtOnce > 1 ? leavesAtOnce * leafDepth : Math.ceil(leafDepth / blocksOfLeaf)
  const deep = planDeep(base, spec, target, depthAtOnce)
  const acc = accumulator(spec)
  const runs = leaves / leavesAtOnce
  const levels = Math.log2(runs)
  const tiles = Math.ceil(spec.m / deep.rows)
  const whole = deep.vectors * lanesOf(acc, target)
  const ownTiles = Math.ceil(tiles / deep.rowParts)
  const ownPanels = Math.ceil(deep.panels / deep.columnParts)
  // Bytes that wait for one tile; many columns of moderately many rows, then as many rows as may be.
  const tileBytes = Math.max(1, levels) * deep.rows * whole * floatBytes[acc]
  const fitting = (count: number): number => Math.max(1, Math.floor(waitingBytes / (tileBytes * count)))
  const moderate = Math.min(ownTiles, Math.ceil(1024 / deep.rows))
  const panelsOfSums = Math.min(ownPanels, Math.max(deep.panelsAtOnce, fitting(moderate)))
  const tilesOfSums = Math.min(ownTiles, fitting(panelsOfSums))
  const levelSize = tilesOfSums * deep.rows * panelsOfSums * whole
  return {
    ...deep,
    leavesAtOnce,
    blocksOfLeaf,
    leafDepth,
    runs,
    levels,
    panelsOfSums,
    tilesOfSums,
    levelSize,
    privateBytes: deep.privateBytes + roundUp(levels * levelSize, 16) * floatBytes[acc],
  }
}

export const leafFields = [
  'leavesAtOnce',
  'blocksOfLeaf',
  'leafDepth',
  'runs',
  'levels',
  'panelsOfSums',
  'tilesOfSums',
  'levelSize',
] as const

export const leafTileName = ({ dtype, rows, vectors }: Tile): string =>
  `leaf_tile_${dtype}_${rows}x${vectors}`

const parameters = (dtype: Float): string => {
  const T = cTypes[dtype]
  return `const leaf_block_${dtype} *k, const ${T} *a, const ${T} *b, const ${T} *waiting, ${T} *out, const long outRow`
}

/** What all tiles of a block share, and the type of their functions. */
export const leafTileType = (dtype: Float): Support => ({
  name: `leaf_tile_${dtype}`,
  code: `
/* Leaves of a block and steps of each; strides of its operands; whether it goes on with the sum in \`out\`; and how many
 * sums that wait it is added to, \`level\` elements apart, with rows \`row\` apart. */
typedef struct { long leaves, depth, aRow, aColumn, bRow, resumes, carries, level, row; } leaf_block_${dtype};
typedef void leaf_tile_${dtype}(${parameters(dtype)});
`,
})

/** C text of a register tile: see tile.ts. */
export function emitLeafTile(tile: Tile): Support {
  const { dtype, rows, vectors } = tile
  const V = `v${dtype}`
  const eachRow = `_Pragma("GCC unroll ${rows}") for (int i = 0; i < ${rows}; i++)`
  const eachVector = `_Pragma("GCC unroll ${vectors}") for (int j = 0; j < ${vectors}; j++)`
  const at = (base: string, row: string): string =>
    `*(const ${V}u *)(${base} + i * ${row} + j * LANES_${dtype})`
  return {
    name: leafTileName(tile),
    code: `
static __attribute__((noinline)) void ${leafTileName(tile)}(${parameters(dtype)}) {
  ${V} sum[${rows}][${vectors}], halves[${Math.log2(mostHalves)}][${rows}][${vectors}];
  if (k->resumes) ${eachRow} ${eachVector} sum[i][j] = ${at('out', 'outRow')};
  else ${eachRow} ${eachVector} sum[i][j] = (${V}){0};
  for (long leaf = 0;;) {
    for (long p = 0; p < k->depth; p++, a += k->aColumn, b += k->bRow) {
      ${V} line[${vectors}];
      ${eachVector} line[j] = *(const ${V}u *)(b + j * LANES_${dtype});
      ${eachRow} ${eachVector} sum[i][j] += a[i * k->aRow] * line[j];
    }
    int level = 0;
    for (; leaf >> level & 1; level++) ${eachRow} ${eachVector} sum[i][j] = halves[level][i][j] + sum[i][j];
    if (++leaf == k->leaves) break;
    ${eachRow} ${eachVector} halves[level][i][j] = sum[i][j];
    ${eachRow} ${eachVector} sum[i][j] = (${V}){0};
  }
  for (long c = 0; c < k->carries; c++, waiting += k->level)
    ${eachRow} ${eachVector} sum[i][j] = ${at('waiting', 'k->row')} + sum[i][j];
  ${eachRow} ${eachVector} *(${V}u *)(out + i * outRow + j * LANES_${dtype}) = sum[i][j];
}
`,
  }
}

export function emitLeafDriver(acc: Float, edge: number, target: VectorTarget): Support {
  const T = cTypes[acc]
  const lanes = lanesOf(acc, target)
  return {
    name: `gemm_leaves_${acc}`,
    code: `
static void gemm_leaves_${acc}(const int tid, const gemm_plan *g, const ${T} *a, const ${T} *b, ${T} *out, void *scratch) {
  const long whole = g->vectors * ${lanes}, tiles = (g->m + g->rows - 1) / g->rows;
  const long rowPart = tid % g->rowParts, columnPart = tid / g->rowParts;
  if (columnPart >= g->columnParts) return;
  const long tileFirst = tiles * rowPart / g->rowParts, tileEnd = tiles * (rowPart + 1) / g->rowParts;
  const long panelFirst = g->panels * columnPart / g->columnParts, panelEnd = g->panels * (columnPart + 1) / g->columnParts;
  ${T} *const waiting = (${T} *)((char *)scratch + tid * g->privateBytes);
  ${T} *const packedB = waiting + (g->levels * g->levelSize + 15) / 16 * 16;
  ${T} *const packedA = packedB + g->panelsAtOnce * g->depthAtOnce * whole;
  ${T} edge[${edge}] __attribute__((aligned(64)));
  for (long rowsFirst = tileFirst; rowsFirst < tileEnd; rowsFirst += g->tilesOfSums)
  for (long group = panelFirst; group < panelEnd; group += g->panelsOfSums)
    for (long block = 0; block < g->runs * g->blocksOfLeaf; block++) {
      const long run = block / g->blocksOfLeaf, part = block % g->blocksOfLeaf;
      const int lastRun = run == g->runs - 1, lastPart = part == g->blocksOfLeaf - 1;
      const long p = run * g->leavesAtOnce * g->leafDepth + part * g->depthAtOnce;
      const long depth = least(g->depthAtOnce, (run + 1) * g->leavesAtOnce * g->leafDepth - p);
      long carries = 0; /* digits of the counter that are 1 */
      while (run >> carries & 1) carries++;
      const long rowsEnd = least(rowsFirst + g->tilesOfSums, tileEnd);
      const long groupEnd = least(group + g->panelsOfSums, panelEnd), sumRow = g->panelsOfSums * whole;
      leaf_block_${acc} k = {g->leavesAtOnce, depth / g->leavesAtOnce, g->aRow, g->aColumn, 0,
                          part > 0, lastPart ? carries : 0, g->levelSize, sumRow};
      for (long panels = group; panels < groupEnd; panels += g->panelsAtOnce) {
        const long next = least(panels + g->panelsAtOnce, groupEnd);
        for (long q = panels; q < next; q++)
          gemm_pack_panel_${acc}(g, b, q, p, p + depth, packedB + (q - panels) * depth * whole);
        for (long tile = rowsFirst; tile < rowsEnd; tile += g->tilesAtOnce) {
          const long end = least(tile + g->tilesAtOnce, rowsEnd);
          const ${T} *leftFirst = a + tile * g->rows * g->aRow + p * g->aColumn;
          long aTile = g->rows * g->aRow;
          if (g->packA) {
            for (long t = tile; t < end; t++)
              gemm_pack_tile_${acc}(g, least(g->rows, g->m - t * g->rows), depth, a + t * g->rows + p * g->aColumn,
                              packedA + (t - tile) * depth * g->rows);
            leftFirst = packedA, k.aRow = 1, k.aColumn = g->rows, aTile = depth * g->rows;
          }
          for (long panel = panels; panel < next; panel++) {
            const int lastPanel = panel == g->panels - 1;
            const long width = (lastPanel ? g->tailVectors : g->vectors) * ${lanes}, columns = least(width, g->n - panel * whole);
            const ${T} *right = packedB + (panel - panels) * depth * whole, *left = leftFirst;
            k.bRow = width;
            for (long t = tile; t < end; t++, left += aTile) {
              const long i = t * g->rows, rows = least(g->rows, g->m - i);
              leaf_tile_${acc} *compute = (leaf_tile_${acc} *)g->tiles[2 * lastPanel + (rows < g->rows)];
              ${T} *const sums = waiting + (t - rowsFirst) * g->rows * sumRow + (panel - group) * whole;
              ${T} *const target = out + i * g->n + panel * whole;
              if (panel == panels && k.aColumn == 1) /* the next rows of a come in meanwhile */
                for (long r = 0; r < g->rows; r++)
                  for (long q = 0; q < depth; q += 64 / (long)sizeof *a) __builtin_prefetch(left + aTile + r * k.aRow + q);
              if (!lastRun) {
                compute(&k, left, right, sums, sums + carries * g->levelSize, sumRow);
              } else if (columns == width) {
                compute(&k, left, right, sums, target, g->n);
              } else {
                for (long r = 0; r < rows && part > 0; r++)
                  for (long j = 0; j < columns; j++) edge[r * width + j] = target[r * g->n + j];
                compute(&k, left, right, sums, edge, width);
                for (long r = 0; r < rows; r++)
                  for (long j = 0; j < columns; j++) target[r * g->n + j] = edge[r * width + j];
              }
            }
          }
          COUNT(2 * depth * (least(end * g->rows, g->m) - tile * g->rows) * (least(g->n, next * whole) - panels * whole));
        }
      }
    }
}
`,
  }
}
