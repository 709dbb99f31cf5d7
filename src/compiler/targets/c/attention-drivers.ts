/**
 * The C text of the attention drivers. Notation: P are probabilities, S scaled scores, dX the gradient of X. In scratch,
 * a head's keys (and, backward, values) lie transposed in panels of a few vectors, the other operands as rows padded to
 * whole tiles; a block of scores is rows x `columns`, and its column 0 is key `base`.
 */
import { cTypes, lanesOf, type Float, type Support, type VectorTarget } from './prelude.ts'

/** Plan type, ranges, and the copies into scratch. */
export function emitAttentionShared(dtype: Float, target: VectorTarget): Support[] {
  const T = cTypes[dtype]
  const lanes = `LANES_${dtype}`
  const iota = Array.from({ length: lanesOf(dtype, target) }, (_, i) => i).join(', ')
  return [
    {
      name: 'attention_plan',
      code: `
typedef struct { long batch, time, head; } attention_strides;
/* Constants of one attention kernel: the problem, then how it is cut. */
typedef struct {
  long batch, queries, keys, heads, kvHeads, dim, bounded, window;
  double scale;
  long panel, paddedDim, paddedKeys, blockRows, columns, scoreRows, wideRows, wideColumns, privateBytes;
  attention_strides q, k, v;
  const void *score, *halfScore, *wide; /* register tiles */
  const long *before;                   /* work of a head before each block of queries */
} attention_plan;

INLINE long smaller(const long a, const long b) { return a < b ? a : b; }
INLINE long larger(const long a, const long b) { return a > b ? a : b; }

/* Keys [first, end) that query i sees. */
INLINE long attention_end(const attention_plan *g, const long i) {
  return g->bounded ? larger(0, i + g->keys - g->queries + 1) : g->keys;
}
INLINE long attention_first(const attention_plan *g, const long i) {
  return g->window > 0 ? smaller(attention_end(g, i), larger(0, i + g->keys - g->queries - g->window + 1)) : 0;
}
/* Columns [low, high) of a tile of rows: what they see, widened to whole vectors and tiles. */
#define ATTENTION_UNIT(LANES) ((LANES) > 8 ? (LANES) : 8)
INLINE void attention_stretch(const attention_plan *g, const long first, const long rows, const long base, const long unit,
                              const long r, long *low, long *high) {
  *low = (attention_first(g, first + r) - base) / unit * unit;
  *high = (attention_end(g, first + smaller(r + g->wideRows, rows) - 1) - base + unit - 1) / unit * unit;
}
`,
    },
    {
      name: `attention_shared_${dtype}`,
      code: `
/* Rows of a head, scaled and padded with zeros to [padded, paddedDim]. */
static void attention_rows_${dtype}(const attention_plan *g, const ${T} *restrict in, const long stride, const long count,
                               const long padded, const ${T} scale, ${T} *restrict out) {
  for (long i = 0; i < count; i++, out += g->paddedDim) {
    for (long d = 0; d < g->dim; d++) out[d] = in[i * stride + d] * scale;
    for (long d = g->dim; d < g->paddedDim; d++) out[d] = 0;
  }
  for (long i = 0; i < (padded - count) * g->paddedDim; i++) out[i] = 0;
}

/* Rows of a head for a tile's right side: where they are if they are whole vectors, or copied; and their stride. */
static const ${T} *attention_whole_${dtype}(const attention_plan *g, const ${T} *in, const long stride, const long count, ${T} *copy,
                                       long *row) {
  *row = g->dim == g->paddedDim ? stride : g->paddedDim;
  if (g->dim == g->paddedDim) return in;
  attention_rows_${dtype}(g, in, stride, count, count, 1, copy);
  return copy;
}

/* Keys of a head as panels [dim, panel], zeros beyond the last key. */
static void attention_panels_${dtype}(const attention_plan *g, const ${T} *in, const long stride, ${T} *out) {
  for (long j = 0; j < g->paddedKeys; j += ${lanes}) {
    ${T} *panel = out + j / g->panel * g->panel * g->dim + j % g->panel;
    long d = 0;
    if (j + ${lanes} <= g->keys)
      for (; d + ${lanes} <= g->dim; d += ${lanes})
        transpose_${dtype}(in + j * stride + d, stride, panel + d * g->panel, g->panel);
    for (; d < g->dim; d++)
      for (long c = 0; c < ${lanes}; c++) panel[d * g->panel + c] = j + c < g->keys ? in[(j + c) * stride + d] : 0;
  }
}

/* out[row, key - base] = left[row] . key, for each tile of rows over the panels that some of its queries see. */
static void attention_scores_${dtype}(const attention_plan *g, const long first, const long rows, const long base, const ${T} *left,
                                 const ${T} *panels, ${T} *out) {
  const long end = attention_end(g, first + rows - 1);
  for (long j = base; j < end; j += g->panel)
    for (long r = 0; r < rows; r += g->scoreRows) {
      const long from = attention_first(g, first + r), to = attention_end(g, first + smaller(r + g->scoreRows, rows) - 1);
      if (j + g->panel <= from || j >= to) continue;
      tile_${dtype} *compute = (tile_${dtype} *)(to - j <= g->panel / 2 ? g->halfScore : g->score);
      compute(g->dim, left + r * g->paddedDim, g->paddedDim, 1, panels + j * g->dim, g->panel, out + r * g->columns + j - base,
              g->columns, 0);
    }
}

/* out[row] = sum over its keys of weights[row, key - base] right[key], with rows of right rightRow apart. */
static void attention_mix_${dtype}(const attention_plan *g, const long first, const long rows, const long base, const ${T} *weights,
                              const ${T} *right, const long rightRow, ${T} *out) {
  const long end = attention_end(g, first + rows - 1), stretch = 512; /* keys that stay in cache for all rows */
  for (long r = 0; r < rows; r += g->wideRows)
    if (attention_first(g, first + r) == attention_end(g, first + smaller(r + g->wideRows, rows) - 1))
      memset(out + r * g->paddedDim, 0, (size_t)(g->wideRows * g->paddedDim) * sizeof *out);
  for (long j = base; j < end; j += stretch)
    for (long r = 0; r < rows; r += g->wideRows) {
      const long start = attention_first(g, first + r), from = larger(j, start);
      const long to = smaller(j + stretch, attention_end(g, first + smaller(r + g->wideRows, rows) - 1));
      for (long d = 0; d < g->paddedDim && from < to; d += g->wideColumns)
        ((tile_${dtype} *)g->wide)(to - from, weights + r * g->columns + from - base, g->columns, 1, right + from * rightRow + d,
                              rightRow, out + r * g->paddedDim + d, g->paddedDim, from > start);
    }
}

/* Lanes of a vector of columns from j on that lie in [from, to). */
INLINE vmask_${dtype} attention_visible_${dtype}(const long j, const long from, const long to) {
  const vmask_${dtype} column = (vmask_${dtype}){${iota}} + (int)j;
  return (vmask_${dtype})(column >= (int)from) & (vmask_${dtype})(column < (int)to);
}
`,
    },
  ]
}

