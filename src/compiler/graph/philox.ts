/**
 * Philox4x32-10 (Salmon, Moraes, Dror & Shaw, Parallel Random Numbers: As Easy as 1, 2, 3). A counter goes in, four
 * random words come out; nothing is carried from one call to the next. The C prelude has the same function.
 *
 * Layout: key = [seed, step]; counter = [index / 4 low, index / 4 high, stream, salt]; element `index` is word index % 4.
 */

export interface PhiloxAddress {
  readonly seed: number
  readonly step: number
  readonly stream: number
  readonly salt: number
}

/** High and low words of a 32 x 32 bit product. */
function multiply(a: number, b: number): [number, number] {
  const [aHigh, aLow, bHigh, bLow] = [a >>> 16, a & 0xffff, b >>> 16, b & 0xffff]
  const low = aLow * bLow
  const middle = aHigh * bLow + (low >>> 16)
  const cross = aLow * bHigh + (middle % 0x10000)
  return [(aHigh * bHigh + Math.floor(middle / 0x10000) + Math.floor(cross / 0x10000)) >>> 0, Math.imul(a, b) >>> 0]
}

/** The raw ten-round function on four counter words and two key words. */
export function philox4x32(counter: readonly number[], key: readonly number[]): [number, number, number, number] {
  let [c0, c1, c2, c3] = counter as [number, number, number, number]
  let [k0, k1] = key as [number, number]
  for (let round = 0; round < 10; round++) {
    const [high0, low0] = multiply(0xd2511f53, c0)
    const [high1, low1] = multiply(0xcd9e8d57, c2)
    ;[c0, c1, c2, c3] = [(high1 ^ c1 ^ k0) >>> 0, low1, (high0 ^ c3 ^ k1) >>> 0, low0]
    k0 = (k0 + 0x9e3779b9) >>> 0
    k1 = (k1 + 0xbb67ae85) >>> 0
  }
  return [c0, c1, c2, c3]
}

/** The random word of one element. */
export function philoxWord({ seed, step, stream, salt }: PhiloxAddress, index: number): number {
  const block = Math.floor(index / 4)
  const counter = [block >>> 0, Math.floor(block / 2 ** 32) >>> 0, stream >>> 0, salt >>> 0]
  return philox4x32(counter, [seed >>> 0, step >>> 0])[index % 4]!
}

/** Uniform in [0, 1) with 24 random bits: exact in f32. */
export const philoxUniform = (address: PhiloxAddress, index: number): number => (philoxWord(address, index) >>> 8) / 2 ** 24
