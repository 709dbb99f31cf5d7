/** Whole arrays and the pieces of them that ranks hold: cutting out, putting together. */
import { boxesOf, localShape, type Layout, type Mesh } from './graph/mesh.ts'
import { stridesOf } from './graph/types.ts'

/** One contiguous run of elements: where it lies in the whole and in the piece. */
type Run = (whole: number, piece: number, length: number) => void

/** Calls `run` for every contiguous part of what a rank holds of a value. */
export function forRuns(mesh: Mesh, layout: Layout, shape: readonly number[], rank: number, run: Run): void {
  const [strides, own] = [stridesOf(shape), stridesOf(localShape(mesh, layout, shape))]
  for (const { start, size, at } of boxesOf(mesh, layout, shape, rank)) {
    // Trailing dimensions that are whole, and the one before them, make one run.
    let inner = shape.length
    while (inner > 0 && size[inner - 1] === shape[inner - 1]) inner--
    inner = Math.max(0, inner - 1)
    const length = size.slice(inner).reduce((a, b) => a * b, 1)
    const visit = (dim: number, whole: number, piece: number): void => {
      if (dim === inner) {
        run(whole + (start[dim] ?? 0) * (strides[dim] ?? 0), piece + (at[dim] ?? 0) * (own[dim] ?? 0), length)
        return
      }
      for (let i = 0; i < size[dim]!; i++) {
        visit(dim + 1, whole + (start[dim]! + i) * strides[dim]!, piece + (at[dim]! + i) * own[dim]!)
      }
    }
    visit(0, 0, 0)
  }
}

interface Elements extends ArrayLike<number> {
  subarray(from: number, to: number): Elements
  set(values: ArrayLike<number>, at: number): void
}

/** What one rank holds of a value. */
export interface Piece {
  readonly rank: number
  readonly data: Elements
}

/** Writes to each piece what the whole array has for it. */
export function scatter(
  mesh: Mesh,
  layout: Layout,
  shape: readonly number[],
  values: ArrayLike<number>,
  pieces: readonly Piece[],
): void {
  const whole = 'subarray' in values ? (values as Elements) : Float64Array.from(values)
  for (const { rank, data } of pieces) {
    forRuns(mesh, layout, shape, rank, (from, to, length) =>
      data.set(whole.subarray(from, from + length), to),
    )
  }
}

/** Puts the pieces of all ranks together into `whole`. */
export function assemble(
  mesh: Mesh,
  layout: Layout,
  shape: readonly number[],
  pieces: readonly Piece[],
  whole: Elements,
): void {
  for (const { rank, data } of pieces) {
    forRuns(mesh, layout, shape, rank, (to, from, length) =>
      whole.set(data.subarray(from, from + length), to),
    )
  }
}
