/**
 * Matrix products of bf16 operands by instructions that multiply pairs (tile-bf16.ts). Everything is packed: b once, by
 * the whole team, in panels of columns; a by each thread, a block of rows at a time. A panel of the result is added up
 * in f32 beside the packed rows, stretch after stretch of the contracted axis; the last one writes it out, as f32 or
 * rounded to bf16. The contracted axis is never split over threads, so their number cannot change a bit.
 * Scratch: packed b and its scales, shared; then for each thread packed a, its scales, and the panel of the result.
 */
import { batchesOf, type DotSpec } from './gemm-plan.ts'
import { cTypes, roundUp, type Support, type VectorTarget } from './prelude.ts'
import { emitTranspose } from './tile.ts'
import {
  dotPairs,
  emitPack,
  emitPairTile,
  groupRows,
  maxTileVectors,
  pairTileName,
  pairTileType,
  stretch,
  type PairKind,
} from './tile-bf16.ts'

/** The instructions that products of these operands use; undefined: they are not worth packing for, or not bf16. */
export function pairKind(spec: DotSpec, target: VectorTarget): PairKind | undefined {
  const { a, b, m, n } = spec
  const k = leafDepth(spec)
  if (a.dtype !== 'bf16' || b.dtype !== 'bf16' || target.vectorBytes !== 64) return undefined
  // A tile of eight rows is mostly padding below that, and so is a stretch.
  return (target.rowsAlike || (m >= 8 && n >= 8)) && k >= 32 ? target.bf16Products : undefined
}

/** Steps of the contracted axis that are one leaf of the sum; all of them, unless it has leaves. */
const leafDepth = ({ k, leaves = 1 }: DotSpec): number => k / leaves

export interface PairPlan {
  /** Vectors of a panel of columns, and of the last panel. */
  readonly vectors: number
  readonly tailVectors: number
  readonly panels: number
  readonly panelsAtOnce: number
  /** Groups of 16 rows that a thread packs at a time. */
  readonly groupsAtOnce: number
  readonly stretches: number
  /** Of the contracted axis (ops/leaves.ts): each begins with a stretch. */
  readonly leafDepth: number
  readonly stretchesOfLeaf: number
  readonly leaves: number
  /** Threads along rows (of all batches) and along panels; their product is at most the team. */
  readonly rowParts: number
  readonly columnParts: number
  /** How many different b there are among the batches. */
  readonly copies: number
  readonly sharedBytes: number
  readonly privateBytes: number
}

/** Bytes of packed rows that stay beside a panel in the second-level cache, and of packed panels in the third. */
const rowBytes = 1 << 20
const panelBytes = 16 << 20

export function planPairs(spec: DotSpec, { threads }: VectorTarget): PairPlan {
  const { m, n, leaves = 1 } = spec
  const columns = Math.ceil(n / 16)
  const panels = Math.ceil(columns / maxTileVectors)
  const vectors = Math.ceil(columns / panels)
  const stretchesOfLeaf = Math.ceil(leafDepth(spec) / stretch)
  const stretches = leaves * stretchesOfLeaf
  const groups = Math.ceil(m / groupRows)
  const copies = spec.batchDims.some((dim) => dim.b !== 0) ? batchesOf(spec) : 1

  const rowSets = batchesOf(spec) * groups
  let [rowParts, columnParts, busiest] = [1, 1, Infinity]
  for (let parts = 1; parts <= Math.min(threads, panels); parts++) {
    const rest = Math.min(rowSets, Math.floor(threads / parts))
    const tiles = Math.ceil(rowSets / rest) * Math.ceil(panels / parts)
    if (tiles < busiest) [rowParts, columnParts, busiest] = [rest, parts, tiles]
  }

  // Pairs of a stretch, and one scale: 4 bytes each.
  const cells = stretches * (stretch / 2 + 1) * 4
  const onePanel = copies * cells * vectors * 16
  const panelsAtOnce = Math.min(panels, roundUp(Math.max(1, Math.floor(panelBytes / onePanel)), columnParts))
  const oneGroup = cells * groupRows
  const mostGroups = Math.max(4, Math.floor(rowBytes / oneGroup))
  // A panel of the result, and one for each size of runs of leaves that wait for their neighbours.
  const sums = 1 + Math.log2(leaves)
  // Of equal blocks, none of them small.
  const ownGroups = Math.min(groups, Math.ceil(rowSets / rowParts))
  const groupsAtOnce = Math.ceil(ownGroups / Math.ceil(ownGroups / mostGroups))
  return {
    vectors,
    tailVectors: columns - (panels - 1) * vectors,
    panels,
    panelsAtOnce,
    groupsAtOnce,
    stretches,
    leafDepth: leafDepth(spec),
    stretchesOfLeaf,
    leaves,
    rowParts,
    columnParts,
    copies,
    sharedBytes: roundUp(panelsAtOnce * onePanel, 64),
    privateBytes: roundUp(groupsAtOnce * (oneGroup + sums * groupRows * vectors * 16 * 4), 64),
  }
}

