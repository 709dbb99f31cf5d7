/**
 * Attention backward. A unit of work is a head of keys and values (batch outermost) with all query heads that share it:
 * it owns their dK and dV, which grow in scratch while the blocks of queries pass; dQ of a block grows over its keys.
 * Probabilities come from the saved log-sum-exp. Notation: P are probabilities, S scores, dX the gradient of X.
 */
import { emitExtra, extraArguments, extraParameters } from './attention-extra.ts'
import { maskedCondition, type DriverText } from './attention-forward.ts'
import { isBounded, layoutOf, valueStride, type AttentionPlan, type AttentionSpec } from './attention-plan.ts'
import { emitMix, emitRanges, emitWeights } from './attention-tiles.ts'
import { cTypes } from './prelude.ts'

/** C text of `NAME_units(tid, first, end, q, k, v, o, lse, dO, [bias], [mask], [dLse], dq, dk, dv, scratch)`. */
export function emitBackwardUnits(name: string, spec: AttentionSpec, plan: AttentionPlan): DriverText {
  const { dtype, queries, keys, heads, kvHeads, dim, scale, k, v } = spec
  const { width, keyRows, queryRows, keyBlock, paddedDim, paddedKeys } = plan
  const T = cTypes[dtype]
  const extra = spec.bias || spec.mask
  const inPlace = keys === paddedKeys
  const space = layoutOf(dtype, {
    keys: paddedKeys * paddedDim,
    ...(inPlace ? {} : { valueCopy: paddedKeys * paddedDim }),
    dKeys: paddedKeys * paddedDim,
    dValues: paddedKeys * paddedDim,
    ...blockArrays(plan),
    mixed: width * paddedDim,
    ...(extra ? { extra: keyBlock * width } : {}),
  })
  const { later, weights } = tilePass(name, spec, plan)
  const group = heads / kvHeads
  const code = `${emitBlockTools(name, spec, plan)}${emitMix(`${name}_gather`, spec, plan, {
    rows: queryRows,
    weightRow: 1,
    weightStep: width,
    factor: false,
  })}${emitMix(`${name}_scatter`, spec, plan, { rows: keyRows, weightRow: width, weightStep: 1, factor: false })}
/* Keys that no query sees have no gradient. */
APART ${name}_clear(const long from, const long to, ${T} *dKeys, ${T} *dValues) {
  for (long i = from * ${paddedDim}; i < to * ${paddedDim}; i++) dKeys[i] = dValues[i] = 0;
}

static void ${name}_units(const int tid, const long start, const long end, ${backwardInputs(spec)}${T} *dq, ${T} *dk, ${T} *dv, void *scratch) {
  (void)tid; /* only counts */
  ${T} *const space = scratch;
  ${space.pointers}
  for (long unit = start; unit < end; unit++) {
    const long b = unit / ${kvHeads}, shared = unit % ${kvHeads};
    ${name}_rows(k + b * ${k.batch} + shared * ${k.head}, ${k.time}, ${keys}, ${paddedKeys}, 1, keys);
    const ${T} *values = v + b * ${v.batch} + shared * ${v.head};
${inPlace ? '' : `    ${name}_rows(values, ${v.time}, ${keys}, ${paddedKeys}, 1, valueCopy);\n    values = valueCopy;\n`}\
    long known = 0; /* keys whose dK and dV hold sums already */
    for (long h = shared * ${group}; h < (shared + 1) * ${group}; h++)
      for (long first = 0; first < ${queries}; first += ${width}) {
        const long rows = smaller(${width}, ${queries} - first);
        const long low = ${name}_first(first) / ${keyRows} * ${keyRows}, high = ${name}_end(first + rows - 1);
        const long later = ${later};
        ${name}_load(b, h, first, rows, ${loadArguments(spec)}, copies, query, dRows, dOut, logs, delta);
        ${name}_clear(known, low, dKeys, dValues);
        long base = low;
        do { /* once even when there are no keys: that writes zeros */
          const long to = larger(base, smaller(base + ${keyBlock}, (high + ${keyRows - 1}) / ${keyRows} * ${keyRows}));
${extra ? `          ${name}_extra(b, h, first, rows, base, to, ${extraArguments(spec)}extra);\n` : ''}\
          for (long j = base; j < to; j += ${keyRows}) {
            ${weights}
            const long seen = ${isBounded(spec) ? 'larger(0, from)' : '0'}; /* the first query that sees one of the keys */
            const long until = ${spec.window > 0 ? `smaller(rows, from + ${keyRows - 1 + spec.window})` : 'rows'};
            const long at = (j - base) * ${width} + seen;
            ${name}_scatter(until - seen, P + seen, dRows + seen * ${paddedDim}, dValues + j * ${paddedDim}, j >= known);
            ${name}_scatter(until - seen, dS + at, copies + seen * ${paddedDim}, dKeys + j * ${paddedDim}, j >= known);
          }
          for (long r = 0; r < rows; r += ${queryRows}) {
            const long from = larger(base, ${name}_first(first + r));
            const long until = smaller(to, ${name}_end(first + smaller(r + ${queryRows}, rows) - 1));
            if (from < until || base == low)
              ${name}_gather(until - from, dS + (from - base) * ${width} + r, keys + from * ${paddedDim}, mixed + r * ${paddedDim}, base == low);
          }
          base += ${keyBlock};
        } while (base < high);
        known = larger(larger(known, low), (high + ${keyRows - 1}) / ${keyRows} * ${keyRows});
        ${name}_store(mixed, rows, (${T})${scale}, dq + ((b * ${queries} + first) * ${heads} + h) * ${dim}, ${heads * dim});
        long pairs = 0;
        for (long r = 0; r < rows; r++) pairs += ${name}_end(first + r) - ${name}_first(first + r);
        COUNT(pairs * ${10 * dim + 4 + (spec.bias ? 1 : 0)} + rows * ${4 * dim + (spec.dLse ? 1 : 0)});
      }
    ${name}_clear(known, ${paddedKeys}, dKeys, dValues);
    const long to = (b * ${keys * kvHeads} + shared) * ${dim};
    ${name}_store(dKeys, ${keys}, 1, dk + to, ${kvHeads * dim});
    ${name}_store(dValues, ${keys}, 1, dv + to, ${kvHeads * dim});
  }
}
`
  return { code, bytes: space.bytes }
}

