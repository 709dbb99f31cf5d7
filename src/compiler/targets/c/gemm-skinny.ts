/**
 * Matrix products with at most 16 rows: generation, where a step multiplies one token of each sequence by every weight.
 * Their time is that of reading b, so b is read once, where it lies, in the order it lies in, and all rows of a use what
 * was read while it is near. Two drivers: for rows of b that are contiguous, threads share the columns out; for columns
 * that are contiguous (a head that is the embedding table transposed), they share the dot products out.
 *
 * No sum is split: every element adds its products in one order that depends neither on the team nor on the number of
 * rows, so a sequence gets the same bits alone and in company.
 */
import { isHalf } from '../../graph/types.ts'
import type { DotSpec } from './gemm-plan.ts'
import type { EmittedKernel } from './gemm.ts'
import { cTypes, lanesOf, type Float, type Support, type VectorTarget } from './prelude.ts'

const mostRows = 16

/** Steps of the contracted axis whose part of b waits in the first-level cache for the next group of rows. */
const depthAtOnce = 96

/** Steps by which loads run ahead where every row of b is used once. */
const ahead = 8

/** Which of the two drivers a product takes, if any. */
export function skinnyKind(
  { a, b, out, batchDims, m, n, k }: DotSpec,
  target: VectorTarget,
): 'columns' | 'dots' | undefined {
  const plain = a.dtype === b.dtype && b.dtype === out && !isHalf(out) && a.colStride === 1
  if (!plain || batchDims.length > 0 || m > mostRows || k < 2) return undefined
  if (b.colStride === 1 && n > 1) return 'columns'
  // Dot products are added up in another order than the products of more rows.
  return b.rowStride === 1 && !(target.rowsAlike && n > 1) ? 'dots' : undefined
}

/** C text of a kernel as in gemm.ts; only for specs with a kind. */
export function emitSkinny(name: string, spec: DotSpec, target: VectorTarget): EmittedKernel {
  const { m, n, k } = spec
  const dtype = spec.out as Float
  const T = cTypes[dtype]
  const { body, support } =
    skinnyKind(spec, target) === 'columns' ? columns(spec, dtype, target) : dots(spec, dtype, target)
  const code = `
/* [${m}, ${k}] [${k}, ${n}], few rows: ${2 * m * n * k} operations. */
static void ${name}(const int tid, const ${T} *a, const ${T} *b, ${T} *out, void *scratch) {
  (void)scratch;
${body}
}
`
  return { code, support, scratchBytes: 0 }
}

interface Driver {
  readonly body: string
  readonly support: readonly Support[]
}

/** Vectors of a tile with so many rows: accumulators, a line of b and a broadcast fill the registers. */
const widths = (target: VectorTarget): readonly number[] =>
  target.registers === 32 ? [0, 4, 4, 4, 4, 4, 4, 3, 3] : [0, 4, 4, 3, 3]

