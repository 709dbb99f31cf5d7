/**
 * Attention in C, forward and backward (Dao, FlashAttention-2, reduced to what a CPU needs): one query row at a time
 * against keys kept transposed in a thread's scratch, so memory is linear in the number of keys and masked keys are
 * never visited. A thread owns whole (batch, key head) pairs: every sum has one fixed order.
 */
import { cTypes, floatBytes, roundUp, type Float, type Support, type VectorTarget } from './prelude.ts'

/** Element strides of a [batch, time, head, dim] operand whose last axis is contiguous. */
export interface Strides {
  readonly batch: number
  readonly time: number
  readonly head: number
}

export interface AttentionSpec {
  readonly dtype: Float
  readonly batch: number
  readonly queries: number
  readonly keys: number
  readonly heads: number
  readonly kvHeads: number
  readonly dim: number
  readonly causal: boolean
  /** Keys a query sees up to its own position; 0: all. */
  readonly window: number
  readonly scale: number
  readonly q: Strides
  readonly k: Strides
  readonly v: Strides
}

export interface EmittedAttention {
  readonly code: string
  readonly support: readonly Support[]
  readonly scratchBytes: number
}

const literal = (value: number, dtype: Float): string => {
  const text = String(dtype === 'f32' ? Math.fround(value) : value)
  return `${/[.e]/.test(text) ? text : `${text}.0`}${dtype === 'f32' ? 'f' : ''}`
}

/** Constants and the range of keys a query row sees. */
function opening(spec: AttentionSpec): string[] {
  const { batch, queries, keys, heads, kvHeads, dim, causal, window } = spec
  return [
    `  enum { B = ${batch}, T = ${queries}, S = ${keys}, H = ${heads}, K = ${kvHeads}, G = ${heads / kvHeads}, D = ${dim} };`,
    `  const ${cTypes[spec.dtype]} scale = ${literal(spec.scale, spec.dtype)};`,
    `#define KEYS_OF(i) const int64_t position = (i) + S - T, to = ${causal ? 'position + 1' : 'S'}, from = ${window > 0 ? `position - ${window - 1} > 0 ? position - ${window - 1} : 0` : '0'}; (void)position;`,
  ]
}

const at = (pointer: string, strides: Strides, time: string, head: string): string =>
  `${pointer} + b * ${strides.batch} + ${time} * ${strides.time} + ${head} * ${strides.head}`

/** \`NAME(tid, q, k, v, o [B,T,H,D], lse [B,H,T], scratch)\`. */
export function emitAttention(name: string, spec: AttentionSpec, target: VectorTarget): EmittedAttention {
  const type = cTypes[spec.dtype]
  const f = spec.dtype
  const perThread = roundUp((spec.dim + 1) * spec.keys, 16)
  const code = `
static void ${name}(const int tid, const ${type} *q, const ${type} *k, const ${type} *v, ${type} *o, ${type} *lse, void *scratch) {
${opening(spec).join('\n')}
  ${type} *const turned = (${type} *)scratch + (int64_t)tid * ${perThread}, *const s = turned + D * S;
  RANGE(B * K, 1)
  for (int64_t pair = begin; pair < end; pair++) {
    const int64_t b = pair / K, kv = pair % K;
    for (int64_t j = 0; j < S; j++)
      for (int d = 0; d < D; d++) turned[d * S + j] = (${at('k', spec.k, 'j', 'kv')})[d];
    for (int64_t h = kv * G; h < (kv + 1) * G; h++)
      for (int64_t i = 0; i < T; i++) {
        const ${type} *const row = ${at('q', spec.q, 'i', 'h')};
        ${type} *const out = o + ((b * T + i) * H + h) * D;
        KEYS_OF(i)
        SIMD_LOOP()
        for (int64_t j = from; j < to; j++) s[j] = 0;
        for (int d = 0; d < D; d++) {
          SIMD_LOOP()
          for (int64_t j = from; j < to; j++) s[j] += row[d] * turned[d * S + j];
        }
        ${type} top = -INFINITY, total = 0;
        SIMD_LOOP(reduction(max : top))
        for (int64_t j = from; j < to; j++) {
          s[j] *= scale;
          top = top < s[j] ? s[j] : top;
        }
        SIMD_LOOP(reduction(+ : total))
        for (int64_t j = from; j < to; j++) {
          s[j] = exp_${f}(s[j] - top);
          total += s[j];
        }
        ${type} sum[D];
        for (int d = 0; d < D; d++) sum[d] = 0;
        for (int64_t j = from; j < to; j++) {
          const ${type} *const value = ${at('v', spec.v, 'j', 'kv')};
          const ${type} weight = s[j];
          SIMD_LOOP()
          for (int d = 0; d < D; d++) sum[d] += weight * value[d];
        }
        const ${type} inverse = 1 / total;
        for (int d = 0; d < D; d++) out[d] = sum[d] * inverse;
        lse[(b * H + h) * T + i] = log_${f}(total) + top;
        COUNT((to - from) * (4 * D + 5) + D + 3);
      }
  }
#undef KEYS_OF
}
`
  return { code, support: [], scratchBytes: target.threads * perThread * floatBytes[f] }
}

