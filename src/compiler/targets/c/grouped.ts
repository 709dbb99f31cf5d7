/**
 * Rows times the matrix of their group, in C: `groupedDot` and `groupedOuter`. A step of its own first lists the rows
 * group by group, in order, and one packs the matrices as for any product. Then the team walks the list: rows are
 * gathered beside each other, meet the register tiles (tile.ts), and the results go where their rows are. Threads take
 * equal shares of the list, or rectangles of every group's result, so how rows are spread over the groups unbalances
 * nothing; and what a row or a group gets does not depend on the others: its sums run in order, from its first element.
 */
import { chooseSplit } from './gemm-deep.ts'
import { planGemm, type DotSpec, type GemmPlan } from './gemm-plan.ts'
import { longBlocks } from './gemm-rows.ts'
import {
  blockSupport,
  edgeSize,
  emitDriver,
  initializer,
  tilesOf,
  type EmittedKernel,
  type Packing,
} from './gemm.ts'
import {
  cTypes,
  floatBytes,
  lanesOf,
  roundUp,
  type Float,
  type Support,
  type VectorTarget,
} from './prelude.ts'

/** Where the rows of an operand lie, in elements: row r at r / inner * outerStep + r % inner * innerStep. */
export interface RowPlaces {
  readonly inner: number
  readonly outerStep: number
  readonly innerStep: number
}

interface GroupedSpec {
  readonly dtype: Float
  readonly rows: number
  readonly groups: number
  readonly x: RowPlaces
}

/** out[row] = x[row] w[group of row], with the strides of w [groups, inner, columns] in elements. */
export interface GroupedDotSpec extends GroupedSpec {
  readonly inner: number
  readonly columns: number
  readonly w: readonly [number, number, number]
}

/** out[group] = the sum over its rows of x[row]^T y[row]. */
export interface GroupedOuterSpec extends GroupedSpec {
  readonly y: RowPlaces
  readonly inner: number
  readonly columns: number
  /** Equal runs of the rows that are summed apart and added in a tree (ops/leaves.ts). */
  readonly leaves: number
}

/** C text of `NAME(tid, x, list, w, numbers, out, scratch)`, with the list made of the group numbers by a step before. */
export function emitGroupedDot(name: string, spec: GroupedDotSpec, target: VectorTarget): EmittedKernel {
  const { dtype, rows, groups, inner, columns } = spec
  const [matrix, depth, column] = spec.w
  const each = Math.ceil(rows / groups)
  const dot: DotSpec = {
    a: { dtype, rowStride: inner, colStride: 1 },
    b: { dtype, rowStride: depth, colStride: column },
    out: dtype,
    batchDims: [{ size: groups, a: 0, b: matrix }],
    // The tile is chosen for the rows that one group has on average.
    m: each,
    n: columns,
    k: inner,
  }
  const base = planGemm(dot, target)
  const [bytes, lanes] = [floatBytes[dtype], lanesOf(dtype, target)]
  const inPlace = columns % lanes === 0 && column === 1 && each <= fewRows
  const blocks = longBlocks(dot, base.rows, bytes)
  const tilesAtOnce = Math.min(blocks.tilesAtOnce, Math.ceil(rows / base.rows))
  const plan: GemmPlan = {
    ...base,
    ...blocks,
    tilesAtOnce,
    tailRows: base.rows,
    firstPacked: inPlace ? base.panels : 0,
    copies: groups,
    packA: false,
    privateBytes: roundUp(tilesAtOnce * base.rows * blocks.depthAtOnce * bytes, 64),
  }
  const tiles = tilesOf(plan, dot)
  const T = cTypes[dtype]
  const list = listing(name, spec)
  const pack = `
/* The matrices of ${name} in panels. */
static void ${name}_pack(const int tid, const void *w, void *packed) {
  gemm_pack_${dtype}(tid, &${name}_plan, w, 0, ${plan.panels}, packed);
}
`
  return {
    code: `
/* ${rows} rows of ${inner}, each by one of ${groups} matrices [${inner}, ${columns}]: ${2 * rows * inner * columns} operations. */
static const gemm_plan ${name}_plan = ${initializer(dot, plan, tiles)};
static const row_places ${name}_x = ${placesText(spec.x)};
${list.code}${inPlace ? '' : pack}static void ${name}(const int tid, const ${T} *x, const int32_t *list, const ${T} *w, const int32_t *numbers, ${T} *out, void *scratch) {
  (void)numbers;
  grouped_dot_${dtype}(tid, &${name}_plan, ${rows}, ${groups}, &${name}_x, x, list, w, out, scratch);
}
`,
    support: [
      ...blockSupport(tiles, dtype, target),
      emitDriver({ a: dtype, b: dtype, out: dtype }, target),
      rowList,
      emitGroupedDriver(dtype, target),
    ],
    scratchBytes: target.threads * plan.privateBytes,
    listed: list.packing,
    ...(inPlace
      ? {}
      : {
          packed: {
            operand: 2,
            name: `${name}_pack`,
            bytes: roundUp(groups * plan.panels * plan.vectors * lanes * inner * bytes, 64),
          },
        }),
  }
}