const planFields = [
  'batches',
  'm',
  'n',
  'k',
  'aRow',
  'aColumn',
  'bRow',
  'bColumn',
  'vectors',
  'tailVectors',
  'panels',
  'panelsAtOnce',
  'groupsAtOnce',
  'stretches',
  'leafDepth',
  'stretchesOfLeaf',
  'leaves',
  'rowParts',
  'columnParts',
  'copies',
  'sharedBytes',
  'privateBytes',
] as const

/** C text of the kernel, in the calling convention of `emitDot`. */
export function emitPairDot(
  name: string,
  spec: DotSpec,
  kind: PairKind,
  target: VectorTarget,
): { code: string; support: Support[]; scratchBytes: number } {
  const plan = planPairs(spec, target)
  const { m, n, k } = spec
  const values: Record<(typeof planFields)[number], number> = {
    ...plan,
    batches: batchesOf(spec),
    m,
    n,
    k,
    aRow: spec.a.rowStride,
    aColumn: spec.a.colStride,
    bRow: spec.b.rowStride,
    bColumn: spec.b.colStride,
  }
  const dims = spec.batchDims.map(({ size, a, b }) => `{${size}, ${a}, ${b}}`)
  const tiles = [plan.vectors, plan.tailVectors]
  const out = cTypes[spec.out]
  return {
    code: `
/* [${values.batches} x ${m}, ${k}] [${k}, ${n}]: ${2 * values.batches * m * n * k} operations. */
static const pair_plan ${name}_plan = {
  ${planFields.map((field) => `.${field} = ${values[field]}`).join(', ')},
  .batchDims = ${dims.length}, .batch = (const pair_batch[]){${dims.join(', ') || '{1, 0, 0}'}},
  .tiles = {${tiles.map((vectors) => pairTileName(kind, vectors)).join(', ')}}};
static void ${name}(const int tid, const bf16 *a, const bf16 *b, ${out} *out, void *scratch) {
  gemm_${kind}_pairs_${spec.out}(tid, &${name}_plan, a, b, out, scratch);
}
`,
    support: [
      pairTileType,
      dotPairs,
      ...tiles.map((vectors) => emitPairTile(kind, vectors)),
      emitTranspose('f32', target),
      emitPack(kind),
      planType,
      emitDriver(kind, spec.out),
    ],
    scratchBytes: plan.sharedBytes + target.threads * plan.privateBytes,
  }
}

/** Constants of one product, for all drivers. */
const planType: Support = {
  name: 'pair_plan',
  code: `
typedef struct { long size, a, b; } pair_batch;
/* How one product of bf16 operands is cut; strides are in elements. */
typedef struct {
  long ${planFields.join(', ')};
  int batchDims;
  const pair_batch *batch;
  pair_tile *tiles[2]; /* of whole panels, of the last */
} pair_plan;

/* Offsets of the operands of batch z, the last dimension running fastest. */
static void pair_offsets(const pair_plan *g, long z, long *a, long *b) {
  *a = *b = 0;
  for (int d = g->batchDims - 1; d >= 0; z /= g->batch[d--].size) {
    *a += z % g->batch[d].size * g->batch[d].a;
    *b += z % g->batch[d].size * g->batch[d].b;
  }
}
INLINE long pair_least(const long a, const long b) { return a < b ? a : b; }

/* Where stretch s of the contracted axis begins, and its steps. */
INLINE long pair_first(const pair_plan *g, const long s) {
  return s / g->stretchesOfLeaf * g->leafDepth + s % g->stretchesOfLeaf * ${stretch};
}
INLINE long pair_depth(const pair_plan *g, const long s) {
  return pair_least(${stretch}, g->leafDepth - s % g->stretchesOfLeaf * ${stretch});
}
`,
}

