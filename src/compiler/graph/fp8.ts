/**
 * The two 8-bit floating-point formats of deep learning (Micikevicius et al., FP8 Formats for Deep Learning): e4m3 for
 * what goes forward, e5m2, with more range and fewer digits, for gradients. Nothing is stored in them here: values are
 * rounded to what a format holds and stay floats, so this is their arithmetic without their speed.
 */
export interface Fp8Format {
  /** Largest finite magnitude; anything beyond, infinity too, becomes it. */
  readonly largest: number
  /** Exponent of the smallest normal number; below it numbers are evenly spaced. */
  readonly smallestExponent: number
  /** Digits after the leading one, in bits. */
  readonly mantissaBits: number
}

export const fp8Formats = {
  e4m3: { largest: 448, smallestExponent: -6, mantissaBits: 3 },
  e5m2: { largest: 57_344, smallestExponent: -14, mantissaBits: 2 },
} as const satisfies Record<string, Fp8Format>
export type Fp8Name = keyof typeof fp8Formats

const bits = new DataView(new ArrayBuffer(8))

/** Largest power of two not above |x|; 0 for 0. Infinity and NaN stay what they are. */
export function powerFloorOf(x: number): number {
  const size = Math.abs(x)
  if (!Number.isFinite(size)) return size
  bits.setFloat64(0, size)
  bits.setBigUint64(0, bits.getBigUint64(0) & 0x7ff0_0000_0000_0000n)
  return bits.getFloat64(0)
}

/** Nearest number of the format, ties to even; beyond the largest one it. A NaN stays a NaN. */
export function roundFp8Of(name: Fp8Name, x: number): number {
  const { largest, smallestExponent, mantissaBits } = fp8Formats[name]
  if (Number.isNaN(x)) return x
  const size = Math.min(Math.abs(x), largest)
  const unit = Math.max(powerFloorOf(size), 2 ** smallestExponent) / 2 ** mantissaBits
  const below = Math.floor(size / unit)
  const rest = size / unit - below
  const up = rest > 0.5 || (rest === 0.5 && below % 2 === 1)
  const rounded = (up ? below + 1 : below) * unit
  return x < 0 || Object.is(x, -0) ? -rounded : rounded
}
