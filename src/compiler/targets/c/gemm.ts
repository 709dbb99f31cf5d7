/**
 * Matrix products in C: the choice of a driver, and the team's driver for what no other takes (gemm-bf16, gemm-skinny,
 * gemm-rows, gemm-deep). A driver per combination of element types follows a constant plan (gemm-plan.ts) around the
 * register tiles (tile.ts); a product of the program is a few constants and a call, so that forty of them compile as
 * fast as one. Layout of the team's scratch: copied panels of b, shared, then a copied block of a for each thread.
 */
import { isHalf } from '../../graph/types.ts'
import { accumulator, batchesOf, planGemm, type DotSpec, type Element, type GemmPlan } from './gemm-plan.ts'
import { emitPairDot, pairKind } from './gemm-bf16.ts'
import type { Nature } from './span.ts'
import { emitDeepDriver, emitTilePacking, goesDeep, planDeep } from './gemm-deep.ts'
import {
  emitLeafDriver,
  emitLeafTile,
  goesInLeaves,
  leafFields,
  leafTileName,
  leafTileType,
  planLeaves,
  type LeafPlan,
} from './gemm-leaves.ts'
import {
  emitRowsDriver,
  emitTilesDriver,
  goesByRows,
  readsWhereItLies,
  packedBytes,
  planRows,
} from './gemm-rows.ts'
import { emitSkinny, skinnyKind } from './gemm-skinny.ts'
import { emitTallDriver, goesTall, planTall, tallFields, type TallPlan } from './gemm-tall.ts'
import {
  cTypes,
  floatBytes,
  lanesOf,
  roundUp,
  type Float,
  type Support,
  type VectorTarget,
} from './prelude.ts'
import { ahead, emitTile, emitTranspose, maxRows, maxVectors, tileName, tileType, type Tile } from './tile.ts'

export type { BatchDim, DotSpec, Operand } from './gemm-plan.ts'

/** An emitted kernel: its own text, the text it shares with others, and the scratch memory it needs (64-aligned). */
export interface EmittedKernel {
  readonly code: string
  readonly support: readonly Support[]
  readonly scratchBytes: number
  /** How it is shared out; by the team itself when not given. */
  readonly nature?: Nature
  readonly packed?: Packing
  /** The same for group numbers, which become a list of the rows of each group (grouped.ts). */
  readonly listed?: Packing
}

/** The operand that a kernel wants in another order, the kernel that makes it, and the bytes that takes. */
export interface Packing {
  readonly operand: number
  /** Another operand that the packing kernel reads. */
  readonly with?: number
  readonly name: string
  readonly bytes: number
}

/** Multiplications and additions of a product: what COUNT adds up to when it has run. */
export const dotFlops = (spec: DotSpec): number => 2 * batchesOf(spec) * spec.m * spec.n * spec.k

/**
 * C text of `static void NAME(const int tid, const A *a, const B *b, OUT *out, void *scratch)`, to be called by every
 * thread of the team; where `nature` says rows, with `begin, end` after `tid`. Kernels that share scratch must be
 * separated by a barrier.
 */
export function emitDot(name: string, spec: DotSpec, target: VectorTarget): EmittedKernel {
  const pairs = pairKind(spec, target)
  if (pairs) return emitPairDot(name, spec, pairs, target)
  if (goesTall(spec, target)) return emitTallProduct(name, spec, target)
  if (spec.leaves !== undefined)
    return goesInLeaves(spec, target) ? emitLeafProduct(name, spec, target) : emitLeaves(name, spec, target)
  if (skinnyKind(spec, target) && !isColumn(spec)) return emitSkinny(name, spec, target)
  if (!isColumn(spec) && goesByRows(spec, target)) return emitRowProduct(name, spec, target)
  if (!isColumn(spec) && goesDeep(spec, target)) return emitDeepProduct(name, spec, target)
  return emitTeamProduct(name, spec, target)
}

const isColumn = ({ m, n }: DotSpec): boolean => n === 1 && m > 1

