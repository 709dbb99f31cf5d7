/**
 * The inner loops of attention, with everything about the problem known to the C compiler. Scores of a block lie as
 * [key, query]: a vector holds one key's scores for as many queries as it has lanes, so that maxima, sums and masks of
 * queries need nothing across lanes, keys and values are read as rows and never transposed, and only the block's
 * queries (backward also the gradient of its output) are, once.
 */
import {
  isBounded,
  keyStride,
  valueStride,
  type AttentionPlan,
  type AttentionSpec,
} from './attention-plan.ts'
import { cTypes, type Float, type Support, type VectorTarget } from './prelude.ts'
import { emitTranspose } from './tile.ts'

export const attentionSupport = (dtype: Float, target: VectorTarget): Support[] => [
  emitTranspose(dtype, target),
  ranges,
  largest(dtype),
  exponential[dtype],
]

const ranges: Support = {
  name: 'attention_ranges',
  code: `
#define APART static __attribute__((noinline)) void /* one loop, one function: the registers are all its own */
#define ATTENTION_LOWEST (-1e38f) /* the maximum of no scores; finite, so that -infinity has a distance to it */
INLINE long smaller(const long a, const long b) { return a < b ? a : b; }
INLINE long larger(const long a, const long b) { return a > b ? a : b; }
`,
}

/** The larger lanes. GCC 12 does not find the instruction for a comparison and a choice, only worse ones. */
const largest = (dtype: Float): Support => ({
  name: `attention_largest_${dtype}`,
  code: `
INLINE v${dtype} attention_largest_${dtype}(const v${dtype} a, const v${dtype} b) {
#if defined(__AVX512F__) && VECTOR_BYTES == 64 && !defined(__clang__)
  return __builtin_ia32_max${dtype === 'f32' ? 'ps' : 'pd'}512_mask(b, a, a, -1, 4);
#else
  return vmax_${dtype}(a, b);
#endif
}
`,
})

/**
 * e^x for x that are not far above 0: 2^n 2^r with |r| <= 1/2 and a polynomial of degree 6 (relative error 1e-7), 0 from
 * -88 down. n + 127 is read off the low bits of a sum that rounds, and becomes the exponent of a factor.
 */
const exponential: Readonly<Record<Float, Support>> = {
  f32: {
    name: 'attention_exp_f32',
    code: `
INLINE vf32 attention_exp_f32(vf32 x) {
  const float log2e = 1.44269504f, rounding = ROUNDING_MAGIC + 127.0f;
  x = attention_largest_f32(x, (vf32){0} - 88.0f);
  const vf32 shifted = x * log2e + rounding, r = x * log2e - (shifted - rounding);
  vf32 p = r * 1.55946778e-4f + 1.34066434e-3f;
  p = p * r + 9.61769279e-3f;
  p = p * r + 5.55031039e-2f;
  p = p * r + 2.40226522e-1f;
  p = p * r + 6.93147242e-1f;
  p = p * r + 1.0f;
  return p * (vf32)((vmask_f32)shifted << 23);
}
`,
  },
  f64: {
    name: 'attention_exp_f64',
    code: `
INLINE vf64 attention_exp_f64(const vf64 x) { return vexp_f64(x); }
`,
  },
}

/** Loops that the C compiler unrolls, so that arrays of vectors become registers. */
export const each = (variable: string, count: number): string =>
  `_Pragma("GCC unroll ${count}") for (int ${variable} = 0; ${variable} < ${count}; ${variable}++)`

/** C text of which keys a query sees, and of copies into scratch. */
export function emitRanges(name: string, spec: AttentionSpec, plan: AttentionPlan): string {
  const { dtype, queries, keys, window, dim } = spec
  const T = cTypes[dtype]
  const { paddedDim, width, lanes } = plan
  const offset = keys - queries
  return `
/* Keys [first, end) that query i sees. */
INLINE long ${name}_end(const long i) { ${isBounded(spec) ? `return smaller(${keys}, larger(0, i + ${offset + 1}));` : `(void)i; return ${keys};`} }
INLINE long ${name}_first(const long i) { ${window > 0 ? `return smaller(${name}_end(i), larger(0, i + ${offset - window + 1}));` : `(void)i; return 0;`} }

/* Rows of a head, scaled, with zeros to whole vectors and to \`padded\` rows. */
APART ${name}_rows(const ${T} *restrict in, const long stride, const long count, const long padded, const ${T} scale, ${T} *restrict out) {
  for (long i = 0; i < count; i++, in += stride, out += ${paddedDim}) {
    for (long d = 0; d < ${dim}; d++) out[d] = in[d] * scale;
    for (long d = ${dim}; d < ${paddedDim}; d++) out[d] = 0;
  }
  if (padded > count) memset(out, 0, (size_t)((padded - count) * ${paddedDim}) * sizeof *out);
}

/* Rows of scratch to where they belong, scaled. */
APART ${name}_store(const ${T} *restrict in, const long count, const ${T} scale, ${T} *restrict out, const long stride) {
  for (long i = 0; i < count; i++, in += ${paddedDim}, out += stride)
    for (long d = 0; d < ${dim}; d++) out[d] = in[d] * scale;
}

/* The rows of a block of queries as columns, scaled. */
APART ${name}_columns(const ${T} *in, const long stride, const ${T} scale, ${T} *out) {
  for (long d = 0; d < ${paddedDim}; d += ${lanes})
    for (long i = 0; i < ${width}; i += ${lanes}) {
      transpose_${dtype}(in + i * stride + d, stride, out + d * ${width} + i, ${width});
      for (long r = d; r < d + ${lanes}; r++) *(v${dtype}u *)(out + r * ${width} + i) *= scale;
    }
}
`
}

