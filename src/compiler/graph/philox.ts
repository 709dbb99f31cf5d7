/**
 * Philox4x32-10, the counter-based generator of Salmon et al., "Parallel Random Numbers: As Easy as 1, 2, 3" (2011):
 * ten rounds of multiply and xor turn a 128-bit counter and a 64-bit key into four random words, with no state.
 * Layout (the emitted C uses the same): key = (seed, step); counter = (index / 4 low, index / 4 high, stream, salt);
 * element `index` is word index % 4 of that block.
 */

/** Where a random value is used; each field is taken modulo 2^32. */
export interface PhiloxUse {
  readonly seed: number
  readonly step: number
  /** Names the use inside a program, e.g. one dropout. */
  readonly stream: number
  /** Tells repetitions of one use apart, e.g. the layer. */
  readonly salt: number
}

type Words = readonly [number, number, number, number]

/** The raw generator: unsigned 32-bit words in and out. */
export function philox(counter: Words, key: readonly [number, number]): Words {
  let [c0, c1, c2, c3] = counter
  let [k0, k1] = key
  for (let round = 0; round < 10; round++) {
    const high0 = multiplyHigh(0xd2511f53, c0)
    const low0 = Math.imul(0xd2511f53, c0)
    const high1 = multiplyHigh(0xcd9e8d57, c2)
    const low1 = Math.imul(0xcd9e8d57, c2)
    c0 = (high1 ^ c1 ^ k0) >>> 0
    c1 = low1 >>> 0
    c2 = (high0 ^ c3 ^ k1) >>> 0
    c3 = low0 >>> 0
    k0 = (k0 + 0x9e3779b9) >>> 0
    k1 = (k1 + 0xbb67ae85) >>> 0
  }
  return [c0, c1, c2, c3]
}

/** The words of elements 4 * block to 4 * block + 3 (a block number below 2^51): as much work as one of them alone. */
export function philoxBlock({ seed, step, stream, salt }: PhiloxUse, block: number): Words {
  const counter: Words = [block >>> 0, Math.floor(block / 2 ** 32), stream >>> 0, salt >>> 0]
  return philox(counter, [seed >>> 0, step >>> 0])
}

/** Unsigned random word of element `index` (an integer below 2^53). */
export const philoxWord = (use: PhiloxUse, index: number): number =>
  philoxBlock(use, Math.floor(index / 4))[index % 4]!

/** Uniform number in [0, 1) with 24 bits, exact in f32. */
export const philoxUniform = (use: PhiloxUse, index: number): number => wordToUniform(philoxWord(use, index))

/** The number that a word stands for: its upper 24 bits, in [0, 1). */
export const wordToUniform = (word: number): number => (word >>> 8) / 2 ** 24

/** Upper word of the 64-bit product of two unsigned words, by 16-bit halves: every partial sum fits 32 bits. */
function multiplyHigh(a: number, b: number): number {
  // Plain names: taken apart as arrays, they would cost more than the products.
  const a0 = a & 0xffff
  const a1 = a >>> 16
  const b0 = b & 0xffff
  const b1 = b >>> 16
  const middle = (Math.imul(a1, b0) + (Math.imul(a0, b0) >>> 16)) | 0
  const cross = (Math.imul(a0, b1) + (middle & 0xffff)) | 0
  return (Math.imul(a1, b1) + (middle >>> 16) + (cross >>> 16)) >>> 0
}