/** Whatever no other driver takes. */
function emitTeamProduct(name: string, spec: DotSpec, target: VectorTarget): EmittedKernel {
  // A column result is as dense as a row: the transposed product fills whole vectors.
  const dot = isColumn(spec) ? transposed(spec) : spec
  const types: Types = { a: dot.a.dtype, b: dot.b.dtype, out: dot.out }
  const [a, b] = dot === spec ? ['a', 'b'] : ['b', 'a']
  // A column turned around has one row whatever the batch; other products may have few rows by chance.
  const byChance = target.rowsAlike && dot === spec && spec.n > 1
  const byRows = !byChance && usesDotProducts(dot)
  const plan = byRows ? undefined : planGemm(dot, target)
  const tiles = plan === undefined ? [] : tilesOf(plan, dot)
  const driver = byRows ? `dot_rows_${driverSuffix(types)}` : `gemm_${driverSuffix(types)}`
  const { m, n, k } = spec
  return {
    code: `
/* [${batchesOf(spec)} x ${m}, ${k}] [${k}, ${n}]: ${dotFlops(spec)} operations. */
static const gemm_plan ${name}_plan = ${initializer(dot, plan, tiles)};
static void ${name}(const int tid, const ${cTypes[spec.a.dtype]} *a, const ${cTypes[spec.b.dtype]} *b, ${cTypes[spec.out]} *out, void *scratch) {
  ${driver}(tid, &${name}_plan, ${a}, ${b}, out, scratch);
}
`,
    support: [
      planType(),
      tileType(accumulator(dot)),
      ...tiles.map(emitTile),
      ...(byRows
        ? [emitDotRows(types)]
        : [
            emitTranspose(accumulator(dot), target),
            emitPanelPacking(types, target),
            emitDriver(types, target),
          ]),
    ],
    scratchBytes: plan === undefined ? 0 : plan.sharedBytes + target.threads * plan.privateBytes,
  }
}

/** A product in leaves that a driver of its own takes: large, or so much larger in leaves; see gemm-leaves.ts. */
function emitLeafProduct(name: string, spec: DotSpec, target: VectorTarget): EmittedKernel {
  const acc = accumulator(spec)
  const plan = planLeaves(planGemm(spec, target), spec, target)
  const tiles = tilesOf({ ...plan, packA: true }, spec)
  const T = cTypes[acc]
  return {
    code: `
/* [${spec.m}, ${spec.k}] [${spec.k}, ${spec.n}] in ${spec.leaves} leaves: ${dotFlops(spec)} operations. */
static const gemm_plan ${name}_plan = ${initializer(spec, plan, tiles, leafTileName)};
static void ${name}(const int tid, const ${T} *a, const ${T} *b, ${T} *out, void *scratch) {
  gemm_leaves_${acc}(tid, &${name}_plan, a, b, out, scratch);
}
`,
    support: [
      planType(),
      leafTileType(acc),
      ...tiles.map(emitLeafTile),
      emitTranspose(acc, target),
      emitPanelPacking({ a: acc, b: acc, out: acc }, target),
      emitTilePacking(acc),
      emitLeafDriver(acc, edgeSize(acc, target), target),
    ],
    scratchBytes: target.threads * plan.privateBytes,
  }
}

/** The leaves of a product are a batch of products, of one driver however many there are; then their tree. */
function emitLeaves(name: string, spec: DotSpec, target: VectorTarget): EmittedKernel {
  const { leaves = 1, a, b, ...rest } = spec
  const acc = accumulator(spec)
  const k = spec.k / leaves
  const leaf = { size: leaves, a: k * a.colStride, b: k * b.rowStride }
  const product: DotSpec = { ...rest, a, b, out: acc, k, batchDims: [leaf, ...spec.batchDims] }
  delete (product as { leaves?: number }).leaves
  const inner = emitTeamProduct(`${name}_leaf`, product, target)
  const size = batchesOf(spec) * spec.m * spec.n
  const bytes = roundUp(leaves * size * floatBytes[acc], 64)
  const [A, B, OUT, T] = [cTypes[a.dtype], cTypes[b.dtype], cTypes[spec.out], cTypes[acc]]
  return {
    ...inner,
    code: `${inner.code}
static void ${name}(const int tid, const ${A} *a, const ${B} *b, ${OUT} *out, void *scratch) {
  ${T} *const part = scratch;
  ${name}_leaf(tid, a, b, part, (char *)scratch + ${bytes});
  team_barrier(tid);
  for (long i = ${size}L * tid / THREADS; i < ${size}L * (tid + 1) / THREADS; i++) {
    for (long gap = 1; gap < ${leaves}; gap *= 2)
      for (long leaf = 0; leaf + gap < ${leaves}; leaf += 2 * gap) part[leaf * ${size} + i] += part[(leaf + gap) * ${size} + i];
    out[i] = ${stored(spec.out, 'part[i]')};
  }
}
`,
    scratchBytes: bytes + inner.scratchBytes,
  }
}

