/**
 * What the movement ops share: every result element is a copy of one input element (or zero), so a movement is fully
 * described by a map from result index to input index. It costs no FLOP.
 */
import type { Values } from '../graph/op.ts'
import { sizeOf, stridesOf } from '../graph/types.ts'

/** Fills a result by asking, for each of its indices, which input element it shows (-1: zero). */
export function remap(
  shape: readonly number[],
  x: Values,
  source: (index: readonly number[]) => number,
): Values {
  const out = new Float64Array(sizeOf(shape))
  const index = shape.map(() => 0)
  for (let i = 0; i < out.length; i++) {
    const from = source(index)
    if (from >= 0) out[i] = x[from]!
    for (let axis = shape.length - 1; axis >= 0; axis--) {
      index[axis]!++
      if (index[axis]! < shape[axis]!) break
      index[axis] = 0
    }
  }
  return out
}

export function offsetOf(index: readonly number[], shape: readonly number[]): number {
  const strides = stridesOf(shape)
  return index.reduce((offset, i, axis) => offset + i * strides[axis]!, 0)
}
