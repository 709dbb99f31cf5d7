/**
 * Products of two tall matrices, transposed(a) b: gradients of weights, where the contracted axis is every position of a
 * batch and the result is small. Both operands lie in rows along that axis, so a block of it is a stretch of each, and
 * nothing of a is copied: a register tile takes neighbours of a row of a, one behind the other. The result is summed in
 * leaves (ops/leaves.ts), whose sums carry like a binary counter; where the product has none and the order is free, the
 * contracted axis is cut into some here. Threads share groups of leaves, so that each reads a part of the operands.
 *
 * Subtle: the tree of additions follows from the shape alone; a group is a subtree of it, however many threads there are.
 */
import { chooseTile } from './conv-plan.ts'
import { accumulator, type DotSpec, type GemmPlan } from './gemm-plan.ts'
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

/** Elements of a result, or of a strip of its columns, that stay in the second-level cache beside what waits for them. */
const stripElements = 128 * 1024

/** The largest result: each group has a copy. */
const mostElements = 1 << 20

/** Steps of the contracted axis in a block: with neighbours in both operands it stays in the first-level cache. */
const depthOfBlock = 64

/** Least steps of a leaf of our own, and how many there are at most. */
const ownDepth = 512
const mostOwnLeaves = 16

/** Bytes of a row of b up to which it is read where it lies; rows farther apart share few sets of a cache. */
const readBytes = 256

export interface TallPlan extends Pick<
  GemmPlan,
  'rows' | 'tailRows' | 'vectors' | 'tailVectors' | 'panels' | 'depthAtOnce' | 'privateBytes' | 'sharedBytes'
> {
  /** Whether panels of b are copied. */
  readonly packB: boolean
  readonly leafDepth: number
  /** Groups of leaves, each a subtree; the leaves of one; parts of its rows, for threads; panels of a strip. */
  readonly groups: number
  readonly leavesOfGroup: number
  readonly rowParts: number
  readonly panelsAtOnce: number
  /** Sums that wait while a group is added up. */
  readonly levels: number
}

export const tallFields = ['packB', 'groups', 'leavesOfGroup'] as const

/** Into how many leaves the contracted axis is cut: as the product says, else by its length alone. */
function leavesFor({ leaves, k }: DotSpec, { rowsAlike }: VectorTarget): number {
  if (leaves !== undefined || rowsAlike) return leaves ?? 1
  let own = 1
  while (own < mostOwnLeaves && k % (2 * own) === 0 && k / (2 * own) >= ownDepth) own *= 2
  return own
}

/** Whether both operands lie along the contracted axis, which is long beside the result. */
export function goesTall(spec: DotSpec, target: VectorTarget): boolean {
  const { a, b, m, n, k } = spec
  return (
    isPlain(spec) &&
    a.rowStride === 1 &&
    a.colStride !== 1 &&
    b.colStride === 1 &&
    m >= 16 &&
    n >= lanesOf(accumulator(spec), target) &&
    m * n <= mostElements &&
    k / leavesFor(spec, target) >= depthOfBlock &&
    k >= Math.max(m, n)
  )
}

export function planTall(spec: DotSpec, target: VectorTarget): TallPlan {
  const { m, n, k, b } = spec
  const acc = accumulator(spec)
  const bytes = floatBytes[acc]
  const lanes = lanesOf(acc, target)
  const leaves = leavesFor(spec, target)
  const tile = chooseTile(m, n, acc, target)
  // Teams that are no power of two share out several groups each.
  const power = Math.ceil(Math.log2(target.threads))
  const groups = Math.min(leaves, 2 ** power === target.threads ? target.threads : 4 * 2 ** power)
  const levels = Math.log2(leaves / groups)
  const leafDepth = k / leaves
  const depthAtOnce = Math.ceil(leafDepth / Math.ceil(leafDepth / depthOfBlock))
  const whole = tile.vectors * lanes
  const strips = Math.ceil(tile.panels / Math.max(1, Math.floor(stripElements / (m * whole))))
  const panelsAtOnce = Math.ceil(tile.panels / strips)
  const packB = n % lanes !== 0 || b.rowStride * bytes > readBytes
  const columns = (tile.panels - 1) * whole + tile.tailVectors * lanes
  const waiting = levels * m * panelsAtOnce * whole
  return {
    ...tile,
    packB,
    depthAtOnce,
    leafDepth,
    groups,
    leavesOfGroup: leaves / groups,
    rowParts: Math.min(Math.ceil(m / tile.rows), Math.ceil(target.threads / groups)),
    panelsAtOnce,
    levels,
    sharedBytes: roundUp(groups * m * columns * bytes, 64),
    privateBytes: roundUp((waiting + (packB ? depthAtOnce * whole : 0)) * bytes, 64),
  }
}

