/**
 * From columns to what is drawn: smoothing on every point first, thinning for the screen afterwards, so that a curve does
 * not depend on how wide the window is. Thinning keeps the smallest and the largest value of every pixel; it never
 * invents one. Runs in the page, and in the server for runs too long to be sent whole. Imports nothing.
 */

export interface Curve {
  /** Ascending. */
  readonly x: Float64Array
  readonly y: Float64Array
}

/**
 * Exponential moving average without the bias towards the start, weighted by distance in x: `strength` is what is left of
 * a value's weight after one typical distance between points. NaN stays a gap and weighs nothing.
 */
export function smooth({ x, y }: Curve, strength: number): Curve {
  const n = y.length
  if (strength <= 0 || n < 3) return { x, y }
  const typical = typicalDistance(x)
  const out = new Float64Array(n)
  let mean = 0
  let weight = 0
  let last = x[0]! - typical
  let lastDecay = strength
  let lastDistance = 1
  for (let i = 0; i < n; i++) {
    const value = y[i]!
    if (!Number.isFinite(value)) {
      out[i] = value
      continue
    }
    const distance = (x[i]! - last) / typical
    last = x[i]!
    if (distance !== lastDistance) {
      lastDistance = distance
      lastDecay = strength ** distance
    }
    mean = lastDecay * mean + (1 - lastDecay) * value
    weight = lastDecay * weight + (1 - lastDecay)
    out[i] = weight > 0 ? mean / weight : value
  }
  return { x, y: out }
}

/** Between neighbouring points. */
export const typicalDistance = (x: Float64Array): number =>
  x.length < 2 ? 1 : (x[x.length - 1]! - x[0]!) / (x.length - 1) || 1

/** What logarithmic axes can show: values that they cannot become gaps, places that they cannot are left out. */
export function showable({ x, y }: Curve, logX: boolean, logY: boolean): Curve {
  let begin = 0
  if (logX) while (begin < x.length && !(x[begin]! > 0)) begin++
  return {
    x: x.subarray(begin),
    y: logY ? y.map((v) => (v > 0 ? v : Number.NaN)).subarray(begin) : y.subarray(begin),
  }
}

/** First index whose x is at least `value`. */
export function firstAtLeast(x: Float64Array, value: number): number {
  let low = 0
  let high = x.length
  while (low < high) {
    const middle = (low + high) >> 1
    if (x[middle]! < value) low = middle + 1
    else high = middle
  }
  return low
}

/**
 * At most two points a bucket of the part of a curve between `from` and `to`, and one neighbour on either side, so that
 * lines leave the picture where they should. Gaps (NaN) are kept as one point each. Buckets hold the same number of
 * points, on a logarithmic axis the same width of it.
 */
export function thin({ x, y }: Curve, from: number, to: number, buckets: number, logX = false): Curve {
  const begin = Math.max(0, firstAtLeast(x, from) - 1)
  const end = Math.min(x.length, firstAtLeast(x, to) + 2)
  const count = end - begin
  if (count <= buckets * 2) return { x: x.slice(begin, end), y: y.slice(begin, end) }
  const keptX = new Float64Array(buckets * 3 + 2)
  const keptY = new Float64Array(buckets * 3 + 2)
  let kept = 0
  const keep = (i: number): void => {
    keptX[kept] = x[i]!
    keptY[kept++] = y[i]!
  }
  keep(begin)
  const [left, right] = [x[begin]!, x[end - 1]!]
  const edge = (bucket: number): number =>
    bucket === buckets
      ? end
      : logX && left > 0
        ? firstAtLeast(x, left * (right / left) ** (bucket / buckets))
        : begin + Math.floor((bucket * count) / buckets)
  for (let bucket = 0; bucket < buckets; bucket++) {
    const [start, stop] = [edge(bucket), edge(bucket + 1)]
    let least = -1
    let most = -1
    let gap = -1
    for (let i = start; i < stop; i++) {
      const value = y[i]!
      if (Number.isNaN(value)) gap = i
      else {
        if (least < 0 || value < y[least]!) least = i
        if (most < 0 || value > y[most]!) most = i
      }
    }
    const chosen = [least, most, gap].filter((i) => i >= 0).toSorted((a, b) => a - b)
    for (const [place, i] of chosen.entries())
      if (i !== chosen[place - 1] && (kept === 0 || x[i]! >= keptX[kept - 1]!)) keep(i)
  }
  return { x: keptX.subarray(0, kept), y: keptY.subarray(0, kept) }
}