/** Rows of a group that make a copy of its matrix worth it. */
const fewRows = 48

/** C text of `NAME(tid, x, list, y, numbers, out, scratch)`. */
export function emitGroupedOuter(name: string, spec: GroupedOuterSpec, target: VectorTarget): EmittedKernel {
  const { dtype, rows, groups, inner, columns, leaves } = spec
  const dot: DotSpec = {
    a: { dtype, rowStride: 1, colStride: inner },
    b: { dtype, rowStride: columns, colStride: 1 },
    out: dtype,
    batchDims: [],
    m: inner,
    n: columns,
    k: rows,
  }
  const base = planGemm(dot, target)
  const [bytes, lanes] = [floatBytes[dtype], lanesOf(dtype, target)]
  const tileCount = Math.ceil(inner / base.rows)
  const split = chooseSplit(dot, tileCount, base.panels, target.threads)
  const ownRows = Math.ceil(tileCount / split.rowParts) * base.rows
  const ownColumns = Math.ceil(base.panels / split.columnParts) * base.vectors * lanes
  const depthAtOnce = Math.max(16, Math.min(256, Math.floor(ownBytes / (bytes * (ownRows + ownColumns)))))
  const plan: GemmPlan = {
    ...base,
    ...split,
    depthAtOnce,
    panelsAtOnce: ownColumns / (base.vectors * lanes),
    firstPacked: 0,
    packA: true,
    privateBytes: roundUp(ownColumns * depthAtOnce * bytes, 64) + roundUp(ownRows * depthAtOnce * bytes, 64),
  }
  const tiles = tilesOf(plan, dot)
  const T = cTypes[dtype]
  const list = listing(name, spec)
  return {
    code: `
/* ${rows} rows of ${inner} and of ${columns}, in ${groups} groups: ${2 * rows * inner * columns} operations. */
static const gemm_plan ${name}_plan = ${initializer(dot, plan, tiles)};
static const row_places ${name}_x = ${placesText(spec.x)}, ${name}_y = ${placesText(spec.y)};
${list.code}static void ${name}(const int tid, const ${T} *x, const int32_t *list, const ${T} *y, const int32_t *numbers, ${T} *out, void *scratch) {
  (void)numbers;
  grouped_outer_${dtype}(tid, &${name}_plan, ${groups}, ${rows / leaves}, &${name}_x, &${name}_y, x, list, y, out, scratch);
}
`,
    support: [...blockSupport(tiles, dtype, target), rowList, emitOuterDriver(dtype, target)],
    // Behind what threads pack: sums of leaves that wait for their neighbour.
    scratchBytes: target.threads * plan.privateBytes + Math.log2(leaves) * inner * columns * bytes,
    listed: list.packing,
  }
}

/** Bytes of both operands' rows that a thread holds at a time, in its second-level cache. */
const ownBytes = 1 << 20

const placesText = ({ inner, outerStep, innerStep }: RowPlaces): string =>
  `{${inner}, ${outerStep}, ${innerStep}}`

/** The step that lists the rows of each group. */
function listing(
  name: string,
  { rows, groups }: GroupedSpec,
): { readonly code: string; readonly packing: Packing } {
  return {
    code: `static void ${name}_list(const int tid, const int32_t *group, const int32_t *numbers, int32_t *list) {
  if (tid == 0) list_rows(group, numbers[0], ${rows}, ${groups}, list);
}
`,
    packing: { operand: 1, with: 3, name: `${name}_list`, bytes: roundUp(4 * (groups + 3 + rows), 64) },
  }
}

const rowList: Support = {
  name: 'list_rows',
  code: `
/* Where the rows of an operand lie. */
typedef struct { long inner, outerStep, innerStep; } row_places;
INLINE long row_at(const row_places *s, const int32_t row) {
  const uint32_t inner = (uint32_t)s->inner, outer = (uint32_t)row / inner;
  return outer * s->outerStep + ((uint32_t)row - outer * inner) * s->innerStep;
}

/* A stable counting sort. Rows of group g are list[groups + 3 + i] for i from list[g] to before list[g + 1], in order;
 * group number \`groups\` is that of the rows that belong to none of the groups from \`first\` on. */
static void list_rows(const int32_t *group, const int32_t first, const long rows, const long groups, int32_t *list) {
  int32_t *const order = list + groups + 3;
  for (long g = 0; g < groups + 3; g++) list[g] = 0;
#define PLACE(r) (group[r] >= first && group[r] - first < groups ? group[r] - first : groups)
  for (long r = 0; r < rows; r++) list[PLACE(r) + 2]++;
  for (long g = 2; g < groups + 3; g++) list[g] += list[g - 1];
  for (long r = 0; r < rows; r++) order[list[PLACE(r) + 1]++] = (int32_t)r;
#undef PLACE
}
`,
}