/** Rows of b are contiguous: each thread has a run of columns, in panels as wide as a tile. */
function columns({ a, b, m, n, k }: DotSpec, dtype: Float, target: VectorTarget): Driver {
  const lanes = lanesOf(dtype, target)
  const width = widths(target)
  const groups = Math.ceil(m / (width.length - 1))
  const rows = Math.ceil(m / groups)
  const vectors = width[rows]!
  const depth = groups === 1 ? k : depthAtOnce
  const whole = Math.floor(n / lanes)
  const support: Support[] = []
  const tiles = (wide: number): string =>
    Array.from({ length: groups }, (_, group) => {
      const first = group * rows
      const count = Math.min(rows, m - first)
      const tile = emitTile(dtype, count, wide, groups)
      support.push(tile)
      return (
        `      ${tile.name}(depth, a + ${first * a.rowStride} + p, ${a.rowStride}, right, ${b.rowStride}, ` +
        `out + ${first * n} + c, ${n}, p > 0, next + ${Math.floor((depth * group) / groups) * b.rowStride});`
      )
    }).join('\n')
  const tail = n - whole * lanes
  const T = cTypes[dtype]
  // Columns that fill no vector go through the same tiles, beside zeros: a plain loop might be summed otherwise.
  const tailTiles = Array.from({ length: groups }, (_, group) => {
    const first = group * rows
    const tile = emitTile(dtype, Math.min(rows, m - first), 1, groups)
    support.push(tile)
    return `      ${tile.name}(depth, a + ${first * a.rowStride} + p, ${a.rowStride}, panel, ${lanes}, edge + ${first * lanes}, ${lanes}, p > 0, panel);`
  })
  const body = `
  const long from = ${whole}L * tid / THREADS * ${lanes}, to = ${whole}L * (tid + 1) / THREADS * ${lanes};
  for (long p = 0; p < ${k}; p += ${depth}) {
    const long depth = ${k} - p < ${depth} ? ${k} - p : ${depth};
    long c = from;
    for (; c + ${vectors * lanes} <= to; c += ${vectors * lanes}) {
      const ${T} *const right = b + p * ${b.rowStride} + c;
      /* What comes after this block: the same rows of the next panel, or the first panel of the next rows. */
      const ${T} *const next = c + ${2 * vectors * lanes} <= to ? right + ${vectors * lanes}
                        : p + 2 * ${depth} <= ${k} ? b + (p + ${depth}) * ${b.rowStride} + from : right;
${tiles(vectors)}
    }
    for (; c < to; c += ${lanes}) {
      const ${T} *const right = b + p * ${b.rowStride} + c, *const next = right;
${tiles(1)}
    }
  }
  COUNT(${2 * m * k} * (to - from));
  if (tid == 0 && ${tail}) {
    ${T} panel[${(depthAtOnce + 2 * ahead) * lanes}] __attribute__((aligned(64))) = {0}, edge[${m * lanes}];
    for (long p = 0; p < ${k}; p += ${depthAtOnce}) {
      const long depth = ${k} - p < ${depthAtOnce} ? ${k} - p : ${depthAtOnce};
      for (long q = 0; q < depth; q++)
        for (long c = 0; c < ${tail}; c++) panel[q * ${lanes} + c] = b[(p + q) * ${b.rowStride} + ${whole * lanes} + c];
${tailTiles.join('\n')}
    }
    for (long i = 0; i < ${m}; i++)
      for (long c = 0; c < ${tail}; c++) out[i * ${n} + ${whole * lanes} + c] = edge[i * ${lanes} + c];
    COUNT(${2 * m * k * tail});
  }`
  return { body, support }
}

/**
 * out[rows, vectors] (+)= a[rows, depth] b[depth, vectors], held in registers. Where one group of rows is all there is,
 * loads run ahead down the same columns; several share out the lines of the block that comes next, a row of it every
 * `groups` steps, so that memory is asked for evenly while the products run from cache.
 */
function emitTile(dtype: Float, rows: number, vectors: number, groups: number): Support {
  const T = cTypes[dtype]
  const name = `skinny_${dtype}_${rows}x${vectors}_${groups}`
  const eachRow = `_Pragma("GCC unroll ${rows}") for (int i = 0; i < ${rows}; i++)`
  const eachVector = `_Pragma("GCC unroll ${vectors}") for (int j = 0; j < ${vectors}; j++)`
  const place = groups === 1 ? `b + ${ahead} * bRow` : 'next'
  const step = `
      v${dtype} line[${vectors}];
      ${eachVector} line[j] = *(const v${dtype}u *)(b + j * LANES_${dtype});
      ${eachRow} ${eachVector} sum[i][j] += a[i * aRow] * line[j];`
  return {
    name,
    code: `
static __attribute__((noinline)) void ${name}(const long depth, const ${T} *a, const long aRow, const ${T} *b, const long bRow,
                                              ${T} *out, const long outRow, const int accumulate, const ${T} *next) {
  v${dtype} sum[${rows}][${vectors}];
  ${eachRow} ${eachVector} sum[i][j] = (v${dtype}){0};
  if (accumulate) ${eachRow} ${eachVector} sum[i][j] = *(const v${dtype}u *)(out + i * outRow + j * LANES_${dtype});
  long p = 0;
  for (; p + ${groups} <= depth; p += ${groups}, next += bRow) {
    ${eachVector} __builtin_prefetch(${place} + j * LANES_${dtype});
    _Pragma("GCC unroll ${groups}") for (int u = 0; u < ${groups}; u++, a++, b += bRow) {${step}
    }
  }
  for (; p < depth; p++, a++, b += bRow) {${step}
  }
  ${eachRow} ${eachVector} *(v${dtype}u *)(out + i * outRow + j * LANES_${dtype}) = sum[i][j];
}
`,
  }
}