/** Scratch of one block of queries. */
export const blockArrays = ({
  width,
  paddedDim,
  keyRows,
  keyBlock,
}: AttentionPlan): Record<string, number> => ({
  copies: width * paddedDim,
  query: width * paddedDim,
  dRows: width * paddedDim,
  dOut: width * paddedDim,
  logs: width,
  delta: width,
  P: keyRows * width,
  dS: keyBlock * width,
})

/** What any backward kernel reads. */
export const backwardInputs = (spec: AttentionSpec): string => {
  const input = (x: string): string => `const ${cTypes[spec.dtype]} *${x}, `
  return `${['q', 'k', 'v', 'o', 'lse', 'dO'].map(input).join('')}${extraParameters(spec)}${spec.dLse ? input('dLse') : ''}`
}

export const loadArguments = (spec: AttentionSpec): string => `q, o, lse, dO${spec.dLse ? ', dLse' : ''}`

/** C text: from which key on only the second vector of queries sees keys, and P and dS of the tile of keys at j. */
export function tilePass(
  name: string,
  spec: AttentionSpec,
  plan: AttentionPlan,
): { later: string; weights: string } {
  const { vectors, lanes, keyRows, paddedDim, paddedKeys, width } = plan
  const extraTile = spec.bias || spec.mask ? `extra + (j - base) * ${width}, ` : ''
  const args =
    `keys + j * ${paddedDim}, query, values + j * ${valueStride(spec, plan)}, dOut, ${extraTile}logs, delta, ` +
    `P, dS + (j - base) * ${width}, masked, from, left`
  return {
    later:
      vectors > 1 && isBounded(spec)
        ? `(${name}_end(first + ${lanes - 1}) + ${keyRows - 1}) / ${keyRows} * ${keyRows}`
        : `${paddedKeys}`,
    weights: `const long from = j - first - ${spec.keys - spec.queries}, left = ${spec.keys} - j;
            const int masked = ${maskedCondition(spec, plan)};
            if (j < later) ${name}_weights(${args});${vectors > 1 ? `\n            else ${name}_later(${args});` : ''}`,
  }
}

/** C text of everything up to P and dS of a block of queries. */
export function emitBlockTools(name: string, spec: AttentionSpec, plan: AttentionPlan): string {
  const { dtype, queries, heads, dim, scale, q } = spec
  const { width, lanes, paddedDim, vectors } = plan
  const T = cTypes[dtype]
  const time = heads * dim
  const inputs = ['q', 'o', 'lse', 'dO', ...(spec.dLse ? ['dLse'] : [])]
    .map((x) => `const ${T} *${x}`)
    .join(', ')
  const outputs = ['copies', 'query', 'dRows', 'dOut', 'logs', 'delta'].map((x) => `${T} *${x}`).join(', ')
  const tiles = [emitWeights(`${name}_weights`, { spec, plan, start: 0 })]
  if (vectors > 1) tiles.push(emitWeights(`${name}_later`, { spec, plan, start: 1 }))
  return `${emitRanges(name, spec, plan)}${emitExtra(name, spec, plan)}${tiles.join('')}
/* A block of queries and of dO, as rows and columns, with its log-sum-exp and delta = dO . o${spec.dLse ? ' - dLse' : ''}. */
APART ${name}_load(const long b, const long h, const long first, const long rows, ${inputs}, ${outputs}) {
  const long at = (b * ${queries} + first) * ${time} + h * ${dim}, line = (b * ${heads} + h) * ${queries} + first;
  ${name}_rows(q + b * ${q.batch} + first * ${q.time} + h * ${q.head}, ${q.time}, rows, ${width}, (${T})${scale}, copies);
  ${name}_columns(copies, ${paddedDim}, 1, query);
  ${name}_rows(dO + at, ${time}, rows, ${width}, 1, dRows);
  ${name}_columns(dRows, ${paddedDim}, 1, dOut);
  for (long r = 0; r < ${width}; r++) {
    /* A query that sees no key, or is none, has no weights. */
    const ${T} log = r < rows ? lse[line + r] : INFINITY;
    logs[r] = log == -INFINITY ? INFINITY : log;
    ${T} sum = 0;
    if (r < rows) {
      v${dtype} product = {0};
      long d = 0;
      for (; d + ${lanes} <= ${dim}; d += ${lanes})
        product += *(const v${dtype}u *)(dRows + r * ${paddedDim} + d) * *(const v${dtype}u *)(o + at + r * ${time} + d);
      sum = hsum_${dtype}(product);
      for (; d < ${dim}; d++) sum += dRows[r * ${paddedDim} + d] * o[at + r * ${time} + d];
    }
    delta[r] = sum${spec.dLse ? ' - (r < rows ? dLse[line + r] : 0)' : ''};
  }
}
`
}
