/** Curves as bytes, and back: how many there are, how long each is, then its places and its values; all 64-bit floats. */
import type { Curve } from './thinning.ts'

export function encodeCurves(curves: readonly Curve[]): Uint8Array<ArrayBuffer> {
  const lengths = curves.map(({ x }) => x.length)
  const all = new Float64Array(1 + curves.length + 2 * lengths.reduce((sum, length) => sum + length, 0))
  all.set([curves.length, ...lengths])
  let at = 1 + curves.length
  for (const { x, y } of curves) {
    all.set(x, at)
    all.set(y, at + x.length)
    at += 2 * x.length
  }
  return new Uint8Array(all.buffer)
}

export function decodeCurves(bytes: ArrayBuffer): readonly Curve[] {
  const all = new Float64Array(bytes)
  const count = all[0]!
  let at = 1 + count
  return Array.from(all.subarray(1, 1 + count), (length) => {
    const [x, y] = [all.subarray(at, at + length), all.subarray(at + length, at + 2 * length)]
    at += 2 * length
    return { x, y }
  })
}