function emitGroupedDriver(acc: Float, target: VectorTarget): Support {
  const T = cTypes[acc]
  const lanes = lanesOf(acc, target)
  return {
    name: `grouped_dot_${acc}`,
    code: `
static void grouped_dot_${acc}(const int tid, const gemm_plan *g, const long rows, const long groups, const row_places *places,
                     const ${T} *x, const int32_t *list, const ${T} *w, ${T} *out, void *scratch) {
  const long whole = g->vectors * ${lanes}, n = g->n;
  const int32_t *const order = list + groups + 3;
  const int packed = g->firstPacked == 0;
  ${T} *const left = (${T} *)((char *)scratch + tid * g->privateBytes);
  ${T} edge[${edgeSize(acc, target)}] __attribute__((aligned(64)));
  const long begin = rows * tid / THREADS, end = rows * (tid + 1) / THREADS;
  for (long r = begin > list[groups] ? begin : list[groups]; r < end; r++) memset(out + order[r] * n, 0, n * sizeof *out);
  for (long e = 0; e < groups; e++) {
    const ${T} *const matrix = w + e * (packed ? g->panels * g->k * whole : g->batch[0].b);
    const long last = least(end, list[e + 1]);
    for (long first = begin > list[e] ? begin : list[e], count; first < last; first += count) {
      count = least(g->rows * g->tilesAtOnce, last - first);
      for (long p = 0; p < g->k; p += g->depthAtOnce) {
        const long depth = least(g->depthAtOnce, g->k - p);
        for (long r = 0; r < count; r++) {
          const ${T} *const next = x + row_at(places, order[first + least(r + 6, count - 1)]) + p;
          for (long q = 0; q < depth; q += 64 / (long)sizeof *x) __builtin_prefetch(next + q);
          memcpy(left + r * depth, x + row_at(places, order[first + r]) + p, depth * sizeof *left);
        }
        const long spare = (g->rows - count % g->rows) % g->rows;
        memset(left + count * depth, 0, spare * depth * sizeof *left);
        COUNT(2 * depth * count * n);
        for (long panel = 0; panel < g->panels; panel++) {
          const int lastPanel = panel == g->panels - 1;
          const long width = (lastPanel ? g->tailVectors : g->vectors) * ${lanes}, columns = least(width, n - panel * whole);
          const ${T} *const right = matrix + (packed ? panel * g->k * whole + p * width : p * g->bRow + panel * whole);
          tile_${acc} *const compute = (tile_${acc} *)g->tiles[2 * lastPanel];
          for (long t = 0; t < count; t += g->rows) {
            const long tall = least(g->rows, count - t);
            const int32_t *const at = order + first + t;
            ${T} *const to = out + panel * whole;
            for (long r = 0; r < tall; r++)
              for (long j = 0; j < width; j += 64 / (long)sizeof *to) __builtin_prefetch(to + at[r] * n + j, 1);
            if (p > 0)
              for (long r = 0; r < tall; r++)
                for (long j = 0; j < columns; j++) edge[r * width + j] = to[at[r] * n + j];
            compute(depth, left + t * depth, depth, 1, right, packed ? width : g->bRow, edge, width, p > 0, left + (t + g->rows) * depth, 1);
            for (long r = 0; r < tall; r++) {
              ${T} *const line = to + at[r] * n;
              if (columns == width)
                for (long j = 0; j < width; j += ${lanes}) *(v${acc}u *)(line + j) = *(v${acc} *)(edge + r * width + j);
              else
                for (long j = 0; j < columns; j++) line[j] = edge[r * width + j];
            }
          }
        }
      }
    }
  }
}
`,
  }
}