interface ScoreTile {
  readonly spec: AttentionSpec
  readonly plan: AttentionPlan
  /** The first vector of queries that is computed: the others see none of the tile's keys. */
  readonly start: number
}

/**
 * C text of the lanes of vector v that see the key of row r. `from` is the lane of the query that stands at the tile's
 * first key, `left` the number of keys from there.
 */
function visibleLanes({ spec, plan, start }: ScoreTile): string {
  const { dtype, window } = spec
  const iota = Array.from({ length: plan.lanes }, (_, i) => i).join(', ')
  const lane = `((vmask_${dtype}){${iota}} + (${start} + v) * ${plan.lanes})`
  if (!isBounded(spec)) return `(vmask_${dtype})(${lane} >= (r < left ? 0 : ${plan.width}))`
  const reached = `(vmask_${dtype})(${lane} >= (int)(from + r))`
  return window > 0 ? `${reached} & (vmask_${dtype})(${lane} < (int)(from + r + ${window}))` : reached
}

/** What tells a tile of scores which of its pairs are visible. */
export const maskParameters = 'const int masked, const long from, const long left'

/** C text of a tile of inner products: `sum[row][vector] = rows . columns`. */
const products = (
  { spec: { dtype, dim }, plan }: ScoreTile,
  count: number,
  rows: string,
  rowStride: number,
  columns: string,
  start: number,
): string => {
  const { keyRows, width, lanes } = plan
  return `
  for (long d = 0; d < ${dim}; d++) {
    v${dtype} line[${count}];
    ${each('v', count)} line[v] = *(const v${dtype}u *)(${columns} + d * ${width} + (${start} + v) * ${lanes});
    ${each('r', keyRows)} ${each('v', count)} sum[r][v] += ${rows}[r * ${rowStride} + d] * line[v];
  }`
}

/** Halves first, so that results do not wait for one another in a row. */
function treeOf(join: (a: string, b: string) => string, terms: readonly string[]): string {
  const half = terms.length >> 1
  return half === 0 ? terms[0]! : join(treeOf(join, terms.slice(0, half)), treeOf(join, terms.slice(half)))
}

/** `scores[key, query]` of a tile of keys, -infinity where hidden, and the maximum of each query so far. */
export function emitScores(name: string, tile: ScoreTile): string {
  const { spec, plan, start } = tile
  const { dtype } = spec
  const T = cTypes[dtype]
  const count = plan.vectors - start
  const extra = spec.bias || spec.mask
  const pairs = `${each('r', plan.keyRows)} ${each('v', count)}`
  const at = `r * ${plan.width} + (${start} + v) * ${plan.lanes}`
  return `
APART ${name}(const ${T} *key, const ${T} *query, ${extra ? `const ${T} *extra, ` : ''}${T} *scores, ${T} *most, ${maskParameters}) {
  v${dtype} sum[${plan.keyRows}][${count}] = {0};${products(tile, count, 'key', keyStride(spec, plan), 'query', start)}${extra ? `\n  ${pairs} sum[r][v] += *(const v${dtype}u *)(extra + ${at});` : ''}
  if (masked)
    ${pairs} sum[r][v] = vselect_${dtype}(${visibleLanes(tile)}, sum[r][v], (v${dtype}){0} - INFINITY);
  ${each('v', count)} {
    v${dtype}u *top = (v${dtype}u *)(most + (${start} + v) * ${plan.lanes});
    *top = ${treeOf((a, b) => `attention_largest_${dtype}(${a}, ${b})`, ['*top', ...Array.from({ length: plan.keyRows }, (_, r) => `sum[${r}][v]`)])};
  }
  ${pairs} *(v${dtype}u *)(scores + ${at}) = sum[r][v];
  (void)from, (void)left;
}
`
}

