/**
 * The gradient of attention's bias: dS again, block by block, added up over whatever shares an element of the bias. A
 * unit of work is what no other one adds to (a batch element, head and block of queries, as far as the bias has them),
 * so that sums have one order for any number of threads.
 */
import { backwardInputs, blockArrays, emitBlockTools, loadArguments, tilePass } from './attention-backward.ts'
import { extraArguments } from './attention-extra.ts'
import type { DriverText } from './attention-forward.ts'
import { layoutOf, type AttentionPlan, type AttentionSpec } from './attention-plan.ts'
import { cTypes } from './prelude.ts'

/** Shape of a bias: [batch, heads, queries, keys], 1 where it is shared. */
export type BiasShape = readonly [number, number, number, number]

/** How many units there are. */
export const biasUnits = ([batch, heads, queries]: BiasShape, plan: AttentionPlan): number =>
  batch * heads * (queries > 1 ? plan.blocks : 1)

/** C text of `NAME_units(tid, first, end, q, k, v, o, lse, dO, bias, [mask], [dLse], dBias, scratch)`. */
export function emitBiasUnits(
  name: string,
  spec: AttentionSpec,
  shape: BiasShape,
  plan: AttentionPlan,
): DriverText {
  const { dtype, batch, queries, keys, heads, kvHeads, dim, k, v } = spec
  const { width, lanes, keyRows, keyBlock, paddedDim, paddedKeys, blocks } = plan
  const [ownBatches, ownHeads, ownQueries, ownKeys] = shape
  const T = cTypes[dtype]
  const inPlace = keys === paddedKeys
  const space = layoutOf(dtype, {
    keys: paddedKeys * paddedDim,
    ...(inPlace ? {} : { valueCopy: paddedKeys * paddedDim }),
    ...blockArrays(plan),
    extra: keyBlock * width,
  })
  const ownBlocks = ownQueries > 1 ? blocks : 1
  const { later, weights } = tilePass(name, spec, plan)
  const range = (variable: string, own: number, all: number, index: string): string =>
    own > 1 || all === 1
      ? `for (long ${variable} = ${index}; ${variable} <= ${index}; ${variable}++)`
      : `for (long ${variable} = 0; ${variable} < ${all}; ${variable}++)`
  const code = `${emitBlockTools(name, spec, plan)}
/* Adds dS of a tile of keys to the bias of its first query and key. */
APART ${name}_add(const ${T} *restrict dS, const long from, const long rows, const long count, ${T} *restrict out) {
  for (long r = from; r < rows; r++)
    for (long c = 0; c < count; c++) out[r * ${ownQueries > 1 ? ownKeys : 0} + c * ${ownKeys > 1 ? 1 : 0}] += dS[c * ${width} + r];
}

static void ${name}_units(const int tid, const long start, const long end, ${backwardInputs(spec)}${T} *dBias, void *scratch) {
  (void)tid; /* only counts */
  ${T} *const space = scratch;
  ${space.pointers}
  long loaded = -1; /* the head whose keys are in scratch */
  for (long unit = start; unit < end; unit++) {
    const long ownBlock = unit % ${ownBlocks}, pair = unit / ${ownBlocks};
    const long ownHead = pair % ${ownHeads}, ownBatch = pair / ${ownHeads};
    ${T} *const whole = dBias + pair * ${ownQueries * ownKeys};
    ${T} *const part = whole + ownBlock * ${ownQueries > 1 ? width * ownKeys : 0};
    memset(part, 0, (size_t)(${ownQueries > 1 ? `smaller(${width}, ${queries} - ownBlock * ${width})` : '1'} * ${ownKeys}) * sizeof *part);
    ${range('b', ownBatches, batch, 'ownBatch')}
    ${range('h', ownHeads, heads, 'ownHead')}
    ${range('block', ownQueries, blocks, 'ownBlock')} {
      const long shared = h / ${heads / kvHeads}, first = block * ${width}, rows = smaller(${width}, ${queries} - first);
      const ${T} *values = v + b * ${v.batch} + shared * ${v.head};
      if (loaded != b * ${kvHeads} + shared) {
        loaded = b * ${kvHeads} + shared;
        ${name}_rows(k + b * ${k.batch} + shared * ${k.head}, ${k.time}, ${keys}, ${paddedKeys}, 1, keys);
${inPlace ? '' : `        ${name}_rows(values, ${v.time}, ${keys}, ${paddedKeys}, 1, valueCopy);\n`}\
      }
${inPlace ? '' : '      values = valueCopy;\n'}\
      const long low = ${name}_first(first) / ${keyRows} * ${keyRows}, high = ${name}_end(first + rows - 1);
      const long later = ${later};
      ${name}_load(b, h, first, rows, ${loadArguments(spec)}, copies, query, dRows, dOut, logs, delta);
      for (long base = low; base < high; base += ${keyBlock}) {
        const long to = smaller(base + ${keyBlock}, (high + ${keyRows - 1}) / ${keyRows} * ${keyRows});
        ${name}_extra(b, h, first, rows, base, to, ${extraArguments(spec)}extra);
        for (long j = base; j < to; j += ${keyRows}) {
            ${weights}
            ${name}_add(dS + (j - base) * ${width}, j < later ? 0 : ${lanes}, rows, smaller(${keyRows}, left), part + j * ${ownKeys > 1 ? 1 : 0});
        }
      }
      long pairs = 0;
      for (long r = 0; r < rows; r++) pairs += ${name}_end(first + r) - ${name}_first(first + r);
      COUNT(pairs * ${4 * dim + 6} + rows * ${3 * dim + (spec.dLse ? 1 : 0)});
    }
  }
}
`
  return { code, bytes: space.bytes }
}
