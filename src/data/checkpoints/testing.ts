/**
 * What the tests of checkpoints share: random boxes and partitions, states whose every element is known, and ranks that
 * hold parts of them.
 */
import fc from 'fast-check'
import { DTYPE_BYTES } from '../safetensors.ts'
import type { Dtype } from '../safetensors.ts'
import { forEachRun, volume, wholeBox } from './boxes.ts'
import type { Box } from './boxes.ts'
import type { Holding } from './pieces.ts'

/** A non-empty box of an array. */
export const anyBox = (shape: readonly number[]): fc.Arbitrary<Box> =>
  fc.tuple(...shape.map((n) => fc.tuple(fc.nat({ max: n - 1 }), fc.nat({ max: n - 1 })))).map((corners) => ({
    start: corners.map(([a, b]) => Math.min(a, b)),
    size: corners.map(([a, b]) => Math.abs(a - b) + 1),
  }))

/** Disjoint boxes that are the array together: cut in two, at any place of any axis, again and again, unevenly. */
export const partition = (shape: readonly number[]): fc.Arbitrary<Box[]> =>
  fc.array(fc.tuple(fc.nat(), fc.nat(), fc.nat()), { maxLength: 6 }).map((cuts) => {
    const boxes = [wholeBox(shape)]
    for (const [which, axisOf, place] of cuts) {
      const i = which % boxes.length
      const { start, size } = boxes[i]!
      const axis = axisOf % Math.max(shape.length, 1)
      if ((size[axis] ?? 1) < 2) continue
      const below = 1 + (place % (size[axis]! - 1))
      boxes.splice(
        i,
        1,
        { start, size: size.with(axis, below) },
        { start: start.with(axis, start[axis]! + below), size: size.with(axis, size[axis]! - below) },
      )
    }
    return boxes
  })

export interface TestTensor {
  readonly path: string
  readonly dtype: Dtype
  readonly shape: readonly number[]
  /** The whole tensor. */
  readonly bytes: Uint8Array
}

/** A tensor of bytes that look random and differ from tensor to tensor. */
export function testTensor(path: string, dtype: Dtype, shape: readonly number[], seed = 1): TestTensor {
  const bytes = new Uint8Array(volume(wholeBox(shape)) * DTYPE_BYTES[dtype])
  let state = (seed * 2654435761 + path.length) >>> 0
  for (let i = 0; i < bytes.length; i++) {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0
    bytes[i] = state >>> 24
  }
  return { path, dtype, shape, bytes }
}

/** A rank's part of a tensor, with its numbers, or with `fill` in every byte. */
export function hold(
  { path, dtype, shape, bytes }: TestTensor,
  box: Box,
  fill?: number,
): Holding & { data: Uint8Array } {
  const width = DTYPE_BYTES[dtype]
  const data = new Uint8Array(volume(box) * width)
  if (fill === undefined) {
    forEachRun(wholeBox(shape), box, box, (from, to, count) =>
      data.set(bytes.subarray(from * width, (from + count) * width), to * width),
    )
  } else data.fill(fill)
  return { path, dtype, globalShape: shape, box, data }
}

/** For tests of one process that writes for all its ranks: what each owns, cut out of what it holds. */
export function ownedData(
  tensors: readonly TestTensor[],
  pieces: readonly { path: string; box: Box; rank: number }[],
  rank: number,
): Uint8Array[] {
  const byPath = new Map(tensors.map((tensor) => [tensor.path, tensor]))
  return pieces
    .filter((piece) => piece.rank === rank)
    .map(({ path, box }) => hold(byPath.get(path)!, box).data)
}