/** A product whose rows any kernel before or after it may share; see gemm-rows.ts. */
function emitRowProduct(name: string, spec: DotSpec, target: VectorTarget): EmittedKernel {
  const acc = accumulator(spec)
  const types: Types = { a: acc, b: acc, out: acc }
  const base = planGemm(spec, target, 'rows')
  const inPlace = readsWhereItLies(spec, base, target)
  const plan = planRows(base, spec, inPlace, target)
  const tiles = tilesOf(plan, spec)
  const T = cTypes[acc]
  const { m, n, k } = spec
  const bytes = packedBytes(plan, spec, target)
  const pack = `
/* The [${k}, ${n}] operand of ${name} in panels. */
static void ${name}_pack(const int tid, const void *b, void *packed) {
  gemm_pack_${acc}(tid, &${name}_plan, b, 0, ${plan.panels}, packed);
}
`
  return {
    code: `
/* [${m}, ${k}] [${k}, ${n}]: ${dotFlops(spec)} operations. */
static const gemm_plan ${name}_plan = ${initializer(spec, plan, tiles)};
${inPlace ? '' : pack}static void ${name}(const int tid, const int64_t begin, const int64_t end, const ${T} *a, const ${T} *b, ${T} *out, void *scratch) {
  (void)scratch;
  gemm_rows_${acc}(tid, &${name}_plan, begin, end, a, b, out);
}
`,
    support: [...blockSupport(tiles, acc, target), emitDriver(types, target), emitRowsDriver(acc, target)],
    scratchBytes: 0,
    nature: { kind: 'rows', rows: m, unit: plan.rows },
    ...(inPlace ? {} : { packed: { operand: 1, name: `${name}_pack`, bytes } }),
  }
}

/** A product of which each thread packs its own part; see gemm-deep.ts. */
function emitDeepProduct(name: string, spec: DotSpec, target: VectorTarget): EmittedKernel {
  const acc = accumulator(spec)
  const plan = planDeep(planGemm(spec, target), spec, target)
  const tiles = tilesOf({ ...plan, packA: true }, spec)
  const T = cTypes[acc]
  return {
    code: `
/* [${spec.m}, ${spec.k}] [${spec.k}, ${spec.n}]: ${dotFlops(spec)} operations. */
static const gemm_plan ${name}_plan = ${initializer(spec, plan, tiles)};
static void ${name}(const int tid, const ${T} *a, const ${T} *b, ${T} *out, void *scratch) {
  gemm_deep_${acc}(tid, &${name}_plan, a, b, out, scratch);
}
`,
    support: [...blockSupport(tiles, acc, target), emitTilePacking(acc), emitDeepDriver(acc, target)],
    scratchBytes: target.threads * plan.privateBytes,
  }
}

/** A product of two tall matrices; see gemm-tall.ts. */
function emitTallProduct(name: string, spec: DotSpec, target: VectorTarget): EmittedKernel {
  const acc = accumulator(spec)
  const plan = planTall(spec, target)
  const tiles = tilesOfShape(plan, spec, false, true)
  const T = cTypes[acc]
  return {
    code: `
/* [${spec.m}, ${spec.k}] [${spec.k}, ${spec.n}] of tall operands: ${dotFlops(spec)} operations. */
static const gemm_plan ${name}_plan = ${initializer(spec, plan, tiles)};
static void ${name}(const int tid, const ${T} *a, const ${T} *b, ${T} *out, void *scratch) {
  gemm_tall_${acc}(tid, &${name}_plan, a, b, out, scratch);
}
`,
    support: [
      planType(),
      tileType(acc),
      ...tiles.map(emitTile),
      emitTranspose(acc, target),
      emitPanelPacking({ a: acc, b: acc, out: acc }, target),
      emitTallDriver(acc, target),
    ],
    scratchBytes: plan.sharedBytes + target.threads * plan.privateBytes,
  }
}