export function emitTallDriver(acc: Float, target: VectorTarget): Support {
  const T = cTypes[acc]
  const lanes = lanesOf(acc, target)
  return {
    name: `gemm_tall_${acc}`,
    code: `
/* A part of a result: tiles [tile, tileEnd) of its rows, panels [panel, panelEnd) of its columns. */
typedef struct { long tile, tileEnd, panel, panelEnd; } tall_part_${acc};

/* Writes, or adds, what steps [p, p + depth) give to a part; sums points at its first column, its rows are sumRow apart. */
static void gemm_tall_block_${acc}(const int tid, const gemm_plan *g, const tall_part_${acc} k, const ${T} *a, const ${T} *b, const long p,
                            const long depth, ${T} *packed, ${T} *sums, const long sumRow, const int accumulate) {
  (void)tid;
  const long whole = g->vectors * ${lanes}, line = 64 / (long)sizeof *a;
  const long i0 = k.tile * g->rows, rows = least(g->m, k.tileEnd * g->rows) - i0;
  const long j0 = k.panel * whole, columns = least(g->n, k.panelEnd * whole) - j0;
  const ${T} *nextA = a + (p + depth) * g->aColumn + i0, *nextB = b + (p + depth) * g->bRow + j0;
  /* Each tile asks for as many lines of the next block as it has steps, while there are any: in the order of memory where
   * rows have no gaps, which the second-level cache then brings in by itself, else one column of lines. */
  const long linesA = (rows + line - 1) / line, lines = linesA + (columns + line - 1) / line;
  long asked = 0;
  for (long panel = k.panel; panel < k.panelEnd; panel++) {
    const int lastPanel = panel == g->panels - 1;
    const long width = (lastPanel ? g->tailVectors : g->vectors) * ${lanes};
    if (g->packB) gemm_pack_panel_${acc}(g, b, panel, p, p + depth, packed);
    const ${T} *right = g->packB ? packed : b + p * g->bRow + panel * whole;
    for (long t = k.tile; t < k.tileEnd; t++, asked++) {
      const long i = t * g->rows, ofB = asked - linesA, apart = ofB < 0 ? g->aColumn : g->bRow;
      const int dense = apart == (ofB < 0 ? rows : columns);
      const ${T} *left = a + p * g->aColumn + i;
      const ${T} *soon = (ofB < 0 ? nextA : nextB) + (ofB < 0 ? asked : ofB) * (dense ? line * depth : line);
      tile_${acc} *compute = (tile_${acc} *)g->tiles[2 * lastPanel + (i + g->rows > g->m)];
      compute(depth, left, 1, g->aColumn, right, g->packB ? width : g->bRow, sums + i * sumRow + (panel - k.panel) * whole,
              sumRow, accumulate, asked < lines ? soon : left, asked >= lines ? 0 : dense ? line : apart);
    }
  }
  COUNT(2 * depth * rows * columns);
}

/* Leaves of a group for a part, added up in \`sums\`. */
static void gemm_tall_part_${acc}(const int tid, const gemm_plan *g, const tall_part_${acc} k, const long firstLeaf, const ${T} *a,
                           const ${T} *b, ${T} *waiting, ${T} *packed, ${T} *sums, const long padded) {
  const long width = g->panelsAtOnce * g->vectors * ${lanes}, level = g->m * width;
  const long columns = least(width, padded - k.panel * g->vectors * ${lanes});
  for (long leaf = 0; leaf < g->leavesOfGroup; leaf++) {
    long carries = 0; /* digits of the counter that are 1 */
    while (leaf >> carries & 1) carries++;
    const int last = leaf == g->leavesOfGroup - 1;
    ${T} *const sum = last ? sums + k.panel * g->vectors * ${lanes} : waiting + carries * level;
    const long sumRow = last ? padded : width, start = (firstLeaf + leaf) * g->leafDepth, stop = start + g->leafDepth;
    for (long p = start; p < stop; p += g->depthAtOnce)
      gemm_tall_block_${acc}(tid, g, k, a, b, p, least(g->depthAtOnce, stop - p), packed, sum, sumRow, p > start);
    for (long c = 0; c < carries; c++)
      for (long i = k.tile * g->rows; i < least(g->m, k.tileEnd * g->rows); i++)
        for (long j = 0; j < columns; j++) sum[i * sumRow + j] = waiting[c * level + i * width + j] + sum[i * sumRow + j];
  }
}

static void gemm_tall_${acc}(const int tid, const gemm_plan *g, const ${T} *a, const ${T} *b, ${T} *out, void *scratch) {
  const long padded = ((g->panels - 1) * g->vectors + g->tailVectors) * ${lanes}, size = g->m * padded;
  const long tiles = (g->m + g->rows - 1) / g->rows, units = g->groups * g->rowParts;
  ${T} *const sums = scratch, *const waiting = (${T} *)((char *)scratch + g->sharedBytes + tid * g->privateBytes);
  ${T} *const packed = waiting + g->levels * g->m * g->panelsAtOnce * g->vectors * ${lanes};
  for (long unit = units * tid / THREADS; unit < units * (tid + 1) / THREADS; unit++) {
    const long group = unit / g->rowParts, part = unit % g->rowParts;
    for (long panel = 0; panel < g->panels; panel += g->panelsAtOnce) {
      const tall_part_${acc} k = {tiles * part / g->rowParts, tiles * (part + 1) / g->rowParts, panel,
                               least(panel + g->panelsAtOnce, g->panels)};
      gemm_tall_part_${acc}(tid, g, k, group * g->leavesOfGroup, a, b, waiting, packed, sums + group * size, padded);
    }
  }
  team_barrier(tid);
  for (long i = g->m * tid / THREADS; i < g->m * (tid + 1) / THREADS; i++) {
    ${T} *const row = sums + i * padded;
    for (long gap = 1; gap < g->groups; gap *= 2)
      for (long group = 0; group + gap < g->groups; group += 2 * gap)
        for (long j = 0; j < g->n; j++) row[group * size + j] += row[(group + gap) * size + j];
    memcpy(out + i * g->n, row, (size_t)g->n * sizeof *row);
  }
}
`,
  }
}
