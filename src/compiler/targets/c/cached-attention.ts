/**
 * The C kernel of `cachedAttention`: for each token and key/value head, scores against the keys it sees, their
 * exponentials, and the weighted sum of the values, page by page, each a stretch of contiguous memory. It reads the valid
 * part of the cache and nothing else, since the cache is what its time goes into. For pages of a multiple of eight
 * positions the bits are those of one long page.
 *
 * A unit (token, key/value head) belongs to one thread, and units are dealt out in turn: lengths differ from sequence to
 * sequence, and bits do not depend on who computes what.
 */
import { cachedAttentionFlops } from '../../composites/cached-attention.ts'
import type { EmittedKernel } from './gemm.ts'
import { cTypes, floatBytes, lanesOf, roundUp, type Float, type VectorTarget } from './prelude.ts'

export interface CachedAttentionSpec {
  readonly dtype: Float
  readonly rows: number
  readonly heads: number
  readonly kvHeads: number
  /** Pages of the cache. */
  readonly held: number
  /** Pages a sequence has at most. */
  readonly pages: number
  /** Positions of a page. */
  readonly size: number
  readonly dim: number
  readonly scale: number
}

/** C text of `static void NAME(const int tid, q, k, v, pages, position, out, void *scratch)`; all operands dense. */
export function emitCachedAttention(
  name: string,
  spec: CachedAttentionSpec,
  target: VectorTarget,
): EmittedKernel {
  const { dtype, rows, heads, kvHeads, held, pages, size, dim, scale } = spec
  const keys = pages * size
  const T = cTypes[dtype]
  const V = `v${dtype}`
  const lanes = lanesOf(dtype, target)
  const group = heads / kvHeads
  const vectors = Math.floor(dim / lanes)
  const whole = vectors * lanes
  // Sums of values are kept apart for several keys, so that one addition need not wait for the one before.
  const apart = Math.max(1, Math.floor(8 / Math.max(1, vectors)))
  const scratchRow = roundUp(roundUp(keys, lanes) * floatBytes[dtype], 64)
  const each = (count: number, text: (i: number) => string): string =>
    Array.from({ length: count }, (_, i) => text(i)).join(' ')
  const load = (pointer: string, vector: number): string => `*(const ${V}u *)(${pointer} + ${vector * lanes})`
  // Heads are short runs of memory: the loads of the keys and values ahead are started by hand.
  const lines = Math.ceil((dim * floatBytes[dtype]) / 64)
  const distance = Math.max(4, Math.ceil(4096 / (dim * floatBytes[dtype])))
  const perKey = cachedAttentionFlops(1, 0, { heads: 1, dim })
  const perRow = cachedAttentionFlops(0, 1, { heads: 1, dim })
  const score = (key: number): string => `
        ${T} score${key} = ${vectors > 0 ? `hsum_${dtype}(dot${key})` : '0'};
        for (long d = ${whole}; d < ${dim}; d++) score${key} += query[d] * row[${key * dim} + d];
        weight[start + j + ${key}] = score${key};`
  const scores = (count: number): string => `
        const ${T} *row = key + j * ${dim};
        ${each(count * lines, (i) => `__builtin_prefetch((const char *)(row + ${distance * dim}) + ${i * 64});`)}
        ${each(vectors, (i) => each(count, (c) => `${i === 0 ? `${V} dot${c} =` : `dot${c} +=`} q${i} * ${load(`row + ${c * dim}`, i)};`))}
        ${each(count, score)}`
  const page = `(clamp_index(pages[n * ${pages} + p], ${held}) * ${kvHeads} + shared) * ${size * dim}`
  return {
    code: `
/* ${rows} tokens, ${heads} heads (${kvHeads} of keys) of ${dim}, over ${held} pages of ${size} keys, up to ${pages} a token. */
static void ${name}(const int tid, const ${T} *q, const ${T} *k, const ${T} *v, const int32_t *pages, const int32_t *position,
                    ${T} *out, void *scratch) {
  ${T} *const weight = (${T} *)((char *)scratch + (long)tid * ${scratchRow});
  for (long unit = tid; unit < ${rows * kvHeads}; unit += THREADS) {
    const long n = unit / ${kvHeads}, shared = unit % ${kvHeads};
    const long seen = position[n] < 0 || position[n] >= ${keys} ? 0 : position[n] + 1;
    for (long h = shared * ${group}; h < (shared + 1) * ${group}; h++) {
      ${T} *const target = out + (n * ${heads} + h) * ${dim};
      if (seen == 0) {
        for (long d = 0; d < ${dim}; d++) target[d] = 0;
        continue;
      }
      ${T} query[${roundUp(dim, lanes)}] __attribute__((aligned(64)));
      for (long d = 0; d < ${dim}; d++) query[d] = q[(n * ${heads} + h) * ${dim} + d] * (${T})${scale};
      ${each(vectors, (i) => `const ${V} q${i} = ${load('query', i)};`)}
      for (long p = 0, start = 0; start < seen; p++, start += ${size}) {
        const ${T} *const key = k + ${page};
        const long count = seen - start < ${size} ? seen - start : ${size};
        long j = 0;
        for (; j + 4 <= count; j += 4) {${scores(4)}
        }
        for (; j < count; j++) {${scores(1)}
        }
      }
      const long padded = (seen + ${lanes - 1}) / ${lanes} * ${lanes};
      for (long i = seen; i < padded; i++) weight[i] = -INFINITY;
      ${V} most = *(const ${V} *)weight, sum = {0};
      for (long i = ${lanes}; i < padded; i += ${lanes}) most = vmax_${dtype}(most, *(const ${V} *)(weight + i));
      const ${T} top = hmax_${dtype}(most);
      for (long i = 0; i < padded; i += ${lanes}) {
        const ${V} e = vexp_${dtype}(*(const ${V} *)(weight + i) - top);
        *(${V} *)(weight + i) = e;
        sum += e;
      }
      const ${T} share = 1 / hsum_${dtype}(sum);
      ${each(apart, (c) => each(vectors, (i) => `${V} mix${c}_${i} = {0};`))}
      for (long p = 0, start = 0; start < seen; p++, start += ${size}) {
        const ${T} *const value = v + ${page};
        const long count = seen - start < ${size} ? seen - start : ${size};
        long j = 0;
        for (; j + ${apart} <= count; j += ${apart}) {
          const ${T} *row = value + j * ${dim};
          ${each(apart * lines, (i) => `__builtin_prefetch((const char *)(row + ${distance * dim}) + ${i * 64});`)}
          ${each(apart, (c) => each(vectors, (i) => `mix${c}_${i} += weight[start + j + ${c}] * ${load(`row + ${c * dim}`, i)};`))}
        }
        for (; j < count; j++) {
          const ${T} *row = value + j * ${dim};
          (void)row;
          ${each(vectors, (i) => `mix0_${i} += weight[start + j] * ${load('row', i)};`)}
        }
      }
      ${each(vectors, (i) => `*(${V}u *)(target + ${i * lanes}) = (${Array.from({ length: apart }, (_, c) => `mix${c}_${i}`).join(' + ')}) * share;`)}
      for (long d = ${whole}; d < ${dim}; d++) {
        ${T} total = 0;
        for (long j = 0; j < seen; j++) {
          const long p = j / ${size};
          total += weight[j] * v[${page} + j % ${size} * ${dim} + d];
        }
        target[d] = total * share;
      }
      COUNT(seen * ${perKey} + ${perRow});
    }
  }
}
`,
    support: [],
    scratchBytes: target.threads * scratchRow,
  }
}
