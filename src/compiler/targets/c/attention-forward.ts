/**
 * Attention forward. A unit of work is a block of queries of one head; it goes over its keys a block at a time, with the
 * running maximum and sum of each query (Milakov and Gimelshein, "Online normalizer calculation for softmax"). Units
 * are numbered with the batch outermost, then the head, then the block; the keys and values of a head are copied to
 * scratch, densely, when the first unit that needs them comes.
 */
import { emitExtra, extraArguments, extraParameters } from './attention-extra.ts'
import { isBounded, keyStride, layoutOf, type AttentionPlan, type AttentionSpec } from './attention-plan.ts'
import { each, emitMix, emitRanges, emitScores } from './attention-tiles.ts'
import { cTypes } from './prelude.ts'

export interface DriverText {
  readonly code: string
  /** Scratch of one thread. */
  readonly bytes: number
}

/** C text of `NAME_units(tid, first, end, q, k, v, [bias], [mask], o, lse, scratch)`. */
export function emitForwardUnits(name: string, spec: AttentionSpec, plan: AttentionPlan): DriverText {
  const { dtype, queries, heads, kvHeads, dim, scale, q, k, v } = spec
  const { vectors, width, lanes, keyRows, queryRows, keyBlock, paddedDim, paddedKeys, blocks } = plan
  const T = cTypes[dtype]
  const extra = spec.bias || spec.mask
  const inPlace = spec.keys === paddedKeys
  const space = layoutOf(dtype, {
    ...(inPlace ? {} : { keyCopy: paddedKeys * paddedDim }),
    values: paddedKeys * paddedDim,
    copies: width * paddedDim,
    query: width * paddedDim,
    scores: keyBlock * width,
    mixed: width * paddedDim,
    most: width,
    top: width,
    factor: width,
    sums: width,
    ...(extra ? { extra: keyBlock * width } : {}),
  })
  const inputs = `const ${T} *q, const ${T} *k, const ${T} *v, ${extraParameters(spec)}`
  const tiles = [emitScores(`${name}_scores`, { spec, plan, start: 0 })]
  if (vectors > 1) tiles.push(emitScores(`${name}_later`, { spec, plan, start: 1 }))
  const extraTile = extra ? `extra + (j - base) * ${width}, ` : ''
  const code = `${emitRanges(name, spec, plan)}${emitExtra(name, spec, plan)}${tiles.join('')}${emitMix(
    `${name}_mix`,
    spec,
    plan,
    { rows: queryRows, weightRow: 1, weightStep: width, factor: true },
  )}${emitExponentials(name, spec, plan)}
/* A block of queries as scaled columns; by way of a copy where it has no whole vectors. */
APART ${name}_load(const ${T} *q, const long rows, ${T} *copies, ${T} *query) {
  if (${dim === paddedDim ? `rows == ${width}` : '0'}) {
    ${name}_columns(q, ${q.time}, (${T})${scale}, query);
  } else {
    ${name}_rows(q, ${q.time}, rows, ${width}, 1, copies);
    ${name}_columns(copies, ${paddedDim}, (${T})${scale}, query);
  }
}

/* Divides by the sums; a query that sees no key gives 0. */
APART ${name}_finish(const long rows, const ${T} *restrict mixed, const ${T} *restrict top, const ${T} *restrict sums, ${T} *restrict o, ${T} *restrict lse) {
  ${T} logs[${width}], share[${width}];
  for (long i = 0; i < ${width}; i++) {
    logs[i] = top[i] + log_${dtype}(sums[i]);
    share[i] = sums[i] == 0 ? 0 : 1 / sums[i];
  }
  for (long r = 0; r < rows; r++, o += ${heads * dim}) {
    lse[r] = logs[r];
    for (long d = 0; d < ${dim}; d++) o[d] = mixed[r * ${paddedDim} + d] * share[r];
  }
}

static void ${name}_units(const int tid, const long start, const long end, ${inputs}${T} *o, ${T} *lse, void *scratch) {
  (void)tid; /* only counts */
  ${T} *const space = scratch;
  ${space.pointers}
  long loaded = -1; /* the head whose keys and values are in scratch */
  for (long unit = start; unit < end; unit++) {
    const long b = unit / ${blocks * heads}, h = unit / ${blocks} % ${heads}, shared = h / ${heads / kvHeads};
    if (loaded != b * ${kvHeads} + shared) {
      loaded = b * ${kvHeads} + shared;
${inPlace ? '' : `      ${name}_rows(k + b * ${k.batch} + shared * ${k.head}, ${k.time}, ${spec.keys}, ${paddedKeys}, 1, keyCopy);\n`}\
      ${name}_rows(v + b * ${v.batch} + shared * ${v.head}, ${v.time}, ${spec.keys}, ${paddedKeys}, 1, values);
    }
    const long first = unit % ${blocks} * ${width}, rows = smaller(${width}, ${queries} - first);
    const long low = ${name}_first(first) / ${keyRows} * ${keyRows}, high = ${name}_end(first + rows - 1);
    /* From here on keys are seen by the second vector of queries only. */
    const long later = ${vectors > 1 && isBounded(spec) ? `(${name}_end(first + ${lanes - 1}) + ${keyRows - 1}) / ${keyRows} * ${keyRows}` : paddedKeys};
    const ${T} *keys = ${inPlace ? `k + b * ${k.batch} + shared * ${k.head}` : 'keyCopy'};
    ${name}_load(q + b * ${q.batch} + first * ${q.time} + h * ${q.head}, rows, copies, query);
    for (long i = 0; i < ${width}; i++) most[i] = top[i] = ATTENTION_LOWEST, sums[i] = 0;
    long base = low;
    do { /* once even when there are no keys: that writes zeros */
      const long to = larger(base, smaller(base + ${keyBlock}, (high + ${keyRows - 1}) / ${keyRows} * ${keyRows}));
      const long both = larger(base, smaller(to, later));
${extra ? `      ${name}_extra(b, h, first, rows, base, to, ${extraArguments(spec)}extra);\n` : ''}\
      for (long j = base; j < to; j += ${keyRows}) {
        const long from = j - first - ${spec.keys - queries}, left = ${spec.keys} - j;
        const int masked = ${maskedCondition(spec, plan)};
        ${T} *out = scores + (j - base) * ${width};
        ${
          vectors > 1
            ? `if (j < both) ${name}_scores(keys + j * ${keyStride(spec, plan)}, query, ${extraTile}out, most, masked, from, left);
        else ${name}_later(keys + j * ${keyStride(spec, plan)}, query, ${extraTile}out, most, masked, from, left);`
            : `${name}_scores(keys + j * ${keyStride(spec, plan)}, query, ${extraTile}out, most, masked, from, left);`
        }
      }
      ${name}_exponentials(both - base, to - base, most, top, factor, sums, scores);
      for (long r = 0; r < rows; r += ${queryRows}) {
        const long from = larger(base, ${name}_first(first + r));
        const long until = smaller(to, ${name}_end(first + smaller(r + ${queryRows}, rows) - 1));
        if (from < until || base == low)
          ${name}_mix(until - from, scores + (from - base) * ${width} + r, values + from * ${paddedDim}, factor + r, mixed + r * ${paddedDim}, base == low);
      }
      base += ${keyBlock};
    } while (base < high);
    long pairs = 0;
    for (long r = 0; r < rows; r++) pairs += ${name}_end(first + r) - ${name}_first(first + r);
    ${name}_finish(rows, mixed, top, sums, o + ((b * ${queries} + first) * ${heads} + h) * ${dim}, lse + (b * ${heads} + h) * ${queries} + first);
    COUNT(pairs * ${4 * dim + 4 + (spec.bias ? 1 : 0)} + rows * ${2 * dim + 3});
  }
}
`
  return { code, bytes: space.bytes }
}

