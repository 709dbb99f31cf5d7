/**
 * The register tile for bf16 operands, and how its operands are packed. Both are copied to *pairs*: one 32-bit lane
 * holds two neighbours along the contracted axis, so that an instruction of the dot kind multiplies and adds both.
 * Two kinds of such instructions exist, and a processor is fast at one of them (see `bf16Products` in machine.ts):
 *
 * - `bf16`: pairs of bf16, products and sums in f32.
 * - `i16`: pairs of 16-bit integers. A stretch of `stretch` elements of a row shares one power of two, of which each
 *   element is a multiple with 12 bits and a sign; bf16 has 8 bits, so elements down to 1/16 of the largest lose
 *   nothing. Sums of a stretch are exact integers below 2^31; stretches are added in f32, in order.
 */
import type { Support } from './prelude.ts'

export type PairKind = 'bf16' | 'i16'

/** Elements of the contracted axis that are packed together: 2^7 products of 12 bits by 12 fit in 31 bits. */
export const stretch = 128

/** Rows of a tile; operands are packed by groups of two tiles. */
export const tileRows = 8
export const groupRows = 16

/** Vectors of 16 columns in the widest tile: 8 x 3 accumulators leave room for a row of b and a broadcast. */
export const maxTileVectors = 3

export const pairTileName = (kind: PairKind, vectors: number): string => `tile_${kind}_${vectors}`

const parameters = `const long pairs, const uint32_t *a, const float *scaleA, const uint32_t *b, const float *scaleB,
                       const float *before, float *out, const long outRow`

/**
 * The function type of all tiles: `out[8, columns] = before + a b`, with `pairs` of the contracted axis. `before` is dense
 * (none: zero), rows of `out` lie `outRow` apart.
 */
export const pairTileType: Support = {
  name: 'pair_tile',
  code: `
typedef void pair_tile(${parameters});
`,
}

const accumulators: Readonly<Record<PairKind, { vector: string; multiplyAdd: string; result: string }>> = {
  bf16: { vector: 'vf32', multiplyAdd: 'dot_pairs_bf16', result: 'sum[i][j]' },
  // Scales are applied one after the other: their product could overflow where the result does not.
  i16: {
    vector: 'vi32',
    multiplyAdd: 'dot_pairs_i16',
    result:
      '(__builtin_convertvector(sum[i][j], vf32) * scaleA[i]) * *(const vf32u *)(scaleB + j * LANES_f32)',
  },
}

/** C text of the tile: `a` holds 16 rows a pair of which 8 are used, `b` as many columns as the tile. */
export function emitPairTile(kind: PairKind, vectors: number): Support {
  const { vector, multiplyAdd, result } = accumulators[kind]
  const eachRow = `_Pragma("GCC unroll ${tileRows}") for (int i = 0; i < ${tileRows}; i++)`
  const eachVector = `_Pragma("GCC unroll ${vectors}") for (int j = 0; j < ${vectors}; j++)`
  return {
    name: pairTileName(kind, vectors),
    code: `
static __attribute__((noinline)) void ${pairTileName(kind, vectors)}(${parameters}) {
  (void)scaleA, (void)scaleB;
  /* The lines that the end writes come in while the products are made. */
  ${eachRow} ${eachVector} __builtin_prefetch(out + i * outRow + j * LANES_f32, 1);
  ${vector} sum[${tileRows}][${vectors}];
  ${eachRow} ${eachVector} sum[i][j] = (${vector}){0};
  for (long p = 0; p < pairs; p++, a += ${groupRows}, b += ${vectors} * LANES_f32) {
    vu32 line[${vectors}];
    ${eachVector} line[j] = *(const vu32u *)(b + j * LANES_f32);
    /* The next stretch of the panel comes in behind this one. */
    ${eachVector} __builtin_prefetch(b + (${stretch / 2} * ${vectors} + j) * LANES_f32);
    ${eachRow} {
      const vu32 left = (vu32){0} + a[i];
      ${eachVector} sum[i][j] = ${multiplyAdd}(sum[i][j], left, line[j]);
    }
  }
  ${eachRow} {
    ${eachVector} {
      vf32 value = ${result};
      if (before) value += *(const vf32u *)(before + j * LANES_f32);
      *(vf32u *)(out + j * LANES_f32) = value;
    }
    if (before) before += ${vectors} * LANES_f32;
    out += outRow;
  }
}
`,
  }
}

/** The dot instructions, and the same arithmetic in plain C. That of bf16 may round otherwise: its order is the chip's. */
export const dotPairs: Support = {
  name: 'dot_pairs',
  code: `
typedef uint32_t vu32 __attribute__((vector_size(VECTOR_BYTES)));
typedef uint32_t vu32u __attribute__((vector_size(VECTOR_BYTES), aligned(4), may_alias)); /* at any address */
typedef int32_t vi32 __attribute__((vector_size(VECTOR_BYTES)));
#ifdef __AVX512F__
#include <immintrin.h>
#endif
INLINE vf32 dot_pairs_bf16(const vf32 sum, const vu32 a, const vu32 b) {
#if defined(__AVX512BF16__) && VECTOR_BYTES == 64 && !defined(ANNEAL_PORTABLE)
  return (vf32)_mm512_dpbf16_ps((__m512)sum, (__m512bh)a, (__m512bh)b);
#else
  return sum + (vf32)(a << 16) * (vf32)(b << 16) + (vf32)(a & 0xffff0000u) * (vf32)(b & 0xffff0000u);
#endif
}
INLINE vi32 dot_pairs_i16(const vi32 sum, const vu32 a, const vu32 b) {
#if defined(__AVX512VNNI__) && VECTOR_BYTES == 64 && !defined(ANNEAL_PORTABLE)
  return (vi32)_mm512_dpwssd_epi32((__m512i)sum, (__m512i)a, (__m512i)b);
#else
  const vu32 low = (vu32)((vi32)(a << 16) >> 16) * (vu32)((vi32)(b << 16) >> 16);
  return (vi32)((vu32)sum + low + (vu32)((vi32)a >> 16) * (vu32)((vi32)b >> 16));
#endif
}
`,
}

