/** Rounding of a float64 to what an element type can hold, as the `cast` op and the reference target mean it. */
import type { DType } from './types.ts'

const bits = new DataView(new ArrayBuffer(4))

/** Nearest bfloat16, ties to even, NaN kept. */
export function roundBf16(x: number): number {
  bits.setFloat32(0, x)
  const word = bits.getUint32(0)
  if (Number.isNaN(x)) return Number.NaN
  bits.setUint32(0, ((word + 0x7fff + ((word >>> 16) & 1)) & 0xffff0000) >>> 0)
  return bits.getFloat32(0)
}

const half = new Float16Array(1)

/** Nearest IEEE half-precision number of what f32 makes of x, ties to even; from 65,520 on infinity. */
export function roundF16(x: number): number {
  half[0] = Math.fround(x)
  return half[0]
}

export function roundTo(dtype: DType, x: number): number {
  switch (dtype) {
    case 'f64':
      return x
    case 'f32':
      return Math.fround(x)
    case 'bf16':
      return roundBf16(x)
    case 'f16':
      return roundF16(x)
    case 'i32':
      return Math.trunc(x) | 0
    case 'u8':
      return Math.trunc(x) & 255
    case 'bool':
      return x !== 0 ? 1 : 0
  }
}