function emitOuterDriver(acc: Float, target: VectorTarget): Support {
  const T = cTypes[acc]
  const lanes = lanesOf(acc, target)
  const copyRows = (rows: number): string =>
    `if (tall == ${rows}) memcpy(to, xRow + i, ${rows} * sizeof *to);`
  return {
    name: `grouped_outer_${acc}`,
    code: `
/* Leaves of leafRows rows: each is summed by itself; a sum waits for its neighbour and is then added to it, as a digit of a
 * binary counter carries. Leaves without a row of a group would add zeros, and are passed over. */
static void grouped_outer_${acc}(const int tid, const gemm_plan *g, const long groups, const long leafRows, const row_places *xPlaces, const row_places *yPlaces,
                       const ${T} *x, const int32_t *list, const ${T} *y, ${T} *out, void *scratch) {
  const long whole = g->vectors * ${lanes}, tiles = (g->m + g->rows - 1) / g->rows;
  const int32_t *const order = list + groups + 3;
  const long rowPart = tid % g->rowParts, columnPart = tid / g->rowParts;
  if (columnPart >= g->columnParts) return;
  const long first = tiles * rowPart / g->rowParts * g->rows;
  const long last = least(tiles * (rowPart + 1) / g->rowParts * g->rows, g->m);
  const long panelFirst = g->panels * columnPart / g->columnParts, panelEnd = g->panels * (columnPart + 1) / g->columnParts;
  const long left = panelFirst * whole, right = least(panelEnd * whole, g->n);
  ${T} *const packedY = (${T} *)((char *)scratch + tid * g->privateBytes);
  ${T} *const packedX = packedY + g->panelsAtOnce * g->depthAtOnce * whole;
  ${T} *const waiting = (${T} *)((char *)scratch + THREADS * g->privateBytes);
#define SUM(level) ((level) ? waiting + ((level) - 1) * g->m * g->n : out)
#define MERGE()                                                                                      \\
  {                                                                                                  \\
    height--;                                                                                        \\
    ${T} *const sum = SUM(height - 1);                                                               \\
    const ${T} *const more = SUM(height);                                                            \\
    for (long i = first; i < last; i++)                                                              \\
      for (long j = i * g->n + left; j < i * g->n + right; j++) sum[j] += more[j];                   \\
  }
  for (long e = 0; e < groups; e++, out += g->m * g->n) {
    if (list[e] == list[e + 1])
      for (long i = first; i < last; i++) memset(out + i * g->n + left, 0, (right - left) * sizeof *out);
    long leafOf[64], height = 0, start = 0, end = list[e];
    for (long p = list[e], depth; p < list[e + 1]; p += depth) {
      if (p == end) {
        const long leaf = order[p] / leafRows;
        for (start = p; end < list[e + 1] && order[end] < (leaf + 1) * leafRows;) end++;
        /* Of two neighbours, those are added first whose numbers differ in lower digits. */
        while (height > 1 && (leafOf[height - 2] ^ leafOf[height - 1]) < (leafOf[height - 1] ^ leaf)) MERGE();
        leafOf[height++] = leaf;
      }
      depth = least(g->depthAtOnce, end - p);
      for (long q = 0; q < depth; q++) {
        const ${T} *const xRow = x + row_at(xPlaces, order[p + q]), *const yRow = y + row_at(yPlaces, order[p + q]);
        const int32_t next = order[p + least(q + 6, depth - 1)];
        const ${T} *const xNext = x + row_at(xPlaces, next), *const yNext = y + row_at(yPlaces, next);
        for (long i = first; i < last; i += 64 / (long)sizeof *x) __builtin_prefetch(xNext + i);
        for (long j = left; j < right; j += 64 / (long)sizeof *y) __builtin_prefetch(yNext + j);
        for (long i = first; i < last; i += g->rows) {
          ${T} *const to = packedX + (i - first) * depth + q * g->rows;
          const long tall = least(g->rows, last - i);
          ${[12, 8, 6].map(copyRows).join('\n          else ')}
          else for (long r = 0; r < tall; r++) to[r] = xRow[i + r];
        }
        for (long panel = panelFirst; panel < panelEnd; panel++) {
          const long width = (panel == g->panels - 1 ? g->tailVectors : g->vectors) * ${lanes}, columns = least(width, g->n - panel * whole);
          ${T} *const to = packedY + (panel - panelFirst) * depth * whole + q * width;
          if (columns == width)
            for (long j = 0; j < width; j += ${lanes}) *(v${acc}u *)(to + j) = *(const v${acc}u *)(yRow + panel * whole + j);
          else
            for (long j = 0; j < width; j++) to[j] = j < columns ? yRow[panel * whole + j] : 0;
        }
      }
      gemm_tiles_${acc}(g, first, last, panelFirst, panelEnd, depth, packedX, 1, g->rows, depth * g->rows, packedY, 0, depth * whole, 0,
                SUM(height - 1), p > start);
      COUNT(2 * depth * (last - first) * (right - left));
    }
    while (height > 1) MERGE();
  }
#undef MERGE
#undef SUM
}
`,
  }
}