/** C text of the condition that a tile of keys at j holds pairs that are not visible. */
export function maskedCondition(spec: AttentionSpec, plan: AttentionPlan): string {
  if (!isBounded(spec)) return `left < ${plan.keyRows}`
  const diagonal = `from + ${plan.keyRows - 1} > 0`
  return spec.window > 0 ? `${diagonal} || from + ${spec.window} < ${plan.width}` : diagonal
}

/**
 * Turns scores into exponentials of their distance to the new maximum of each query, adds them up, and gives the factor
 * for what was summed under the old maximum. The first `both` keys are seen by all vectors of queries.
 */
function emitExponentials(name: string, spec: AttentionSpec, plan: AttentionPlan): string {
  const { dtype } = spec
  const { vectors, width, lanes } = plan
  const T = cTypes[dtype]
  const part = (start: number, from: string, to: string): string => {
    const count = vectors - start
    const lane = `(${start} + v) * ${lanes}`
    return `
  _Pragma("GCC unroll 4") for (long j = ${from}; j < ${to}; j++)
    ${each('v', count)} {
      v${dtype}u *at = (v${dtype}u *)(scores + j * ${width} + ${lane});
      const v${dtype} x = attention_exp_${dtype}(*at - shift[${start} + v]);
      sum[${start} + v] += x;
      *at = x;
    }`
  }
  return `
APART ${name}_exponentials(const long both, const long count, const ${T} *most, ${T} *top, ${T} *factor, ${T} *sums, ${T} *scores) {
  v${dtype} shift[${vectors}], sum[${vectors}];
  ${each('v', vectors)} {
    shift[v] = *(const v${dtype}u *)(most + v * ${lanes});
    const v${dtype} scale = attention_exp_${dtype}(*(v${dtype}u *)(top + v * ${lanes}) - shift[v]);
    *(v${dtype}u *)(top + v * ${lanes}) = shift[v];
    *(v${dtype}u *)(factor + v * ${lanes}) = scale;
    sum[v] = *(v${dtype}u *)(sums + v * ${lanes}) * scale;
  }${part(0, '0', 'both')}${vectors > 1 ? part(1, 'both', 'count') : ''}
  ${each('v', vectors)} *(v${dtype}u *)(sums + v * ${lanes}) = sum[v];
  (void)count;
}
`
}