/** Columns of b are contiguous: four of them at a time, against four rows of a at a time. */
function dots({ a, b, m, n, k }: DotSpec, dtype: Float, target: VectorTarget): Driver {
  const lanes = lanesOf(dtype, target)
  const rows = target.registers === 32 ? 4 : 2
  const support = emitDots(dtype)
  const whole = k - (k % lanes)
  const units = Math.ceil(n / 4)
  const calls = Array.from({ length: Math.ceil(m / rows) }, (_, group) => {
    const first = group * rows
    const count = Math.min(rows, m - first)
    return (
      `    dots_${dtype}(${count}, ${whole}, ${k}, a + ${first * a.rowStride}, ${a.rowStride}, b + j * ${b.colStride}, ` +
      `columns > 1 ? ${b.colStride} : 0, columns > 2 ? ${2 * b.colStride} : 0, columns > 3 ? ${3 * b.colStride} : 0, ` +
      `columns, out + ${first * n} + j, ${n});`
    )
  })
  const body = `
  const long from = ${units}L * tid / THREADS * 4, end = ${units}L * (tid + 1) / THREADS * 4, to = end < ${n} ? end : ${n};
  for (long j = from; j < to; j += 4) {
    const long columns = to - j < 4 ? to - j : 4;
${calls.join('\n')}
  }
  COUNT(${2 * m * k} * (to - from));`
  return { body, support: [support] }
}

const emitDots = (dtype: Float): Support => {
  const T = cTypes[dtype]
  const V = `v${dtype}`
  return {
    name: `dots_${dtype}`,
    code: `
/* Dot products of \`rows\` rows of a and up to four columns of b, which stay in cache for the rows that follow. */
INLINE void dots_${dtype}(const int rows, const long whole, const long k, const ${T} *a, const long aRow, const ${T} *b, const long b1,
                     const long b2, const long b3, const long columns, ${T} *out, const long outRow) {
  ${V} sum[4][4];
  _Pragma("GCC unroll 4") for (int i = 0; i < rows; i++) _Pragma("GCC unroll 4") for (int c = 0; c < 4; c++) sum[i][c] = (${V}){0};
  for (long p = 0; p < whole; p += LANES_${dtype}) {
    const ${V} line[4] = {*(const ${V}u *)(b + p), *(const ${V}u *)(b + b1 + p), *(const ${V}u *)(b + b2 + p), *(const ${V}u *)(b + b3 + p)};
    _Pragma("GCC unroll 4") for (int i = 0; i < rows; i++) {
      const ${V} x = *(const ${V}u *)(a + i * aRow + p);
      _Pragma("GCC unroll 4") for (int c = 0; c < 4; c++) sum[i][c] += x * line[c];
    }
  }
  const long column[4] = {0, b1, b2, b3};
  _Pragma("GCC unroll 4") for (int i = 0; i < rows; i++)
    for (long c = 0; c < columns; c++) {
      ${T} total = hsum_${dtype}(sum[i][c]);
      for (long q = whole; q < k; q++) total += a[i * aRow + q] * b[column[c] + q];
      out[i * outRow + c] = total;
    }
}
`,
  }
}