/** What the drivers that work in packed blocks share. */
export const blockSupport = (tiles: readonly Tile[], acc: Float, target: VectorTarget): Support[] => [
  planType(),
  tileType(acc),
  ...tiles.map(emitTile),
  emitTranspose(acc, target),
  emitPanelPacking({ a: acc, b: acc, out: acc }, target),
  emitTilesDriver(acc, edgeSize(acc, target), target),
]

/** Elements of the largest register tile. */
export const edgeSize = (acc: 'f32' | 'f64', target: VectorTarget): number =>
  Math.max(
    ...Array.from({ length: maxVectors }, (_, i) => maxRows(i + 1, target) * (i + 1) * lanesOf(acc, target)),
  )

interface Types {
  readonly a: Element
  readonly b: Element
  readonly out: Element
}

const driverSuffix = ({ a, b, out }: Types): string => (a === b && b === out ? a : `${a}_${b}_${out}`)

function transposed(spec: DotSpec): DotSpec {
  const flip = ({ dtype, rowStride, colStride }: DotSpec['a']): DotSpec['a'] => ({
    dtype,
    rowStride: colStride,
    colStride: rowStride,
  })
  const batchDims = spec.batchDims.map(({ size, a, b }) => ({ size, a: b, b: a }))
  return { ...spec, a: flip(spec.b), b: flip(spec.a), m: spec.n, n: spec.m, batchDims }
}

/** Few rows against a b whose columns are contiguous: dot products along the depth, instead of turning b around. */
function usesDotProducts({ a, b, out, m, n }: DotSpec): boolean {
  const plain = a.dtype === b.dtype && b.dtype === out && !isHalf(out)
  return plain && m <= 4 && b.rowStride === 1 && a.colStride === 1 && (b.colStride !== 1 || n === 1)
}

/** The tile functions of a plan: [whole panels, last panel] x [whole rows, last rows]. */
export const tilesOf = (plan: GemmPlan, spec: DotSpec): Tile[] =>
  tilesOfShape(plan, spec, plan.firstPacked > 0 || (!plan.packA && spec.a.colStride !== 1))

function tilesOfShape(
  { rows, tailRows, vectors, tailVectors }: Pick<GemmPlan, 'rows' | 'tailRows' | 'vectors' | 'tailVectors'>,
  spec: DotSpec,
  prefetch: boolean,
  neighbours = false,
): Tile[] {
  const dtype = accumulator(spec)
  return [vectors, tailVectors].flatMap((width) =>
    [rows, tailRows].map((height) => ({ dtype, rows: height, vectors: width, prefetch, neighbours })),
  )
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
  'rows',
  'tailRows',
  'vectors',
  'tailVectors',
  'panels',
  'firstPacked',
  'panelsAtOnce',
  'packA',
  'depthAtOnce',
  'tilesAtOnce',
  'rowParts',
  'columnParts',
  'copies',
  'sharedBytes',
  'privateBytes',
  ...leafFields,
  ...tallFields,
] as const