function emitDriver(kind: PairKind, dtype: DotSpec['out']): Support {
  const out = cTypes[dtype]
  const half = stretch / 2
  const rows = groupRows
  return {
    name: `gemm_${kind}_pairs_${dtype}`,
    code: `
/* Panels [first, end) of every b: [b][panel][stretch][pair][column], and scales [b][panel][stretch][column]. */
static void gemm_${kind}_panels_${dtype}(const int tid, const pair_plan *g, const bf16 *b, const long first, const long end,
                                 uint32_t *packed, float *scales) {
  const long whole = g->vectors * 16, units = g->copies * (end - first) * g->stretches;
  for (long unit = units * tid / THREADS; unit < units * (tid + 1) / THREADS; unit++) {
    const long s = unit % g->stretches, panel = first + unit / g->stretches % (end - first);
    const long width = (panel == g->panels - 1 ? g->tailVectors : g->vectors) * 16;
    const long depth = pair_depth(g, s);
    long aOffset, bOffset;
    pair_offsets(g, unit / g->stretches / (end - first), &aOffset, &bOffset);
    const bf16 *const source = b + bOffset + pair_first(g, s) * g->bRow + panel * whole * g->bColumn;
    for (long j = 0; j < width; j += 16)
      pack_${kind}(source + j * g->bColumn, g->bColumn, g->bRow, pair_least(16, g->n - panel * whole - j), depth,
                 packed + unit * ${half} * whole + j, width, scales + unit * whole + j);
  }
}

/* Groups [first, end) of one matrix, panels [panelFirst, panelEnd), all of the contracted axis. */
static void gemm_${kind}_block_${dtype}(const int tid, const pair_plan *g, const bf16 *a, ${out} *out, const uint32_t *packedB,
                                const float *scalesB, void *memory, const long first, const long end,
                                const long block, const long panelFirst, const long panelEnd) {
  const long whole = g->vectors * 16, count = end - first;
  const long height = pair_least(count * ${rows}, g->m - first * ${rows});
  uint32_t *const packedA = memory;
  float *const scalesA = (float *)(packedA + g->stretches * count * ${half * rows});
  float *const sums = scalesA + g->stretches * count * ${rows};
  for (long s = 0; s < g->stretches; s++)
    for (long group = 0; group < count; group++) {
      const long at = s * count + group, row = (first + group) * ${rows};
      pack_${kind}(a + row * g->aRow + pair_first(g, s) * g->aColumn, g->aRow, g->aColumn, pair_least(${rows}, g->m - row),
                 pair_depth(g, s), packedA + at * ${half * rows}, ${rows}, scalesA + at * ${rows});
    }
  for (long panel = panelFirst; panel < panelEnd; panel++) {
    const int last = panel == g->panels - 1;
    const long width = (last ? g->tailVectors : g->vectors) * 16, columns = pair_least(width, g->n - panel * whole);
    ${out} *const target = out + first * ${rows} * g->n + panel * whole;
    float *panelOut = sums;
    for (long s = 0; s < g->stretches; s++) {
      const long leaf = s / g->stretchesOfLeaf, part = s % g->stretchesOfLeaf, size = count * ${rows} * width;
      long carries = 0; /* as digits of a binary counter: runs of leaves that this one is added to */
      while (leaf >> carries & 1) carries++;
      panelOut = sums + carries * size;
      const long pairs = (pair_depth(g, s) + 1) / 2, unit = (panel - block) * g->stretches + s;
      for (long i = 0; i < height; i += 8) {
        const long at = s * count + i / ${rows}, half = i % ${rows};
        float *const sum = panelOut + i * width;
        const int direct = ${dtype === 'f32' ? 'g->leaves == 1 && s == g->stretches - 1 && columns == width && i + 8 <= height' : '0'};
        g->tiles[last](pairs, packedA + at * ${half * rows} + half, scalesA + at * ${rows} + half,
                       packedB + unit * ${half} * whole, scalesB + unit * whole, part > 0 ? sum : 0,
                       direct ? (float *)(target + i * g->n) : sum, direct ? g->n : width);
      }
      for (long c = 0; c < carries && part == g->stretchesOfLeaf - 1; c++)
        for (long j = 0; j < height * width; j++) panelOut[j] += sums[c * size + j];
    }
    for (long i = ${dtype === 'f32' ? 'g->leaves == 1 && columns == width ? height - height % 8 : 0' : '0'}; i < height; i++)
      for (long j = 0; j < columns; j++) target[i * g->n + j] = ${dtype === 'bf16' ? 'f32_to_bf16(panelOut[i * width + j])' : 'panelOut[i * width + j]'};
    COUNT(2 * height * columns * g->k);
  }
}

static void gemm_${kind}_pairs_${dtype}(const int tid, const pair_plan *g, const bf16 *a, const bf16 *b, ${out} *out,
                                void *scratch) {
  const long groups = (g->m + ${rows - 1}) / ${rows}, whole = g->vectors * 16;
  const long rowPart = tid % g->rowParts, columnPart = tid / g->rowParts;
  const long first = g->batches * groups * rowPart / g->rowParts, end = g->batches * groups * (rowPart + 1) / g->rowParts;
  uint32_t *const packedB = scratch;
  void *const memory = (char *)scratch + g->sharedBytes + tid * g->privateBytes;
  for (long block = 0; block < g->panels; block += g->panelsAtOnce) {
    const long blockEnd = pair_least(g->panels, block + g->panelsAtOnce), width = blockEnd - block;
    float *const scalesB = (float *)(packedB + g->copies * width * g->stretches * ${half} * whole);
    if (block > 0) team_barrier(tid); /* nobody reads the panels of the block before */
    gemm_${kind}_panels_${dtype}(tid, g, b, block, blockEnd, packedB, scalesB);
    team_barrier(tid);
    if (columnPart >= g->columnParts) continue;
    const long panelFirst = block + width * columnPart / g->columnParts;
    const long panelEnd = block + width * (columnPart + 1) / g->columnParts;
    for (long t = first, next; t < end; t = next) {
      const long z = t / groups, unit = (g->copies > 1 ? z : 0) * width * g->stretches;
      next = pair_least(pair_least(t + g->groupsAtOnce, end), (z + 1) * groups);
      long aOffset, bOffset;
      pair_offsets(g, z, &aOffset, &bOffset);
      gemm_${kind}_block_${dtype}(tid, g, a + aOffset, out + z * g->m * g->n, packedB + unit * ${half} * whole,
                          scalesB + unit * whole, memory, t - z * groups, next - z * groups, block, panelFirst, panelEnd);
    }
  }
}
`,
  }
}