/**
 * Backward: `P = exp(S - lse)` and `dS = P (dP - delta)` of a tile of keys, zero where hidden, with the inner products
 * S of keys and queries and dP of values and the gradient of the output.
 */
export function emitWeights(name: string, tile: ScoreTile): string {
  const { spec, plan, start } = tile
  const { dtype } = spec
  const T = cTypes[dtype]
  const count = plan.vectors - start
  const extra = spec.bias || spec.mask
  const pairs = `${each('r', plan.keyRows)} ${each('v', count)}`
  const lane = `(${start} + v) * ${plan.lanes}`
  const at = `r * ${plan.width} + ${lane}`
  const names = ['key', 'query', 'value', 'dOut', ...(extra ? ['extra'] : []), 'lse', 'delta']
  return `
APART ${name}(${names.map((x) => `const ${T} *${x}`).join(', ')}, ${T} *P, ${T} *dS, ${maskParameters}) {
  v${dtype} sum[${plan.keyRows}][${count}] = {0};${products(tile, count, 'key', plan.paddedDim, 'query', start)}${extra ? `\n  ${pairs} sum[r][v] += *(const v${dtype}u *)(extra + ${at});` : ''}
  ${pairs} sum[r][v] = attention_exp_${dtype}(sum[r][v] - *(const v${dtype}u *)(lse + ${lane}));
  if (masked)
    ${pairs} sum[r][v] = vselect_${dtype}(${visibleLanes(tile)}, sum[r][v], (v${dtype}){0});
  ${pairs} *(v${dtype}u *)(P + ${at}) = sum[r][v];
  ${pairs} sum[r][v] = (v${dtype}){0};${products(tile, count, 'value', valueStride(spec, plan), 'dOut', start)}
  ${pairs} *(v${dtype}u *)(dS + ${at}) = *(v${dtype}u *)(P + ${at}) * (sum[r][v] - *(const v${dtype}u *)(delta + ${lane}));
  (void)from, (void)left;
}
`
}

/** A product that is as wide as a head: where its weights lie in the [key, query] array. */
export interface Mix {
  readonly rows: number
  readonly weightRow: number
  readonly weightStep: number
  /** Earlier sums are scaled by a factor a row. */
  readonly factor: boolean
}

/** `out[rows, dim] = factor out (or 0 when fresh) + weights right`, `depth` rows of right. */
export function emitMix(name: string, spec: AttentionSpec, plan: AttentionPlan, mix: Mix): string {
  const { dtype } = spec
  const T = cTypes[dtype]
  const { rows, weightRow, weightStep, factor } = mix
  const { paddedDim, lanes } = plan
  const parameters = `const long depth, const ${T} *weights, const ${T} *right, ${factor ? `const ${T} *factor, ` : ''}${T} *out, const int fresh`
  const strip = (vectors: number): string => `
APART ${name}_${vectors}(${parameters}) {
  v${dtype} sum[${rows}][${vectors}];
  if (fresh) {
    ${each('r', rows)} ${each('v', vectors)} sum[r][v] = (v${dtype}){0};
  } else {
    ${each('r', rows)} ${each('v', vectors)} sum[r][v] = *(const v${dtype}u *)(out + r * ${paddedDim} + v * ${lanes})${factor ? ' * factor[r]' : ''};
  }
  for (long p = 0; p < depth; p++, weights += ${weightStep}, right += ${paddedDim}) {
    v${dtype} line[${vectors}];
    ${each('v', vectors)} line[v] = *(const v${dtype}u *)(right + v * ${lanes});
    ${each('r', rows)} ${each('v', vectors)} sum[r][v] += weights[r * ${weightRow}] * line[v];
  }
  ${each('r', rows)} ${each('v', vectors)} *(v${dtype}u *)(out + r * ${paddedDim} + v * ${lanes}) = sum[r][v];
}
`
  const whole = Math.floor(paddedDim / lanes / 2) * 2 * lanes
  const args = (d: string): string =>
    `depth, weights, right + ${d}, ${factor ? 'factor, ' : ''}out + ${d}, fresh`
  return `${whole > 0 ? strip(2) : ''}${whole < paddedDim ? strip(1) : ''}
INLINE void ${name}(${parameters}) {${whole > 0 ? `\n  for (long d = 0; d < ${whole}; d += ${2 * lanes}) ${name}_2(${args('d')});` : ''}${whole < paddedDim ? `\n  ${name}_1(${args(String(whole))});` : ''}
}
`
}