/**
 * C text of `pack_KIND(in, freeStride, depthStride, count, depth, out, outRow, scale)`: 16 rows (or columns) of an operand,
 * one stretch of the contracted axis, to pairs[pair][16]; missing elements become zeros. The stretch is read along
 * whichever axis is contiguous; anything else is first gathered into a small square.
 */
export function emitPack(kind: PairKind): Support {
  const half = stretch / 2
  const quantised = kind === 'i16'
  // Pairs of bf16 are read as they lie, four bytes at a time.
  const odd = quantised ? '' : ' || (depthStride == 1 && ((freeStride & 1) || ((uintptr_t)in & 3)))'
  const gathered = `(freeStride != 1 && depthStride != 1)${odd}`
  // A sum with 1.5 * 2^23 has the rounded integer in its low bits.
  const pairOf = (low: string, high: string): string =>
    quantised
      ? `(bits_of(bf16_to_f32(${low}) * shift + ROUNDING_MAGIC) & 0xffffu) | bits_of(bf16_to_f32(${high}) * shift + ROUNDING_MAGIC) << 16`
      : `(uint32_t)${low} | (uint32_t)${high} << 16`
  return {
    name: `pack_${kind}`,
    code: `
${
  quantised
    ? `/* For the largest magnitude of a stretch (bits without sign): the power of two that its integers count, and by what
 * to multiply to get them, |integer| < 2^12. Infinities and NaN make the whole stretch NaN; below 2^-115 it is zero. */
INLINE float i16_scale(const uint32_t largest) {
  const uint32_t exponent = largest >> 7;
  return exponent == 255u ? NAN : exponent < 12u ? 0.0f : float_of((exponent - 11u) << 23);
}
INLINE float i16_shift(const uint32_t largest) {
  const uint32_t exponent = largest >> 7;
  return exponent == 255u || exponent < 12u ? 0.0f : float_of((265u - exponent) << 23);
}
`
    : ''
}
static void pack_${kind}(const bf16 *in, long freeStride, long depthStride, const long count, const long depth, uint32_t *out,
                     const long outRow, float *scale) {
  bf16 square[${groupRows} * ${stretch}] __attribute__((aligned(64)));
  (void)scale;
  if (count < ${groupRows} || depth < ${stretch} || ${gathered}) {
    memset(square, 0, sizeof square);
    for (long r = 0; r < count; r++)
      for (long q = 0; q < depth; q++) square[r * ${stretch} + q] = in[r * freeStride + q * depthStride];
    in = square, freeStride = ${stretch}, depthStride = 1;
  }
  if (freeStride == 1 && depthStride != 1) { /* row after row of 16 */
${
  quantised
    ? `    uint16_t largest[${groupRows}] = {0};
    for (long q = 0; q < ${stretch}; q++)
      for (int r = 0; r < ${groupRows}; r++) {
        const uint16_t size = in[q * depthStride + r] & 0x7fffu;
        largest[r] = largest[r] < size ? size : largest[r];
      }
    float shifts[${groupRows}];
    for (int r = 0; r < ${groupRows}; r++) scale[r] = i16_scale(largest[r]), shifts[r] = i16_shift(largest[r]);`
    : ''
}
    for (long p = 0; p < ${half}; p++) {
      const bf16 *const even = in + 2 * p * depthStride, *const odd = even + depthStride;
      for (int r = 0; r < ${groupRows}; r++) {${quantised ? '\n        const float shift = shifts[r];' : ''}
        out[p * outRow + r] = ${pairOf('even[r]', 'odd[r]')};
      }
    }
    return;
  }
${
  quantised
    ? `  uint32_t lines[${groupRows} * ${half}] __attribute__((aligned(64)));
  for (int r = 0; r < ${groupRows}; r++) {
    const bf16 *const row = in + r * freeStride;
    for (int q = 0; q < ${stretch}; q += 32) __builtin_prefetch(row + 4 * freeStride + q);
    uint16_t largest = 0;
    for (int q = 0; q < ${stretch}; q++) {
      const uint16_t size = row[q] & 0x7fffu;
      largest = largest < size ? size : largest;
    }
    scale[r] = i16_scale(largest);
    const float shift = i16_shift(largest);
    for (int p = 0; p < ${half}; p++) {
      uint32_t pair;
      memcpy(&pair, row + 2 * p, 4);
      lines[r * ${half} + p] = (bits_of(float_of(pair << 16) * shift + ROUNDING_MAGIC) & 0xffffu) |
                        bits_of(float_of(pair & 0xffff0000u) * shift + ROUNDING_MAGIC) << 16;
    }
  }
  for (int p = 0; p < ${half}; p += 16) transpose_f32((const float *)lines + p, ${half}, (float *)out + p * outRow, outRow);`
    : `  for (int p = 0; p < ${half}; p += 16)
    transpose_f32((const float *)(const void *)in + p, freeStride / 2, (float *)out + p * outRow, outRow);`
}
}
`,
  }
}