export function emitForwardDriver(dtype: Float): Support {
  const T = cTypes[dtype]
  const V = `v${dtype}`
  const lanes = `LANES_${dtype}`
  return {
    name: `attention_forward_${dtype}`,
    code: `
/*
 * Turns scores into exponentials, zero where masked, in the whole stretch of each tile of rows; gives the sum of each
 * row and the maximum that was subtracted.
 */
static void attention_softmax_${dtype}(const attention_plan *g, const long first, const long rows, const long base, ${T} *scores,
                                  ${T} *sums, ${T} *maxima) {
  for (long top = 0; top < rows; top += g->wideRows) {
    long low, high;
    attention_stretch(g, first, rows, base, ATTENTION_UNIT(${lanes}), top, &low, &high);
    for (long r = top; r < smaller(top + g->wideRows, rows); r++) {
      const long from = attention_first(g, first + r) - base, to = attention_end(g, first + r) - base;
      ${T} *row = scores + r * g->columns;
      ${V} most = (${V}){0} - INFINITY, sum = {0};
      for (long j = low; j < high; j += ${lanes}) {
        const ${V} x = vselect_${dtype}(attention_visible_${dtype}(j, from, to), *(const ${V}u *)(row + j), (${V}){0} - INFINITY);
        *(${V}u *)(row + j) = x;
        most = vmax_${dtype}(most, x);
      }
      const ${T} shift = from < to ? hmax_${dtype}(most) : 0;
      for (long j = low; j < high; j += ${lanes}) {
        const ${V} x = vexp_${dtype}(*(const ${V}u *)(row + j) - shift);
        *(${V}u *)(row + j) = x;
        sum += x;
      }
      sums[r] = hsum_${dtype}(sum);
      maxima[r] = shift;
    }
  }
}

static void attention_forward_${dtype}(const int tid, const attention_plan *g, const ${T} *q, const ${T} *k, const ${T} *v, ${T} *o,
                                  ${T} *lse, void *scratch) {
  ${T} *keys = (${T} *)((char *)scratch + tid * g->privateBytes);
  ${T} *valueCopy = keys + g->paddedKeys * g->dim;
  ${T} *query = valueCopy + g->paddedKeys * g->paddedDim;
  ${T} *mixed = query + g->blockRows * g->paddedDim;
  ${T} *scores = mixed + g->blockRows * g->paddedDim;
  ${T} sums[g->blockRows], maxima[g->blockRows];
  const long blocks = (g->queries + g->blockRows - 1) / g->blockRows, work = g->before[blocks];
  const ${T} *values = 0;
  long valueRow = 0, loaded = -1; /* the head whose keys and values are in scratch */
  for (long n = 0; n < g->batch * g->heads; n++) {
    const long b = n / g->heads, h = n % g->heads, shared = h / (g->heads / g->kvHeads);
    if ((n * work + work - 1) * THREADS / (g->batch * g->heads * work) < tid) continue;
    for (long block = 0; block < blocks; block++) {
      if ((n * work + g->before[block]) * THREADS / (g->batch * g->heads * work) != tid) continue;
      if (loaded != b * g->kvHeads + shared) {
        loaded = b * g->kvHeads + shared;
        attention_panels_${dtype}(g, k + b * g->k.batch + shared * g->k.head, g->k.time, keys);
        values = attention_whole_${dtype}(g, v + b * g->v.batch + shared * g->v.head, g->v.time, g->keys, valueCopy, &valueRow);
      }
      const long first = block * g->blockRows, rows = smaller(g->blockRows, g->queries - first);
      const long base = attention_first(g, first) / g->panel * g->panel;
      attention_rows_${dtype}(g, q + b * g->q.batch + first * g->q.time + h * g->q.head, g->q.time, rows, g->blockRows,
                         (${T})g->scale, query);
      attention_scores_${dtype}(g, first, rows, base, query, keys, scores);
      attention_softmax_${dtype}(g, first, rows, base, scores, sums, maxima);
      long pairs = 0;
      for (long r = 0; r < rows; r++) pairs += attention_end(g, first + r) - attention_first(g, first + r);
      ${T} *logs = lse + (b * g->heads + h) * g->queries + first;
      for (long r = 0; r < rows; r++) logs[r] = maxima[r] + log_${dtype}(sums[r]);
      /* A query that sees no key gives 0. */
      for (long r = 0; r < rows; r++) sums[r] = sums[r] == 0 ? 0 : 1 / sums[r];
      attention_mix_${dtype}(g, first, rows, base, scores, values, valueRow, mixed);
      for (long r = 0; r < rows; r++) {
        ${T} *out = o + ((b * g->queries + first + r) * g->heads + h) * g->dim;
        for (long d = 0; d < g->dim; d++) out[d] = mixed[r * g->paddedDim + d] * sums[r];
      }
      COUNT(pairs * (4 * g->dim + 4) + rows * (2 * g->dim + 3));
    }
  }
}
`,
  }
}

