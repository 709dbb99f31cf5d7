/**
 * Stored floating-point numbers to float32. The subtle thing is F16's subnormals, which have no implicit leading one:
 * shifting them into float32's exponent needs a multiplication, not just moved bits.
 */
import { failure } from '../../errors.ts'
import { DTYPE_BYTES } from './format.ts'
import type { Dtype } from './format.ts'

/**
 * Converts F32, F64, F16 or BF16; F64 rounds to nearest, the others are exact.
 *
 * @param read the tensor's bytes in an array of its own, called only when the dtype is convertible.
 * @param where named in the error for other dtypes.
 */
export function toF32(
  dtype: Dtype,
  read: () => Uint8Array<ArrayBuffer>,
  where: string,
): Float32Array<ArrayBuffer> {
  switch (dtype) {
    case 'F32':
      return new Float32Array(read().buffer)
    case 'F64':
      return Float32Array.from(new Float64Array(read().buffer))
    case 'BF16':
      return fromHalves(read(), (half) => half << 16)
    case 'F16':
      return fromHalves(read(), f16Bits)
    default:
      throw failure({
        where,
        got: `${dtype} (${DTYPE_BYTES[dtype]} bytes an element)`,
        expected: 'F32, F64, F16 or BF16',
        fix: 'use a floating-point checkpoint, not a quantised one',
      })
  }
}

function fromHalves(
  bytes: Uint8Array<ArrayBuffer>,
  toBits: (half: number) => number,
): Float32Array<ArrayBuffer> {
  const halves = new Uint16Array(bytes.buffer)
  const bits = new Uint32Array(halves.length)
  for (let i = 0; i < halves.length; i++) bits[i] = toBits(halves[i]!)
  return new Float32Array(bits.buffer)
}

const scratch = new Float32Array(1)
const scratchBits = new Uint32Array(scratch.buffer)

/** float32 bits of a half: sign 1, exponent 5 (bias 15), fraction 10. */
function f16Bits(half: number): number {
  const sign = (half & 0x8000) << 16
  const exponent = (half >> 10) & 0x1f
  const fraction = half & 0x3ff
  if (exponent === 0) {
    scratch[0] = fraction * 2 ** -24
    return sign | scratchBits[0]!
  }
  // 31 is infinity or NaN; for the rest the bias grows from 15 to 127.
  const biased = exponent === 31 ? 255 : exponent + 112
  return sign | (biased << 23) | (fraction << 13)
}