export function initializer(
  spec: DotSpec,
  plan: GemmPlan | LeafPlan | TallPlan | undefined,
  tiles: readonly Tile[],
  nameOf: (tile: Tile) => string = tileName,
): string {
  const { m, n, k } = spec
  const values: Partial<Record<(typeof planFields)[number], number | boolean>> = {
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
  const fields = planFields.filter((field) => values[field] !== undefined)
  const dims = spec.batchDims.map(({ size, a, b }) => `{${size}, ${a}, ${b}}`)
  return `{
  ${fields.map((field) => `.${field} = ${Number(values[field])}`).join(', ')},
  .batchDims = ${dims.length}, .batch = (const gemm_batch[]){${dims.join(', ') || '{1, 0, 0}'}},
  .tiles = {${tiles.map((tile) => `(const void *)${nameOf(tile)}`).join(', ') || '0'}}}`
}

/** Constants of one product, for the drivers of all types. */
const planType = (): Support => ({
  name: 'gemm_plan',
  code: `
typedef struct { long size, a, b; } gemm_batch;
/* How one matrix product is cut; strides are in elements. */
typedef struct {
  long ${planFields.join(', ')};
  int batchDims;
  const gemm_batch *batch;
  const void *tiles[4]; /* whole panels then the last; in each, whole rows then the last */
} gemm_plan;

/* Offsets of the operands of batch z, the last dimension running fastest. */
static void gemm_offsets(const gemm_plan *g, long z, long *a, long *b) {
  *a = *b = 0;
  for (int d = g->batchDims - 1; d >= 0; z /= g->batch[d--].size) {
    *a += z % g->batch[d].size * g->batch[d].a;
    *b += z % g->batch[d].size * g->batch[d].b;
  }
}
INLINE long least(const long a, const long b) { return a < b ? a : b; }
`,
})

const loaded = (dtype: Element, text: string): string => (isHalf(dtype) ? `${dtype}_to_f32(${text})` : text)
const stored = (dtype: Element, text: string): string => (isHalf(dtype) ? `f32_to_${dtype}(${text})` : text)

/** The copy of part of a panel of b, in the accumulator's type. */
function emitPanelPacking(types: Types, target: VectorTarget): Support {
  const acc = types.a === 'f64' ? 'f64' : 'f32'
  const suffix = driverSuffix(types)
  const [B, T] = [cTypes[types.b], cTypes[acc]]
  const lanes = lanesOf(acc, target)
  // Columns of b that are contiguous are turned around in registers.
  const byBlocks =
    types.b !== acc
      ? ''
      : `
    const long square = to - (to - from) % ${lanes};
    for (; g->bRow == 1 && j + ${lanes} <= columns; j += ${lanes}) {
      for (long p = from; p < square; p += ${lanes})
        transpose_${acc}(source + p + j * g->bColumn, g->bColumn, target + (p - from) * width + j, width);
      for (long p = square; p < to; p++)
        for (long c = j; c < j + ${lanes}; c++) target[(p - from) * width + c] = source[p + c * g->bColumn];
    }`
  const whole =
    types.b !== acc
      ? ''
      : `
  if (g->bColumn == 1 && columns == whole) {
    for (long p = from; p < to; p++)
      for (long j = 0; j < whole; j += ${lanes})
        *(v${acc}u *)(target + (p - from) * whole + j) = *(const v${acc}u *)(source + p * g->bRow + j);
    return;
  }`
  return {
    name: `gemm_pack_panel_${suffix}`,
    code: `
/* Rows [from, to) of a panel of b: whole vectors, zeros beyond the last column. */
static void gemm_pack_panel_${suffix}(const gemm_plan *g, const ${B} *b, const long panel, const long from, const long to, ${T} *target) {
  const long whole = g->vectors * ${lanes}, width = (panel == g->panels - 1 ? g->tailVectors : g->vectors) * ${lanes};
  const long columns = least(width, g->n - panel * whole);
  const ${B} *source = b + panel * whole * g->bColumn;${whole}
  if (g->bColumn == 1) {
    for (long p = from; p < to; p++)
      for (long j = 0; j < columns; j++) target[(p - from) * width + j] = ${loaded(types.b, 'source[p * g->bRow + j]')};
  } else {
    long j = 0;${byBlocks}
    for (; j < columns; j++)
      for (long p = from; p < to; p++) target[(p - from) * width + j] = ${loaded(types.b, 'source[p * g->bRow + j * g->bColumn]')};
  }
  for (long p = from; p < to; p++)
    for (long j = columns; j < width; j++) target[(p - from) * width + j] = 0;
}
`,
  }
}

export function emitDriver(types: Types, target: VectorTarget): Support {
  const acc = types.a === 'f64' ? 'f64' : 'f32'
  const suffix = driverSuffix(types)
  const [A, B, OUT, T] = [cTypes[types.a], cTypes[types.b], cTypes[types.out], cTypes[acc]]
  const lanes = lanesOf(acc, target)
  const edge = edgeSize(acc, target)
  // Only an output of the accumulator's type can be written by a tile itself.
  const direct = types.out === acc ? 'columns == width' : '0'
  return {
    name: `gemm_${suffix}`,
    code: `
/* Copies panels [first, end) of every b: panel by panel, rows of whole vectors, zeros beyond the last column. */
static void gemm_pack_${suffix}(const int tid, const gemm_plan *g, const ${B} *b, const long first, const long end, ${T} *packed) {
  const long whole = g->vectors * ${lanes}, slab = 64, slabs = (g->k + slab - 1) / slab;
  const long units = g->copies * (end - first) * slabs;
  for (long unit = units * tid / THREADS; unit < units * (tid + 1) / THREADS; unit++) {
    const long panel = first + unit / slabs % (end - first), copy = unit / slabs / (end - first);
    const long width = (panel == g->panels - 1 ? g->tailVectors : g->vectors) * ${lanes};
    const long from = unit % slabs * slab, to = least(g->k, from + slab);
    long aOffset, bOffset;
    gemm_offsets(g, copy, &aOffset, &bOffset);
    gemm_pack_panel_${suffix}(g, b + bOffset, panel, from, to, packed + unit / slabs * g->k * whole + from * width);
  }
}

/* Register tiles [first, end) of one matrix, panels [panel, panelEnd), all of the depth. */
static void gemm_block_${suffix}(const int tid, const gemm_plan *g, const ${A} *a, const ${B} *b, ${OUT} *out, const ${T} *packedB,
                       const long firstPacked, ${T} *packedA, const long first, const long end, const long panelFirst,
                       const long panelEnd) {
  const long whole = g->vectors * ${lanes}, tiles = (g->m + g->rows - 1) / g->rows;
  ${T} edge[${edge}] __attribute__((aligned(64)));
  for (long p = 0; p < g->k; p += g->depthAtOnce) {
    const long depth = least(g->depthAtOnce, g->k - p);
    COUNT(2 * depth * (least(g->m, end * g->rows) - first * g->rows) * (least(g->n, panelEnd * whole) - panelFirst * whole));
    for (long tile = first; tile < end && g->packA; tile++) /* tile by tile, [depth, rows] */
      for (long q = 0; q < depth; q++)
        for (long r = 0, i = tile * g->rows; r < least(g->rows, g->m - i); r++)
          packedA[((tile - first) * depth + q) * g->rows + r] = ${loaded(types.a, 'a[(i + r) * g->aRow + (p + q) * g->aColumn]')};
    for (long panel = panelFirst; panel < panelEnd; panel++) {
      const int lastPanel = panel == g->panels - 1, copied = panel >= firstPacked;
      const long width = (lastPanel ? g->tailVectors : g->vectors) * ${lanes}, columns = least(width, g->n - panel * whole);
      const ${T} *right = copied ? packedB + (panel - firstPacked) * g->k * whole + p * width
                                 : (const ${T} *)(b + p * g->bRow + panel * whole);
      const long rightRow = copied ? width : g->bRow;
      for (long tile = first; tile < end; tile++) {
        const int lastTile = tile == tiles - 1;
        const long rows = lastTile ? g->tailRows : g->rows, i = tile * g->rows;
        const ${T} *left = g->packA ? packedA + (tile - first) * depth * g->rows : (const ${T} *)(a + i * g->aRow + p * g->aColumn);
        const long leftRow = g->packA ? 1 : g->aRow, leftColumn = g->packA ? g->rows : g->aColumn;
        tile_${acc} *compute = (tile_${acc} *)g->tiles[2 * lastPanel + lastTile];
        ${OUT} *target = out + i * g->n + panel * whole;
        if (${direct}) {
          compute(depth, left, leftRow, leftColumn, right, rightRow, (${T} *)target, g->n, p > 0, left + ${ahead} * leftColumn, leftColumn);
          continue;
        }
        if (p > 0)
          for (long r = 0; r < rows; r++)
            for (long j = 0; j < columns; j++) edge[r * width + j] = ${loaded(types.out, 'target[r * g->n + j]')};
        compute(depth, left, leftRow, leftColumn, right, rightRow, edge, width, p > 0, left + ${ahead} * leftColumn, leftColumn);
        for (long r = 0; r < rows; r++)
          for (long j = 0; j < columns; j++) target[r * g->n + j] = ${stored(types.out, 'edge[r * width + j]')};
      }
    }
  }
}

static void gemm_${suffix}(const int tid, const gemm_plan *g, const ${A} *a, const ${B} *b, ${OUT} *out, void *scratch) {
  const long tiles = (g->m + g->rows - 1) / g->rows, whole = g->vectors * ${lanes};
  const long rowPart = tid % g->rowParts, columnPart = tid / g->rowParts;
  const long first = g->batches * tiles * rowPart / g->rowParts, end = g->batches * tiles * (rowPart + 1) / g->rowParts;
  ${T} *packedB = scratch, *packedA = (${T} *)((char *)scratch + g->sharedBytes + tid * g->privateBytes);
  for (long block = 0; block < g->panels; block += g->panelsAtOnce) {
    const long blockEnd = least(g->panels, block + g->panelsAtOnce), width = blockEnd - block;
    const long firstPacked = block > g->firstPacked ? block : g->firstPacked;
    if (blockEnd > firstPacked) {
      if (block > g->firstPacked) team_barrier(tid); /* nobody reads the panels of the block before */
      gemm_pack_${suffix}(tid, g, b, firstPacked, blockEnd, packedB);
      team_barrier(tid);
    }
    if (columnPart >= g->columnParts) continue;
    const long panelFirst = block + width * columnPart / g->columnParts;
    const long panelEnd = block + width * (columnPart + 1) / g->columnParts;
    for (long t = first, next; t < end; t = next) {
      const long z = t / tiles;
      next = least(least(t + g->tilesAtOnce, end), (z + 1) * tiles);
      long aOffset, bOffset;
      gemm_offsets(g, z, &aOffset, &bOffset);
      const ${T} *panels = packedB + (g->copies > 1 ? z : 0) * (blockEnd - firstPacked) * g->k * whole;
      gemm_block_${suffix}(tid, g, a + aOffset, b + bOffset, out + z * g->m * g->n, panels, firstPacked, packedA, t - z * tiles,
                     next - z * tiles, panelFirst, panelEnd);
    }
  }
}
`,
  }
}

/** Products with contiguous rows of a and contiguous columns of b, for few rows. */
function emitDotRows(types: Types): Support {
  const suffix = driverSuffix(types)
  const T = cTypes[types.a]
  const V = `v${types.a}`
  const lanes = `LANES_${types.a}`
  return {
    name: `dot_rows_${suffix}`,
    code: `
/* out[i, j] is the dot product of row i of a and column j of b, both contiguous; four columns at a time. */
static void dot_rows_${suffix}(const int tid, const gemm_plan *g, const ${T} *a, const ${T} *b, ${T} *out, void *scratch) {
  (void)scratch;
  const long groups = (g->n + 3) / 4, units = g->batches * groups, k = g->k;
  for (long unit = units * tid / THREADS; unit < units * (tid + 1) / THREADS; unit++) {
    const long z = unit / groups, j = unit % groups * 4, columns = least(4, g->n - j);
    long aOffset, bOffset;
    gemm_offsets(g, z, &aOffset, &bOffset);
    const ${T} *column[4];
    for (long c = 0; c < 4; c++) column[c] = b + bOffset + least(j + c, g->n - 1) * g->bColumn;
    for (long i = 0; i < g->m; i++) {
      const ${T} *row = a + aOffset + i * g->aRow;
      ${V} sum[4] = {{0}, {0}, {0}, {0}};
      for (long p = 0; p + ${lanes} <= k; p += ${lanes}) {
        const ${V} x = *(const ${V}u *)(row + p);
        _Pragma("GCC unroll 4") for (int c = 0; c < 4; c++) sum[c] += x * *(const ${V}u *)(column[c] + p);
      }
      for (long c = 0; c < columns; c++) {
        ${T} total = hsum_${types.a}(sum[c]);
        for (long q = k - k % ${lanes}; q < k; q++) total += row[q] * column[c][q];
        out[(z * g->m + i) * g->n + j + c] = total;
      }
    }
    COUNT(2 * g->m * columns * k);
  }
}
`,
  }
}