export function emitBackwardDriver(dtype: Float): Support {
  const T = cTypes[dtype]
  const V = `v${dtype}`
  const lanes = `LANES_${dtype}`
  return {
    name: `attention_backward_${dtype}`,
    code: `
/* out[key] += sum over the rows that see it of weights[row, key - base] right[row], a tile of keys at a time. */
static void attention_scatter_${dtype}(const attention_plan *g, const long first, const long rows, const long base,
                                  const ${T} *weights, const ${T} *right, const long rightRow, ${T} *out) {
  const long unit = ATTENTION_UNIT(${lanes}), end = attention_end(g, first + rows - 1);
  long from = 0, to = 0; /* rows whose valid stretch holds the tile; both ends only move on */
  for (long j = attention_first(g, first) / unit * unit; j < end; j += g->wideRows) {
    while (from < rows && (attention_end(g, first + from) + unit - 1) / unit * unit <= j) from++;
    while (to < rows && attention_first(g, first + to) / unit * unit <= j) to++;
    for (long d = 0; d < g->paddedDim && from < to; d += g->wideColumns)
      ((tile_${dtype} *)g->wide)(to - from, weights + from * g->columns + j - base, 1, g->columns, right + from * rightRow + d,
                            rightRow, out + j * g->paddedDim + d, g->paddedDim, 1);
  }
}

/* P = exp(S - lse) and dS = P (dP - delta), zero where masked, in place of S and dP; delta = dO . o of each row. */
static void attention_weights_${dtype}(const attention_plan *g, const long first, const long rows, const long base, const ${T} *lse,
                                  const ${T} *dOut, const ${T} *o, const long oRow, ${T} *P, ${T} *dS) {
  for (long top = 0; top < rows; top += g->wideRows) {
    long low, high;
    attention_stretch(g, first, rows, base, ATTENTION_UNIT(${lanes}), top, &low, &high);
    for (long r = top; r < smaller(top + g->wideRows, rows); r++) {
      const long from = attention_first(g, first + r) - base, to = attention_end(g, first + r) - base;
      ${V} product = {0};
      for (long d = 0; d < g->paddedDim; d += ${lanes})
        product += *(const ${V}u *)(dOut + r * g->paddedDim + d) * *(const ${V}u *)(o + r * oRow + d);
      const ${T} delta = hsum_${dtype}(product), shift = lse[r];
      for (long j = r * g->columns + low; j < r * g->columns + high; j += ${lanes}) {
        const vmask_${dtype} visible = attention_visible_${dtype}(j - r * g->columns, from, to);
        const ${V} p = vselect_${dtype}(visible, vexp_${dtype}(*(const ${V}u *)(P + j) - shift), (${V}){0});
        *(${V}u *)(P + j) = p;
        *(${V}u *)(dS + j) = vselect_${dtype}(visible, p * (*(const ${V}u *)(dS + j) - delta), (${V}){0});
      }
    }
  }
}

static void attention_backward_${dtype}(const int tid, const attention_plan *g, const ${T} *q, const ${T} *k, const ${T} *v,
                                   const ${T} *o, const ${T} *lse, const ${T} *dO, ${T} *dq, ${T} *dk, ${T} *dv, void *scratch) {
  const long groups = g->heads / g->kvHeads, units = g->batch * g->kvHeads, wide = g->paddedKeys * g->paddedDim;
  const long block = g->blockRows * g->paddedDim;
  ${T} *keys = (${T} *)((char *)scratch + tid * g->privateBytes), *values = keys + g->paddedKeys * g->dim;
  ${T} *keyCopy = values + g->paddedKeys * g->dim, *dKeys = keyCopy + wide, *dValues = dKeys + wide;
  ${T} *query = dValues + wide, *dOut = query + block, *mixed = dOut + block;
  ${T} *P = mixed + block, *dS = P + g->blockRows * g->columns;
  for (long unit = units * tid / THREADS; unit < units * (tid + 1) / THREADS; unit++) {
    const long b = unit / g->kvHeads, shared = unit % g->kvHeads;
    attention_panels_${dtype}(g, k + b * g->k.batch + shared * g->k.head, g->k.time, keys);
    attention_panels_${dtype}(g, v + b * g->v.batch + shared * g->v.head, g->v.time, values);
    long keyRow, oRow;
    const ${T} *keyRows = attention_whole_${dtype}(g, k + b * g->k.batch + shared * g->k.head, g->k.time, g->keys, keyCopy, &keyRow);
    memset(dKeys, 0, (size_t)(2 * wide) * sizeof *dKeys);
    for (long h = shared * groups; h < (shared + 1) * groups; h++)
      for (long first = 0; first < g->queries; first += g->blockRows) {
        const long rows = smaller(g->blockRows, g->queries - first);
        const long base = attention_first(g, first) / g->panel * g->panel, time = g->heads * g->dim;
        const long at = (b * g->queries + first) * time + h * g->dim;
        attention_rows_${dtype}(g, q + b * g->q.batch + first * g->q.time + h * g->q.head, g->q.time, rows, g->blockRows,
                           (${T})g->scale, query);
        attention_rows_${dtype}(g, dO + at, time, rows, g->blockRows, 1, dOut);
        const ${T} *outRows = attention_whole_${dtype}(g, o + at, time, rows, mixed, &oRow);
        attention_scores_${dtype}(g, first, rows, base, query, keys, P);
        attention_scores_${dtype}(g, first, rows, base, dOut, values, dS);
        attention_weights_${dtype}(g, first, rows, base, lse + (b * g->heads + h) * g->queries + first, dOut, outRows, oRow, P,
                                dS);
        long pairs = 0;
        for (long r = 0; r < rows; r++) pairs += attention_end(g, first + r) - attention_first(g, first + r);
        attention_scatter_${dtype}(g, first, rows, base, P, dOut, g->paddedDim, dValues);
        attention_scatter_${dtype}(g, first, rows, base, dS, query, g->paddedDim, dKeys);
        attention_mix_${dtype}(g, first, rows, base, dS, keyRows, keyRow, mixed);
        for (long r = 0; r < rows; r++)
          for (long d = 0; d < g->dim; d++) dq[at + r * time + d] = mixed[r * g->paddedDim + d] * (${T})g->scale;
        COUNT(pairs * (10 * g->dim + 4) + rows * 4 * g->dim);
      }
    for (long j = 0; j < g->keys; j++)
      for (long d = 0; d < g->dim; d++) {
        const long to = ((b * g->keys + j) * g->kvHeads + shared) * g->dim + d;
        dk[to] = dKeys[j * g->paddedDim + d];
        dv[to] = dValues[j * g->paddedDim + d];
      }
  }
}
`,
  }
}