/** \`NAME(tid, q, k, v, o, lse, dO, dq, dk, dv, scratch)\`; all gradients dense. */
export function emitAttentionBackward(name: string, spec: AttentionSpec, target: VectorTarget): EmittedAttention {
  const type = cTypes[spec.dtype]
  const f = spec.dtype
  const perThread = roundUp((2 * spec.dim + 2) * spec.keys, 16)
  const code = `
static void ${name}(const int tid, const ${type} *q, const ${type} *k, const ${type} *v, const ${type} *o, const ${type} *lse, const ${type} *g, ${type} *dq, ${type} *dk, ${type} *dv, void *scratch) {
${opening(spec).join('\n')}
  ${type} *const keys = (${type} *)scratch + (int64_t)tid * ${perThread}, *const values = keys + D * S;
  ${type} *const p = values + D * S, *const ds = p + S;
  RANGE(B * K, 1)
  for (int64_t pair = begin; pair < end; pair++) {
    const int64_t b = pair / K, kv = pair % K;
    for (int64_t j = 0; j < S; j++)
      for (int d = 0; d < D; d++) {
        keys[d * S + j] = (${at('k', spec.k, 'j', 'kv')})[d];
        values[d * S + j] = (${at('v', spec.v, 'j', 'kv')})[d];
        dk[((b * S + j) * K + kv) * D + d] = 0;
        dv[((b * S + j) * K + kv) * D + d] = 0;
      }
    for (int64_t h = kv * G; h < (kv + 1) * G; h++)
      for (int64_t i = 0; i < T; i++) {
        const ${type} *const row = ${at('q', spec.q, 'i', 'h')};
        const int64_t at = ((b * T + i) * H + h) * D;
        const ${type} norm = lse[(b * H + h) * T + i];
        KEYS_OF(i)
        ${type} delta = 0;
        for (int d = 0; d < D; d++) delta += g[at + d] * o[at + d];
        SIMD_LOOP()
        for (int64_t j = from; j < to; j++) p[j] = ds[j] = 0;
        for (int d = 0; d < D; d++) {
          SIMD_LOOP()
          for (int64_t j = from; j < to; j++) {
            p[j] += row[d] * keys[d * S + j];
            ds[j] += g[at + d] * values[d * S + j];
          }
        }
        SIMD_LOOP()
        for (int64_t j = from; j < to; j++) {
          p[j] = exp_${f}(p[j] * scale - norm);
          ds[j] = (ds[j] - delta) * p[j] * scale;
        }
        ${type} sum[D];
        for (int d = 0; d < D; d++) sum[d] = 0;
        for (int64_t j = from; j < to; j++) {
          const ${type} *const key = ${at('k', spec.k, 'j', 'kv')};
          ${type} *const dkey = dk + ((b * S + j) * K + kv) * D, *const dvalue = dv + ((b * S + j) * K + kv) * D;
          const ${type} weight = p[j], slope = ds[j];
          SIMD_LOOP()
          for (int d = 0; d < D; d++) {
            sum[d] += slope * key[d];
            dkey[d] += slope * row[d];
            dvalue[d] += weight * g[at + d];
          }
        }
        for (int d = 0; d < D; d++) dq[at + d] = sum[d];
        COUNT((to - from) * (10 * D + 6) + 2 * D);
      }
  }
#undef KEYS_OF
}
`
  return { code, support: [], scratchBytes: target.threads * perThread * floatBytes[f] }
}
