/** Whole arrays and the pieces of them that ranks hold: cutting out, putting together. */
import { boxOf, type Layout, type Mesh } from './graph/mesh.ts'
import { stridesOf } from './graph/types.ts'

/** The part of a tensor that a rank holds: where it starts and how far it reaches, in each dimension. */
export interface Box {
  readonly start: readonly number[]
  readonly size: readonly number[]
}

/** Calls `run` for each contiguous run of a box: its offset in the whole tensor, its offset in the piece, its length. */
export function forRuns(
  shape: readonly number[],
  { start, size }: Box,
  run: (whole: number, piece: number, length: number) => void,
): void {
  // Trailing dimensions that are whole, and the one before them, make one run.
  let from = size.length
  while (from > 0 && size[from - 1] === shape[from - 1]) from--
  from = Math.max(0, from - 1)
  const length = size.slice(from).reduce((a, b) => a * b, 1)
  const strides = stridesOf(shape)
  const outer = size.slice(0, from)
  const index = outer.map(() => 0)
  const runs = outer.reduce((a, b) => a * b, 1)
  const inner = (start[from] ?? 0) * (strides[from] ?? 0)
  for (let i = 0; i < runs; i++) {
    const at = index.reduce((sum, n, dim) => sum + (n + start[dim]!) * strides[dim]!, inner)
    run(at, i * length, length)
    for (let dim = from - 1; dim >= 0; dim--) {
      index[dim]!++
      if (index[dim]! < outer[dim]!) break
      index[dim] = 0
    }
  }
}

interface Elements extends ArrayLike<number> {
  subarray(from: number, to: number): Elements
  set(values: ArrayLike<number>, at: number): void
}

/** Writes to each held piece what the whole array has for it. */
export function scatter(
  mesh: Mesh,
  layout: Layout,
  shape: readonly number[],
  values: ArrayLike<number>,
  pieces: readonly { readonly rank: number; readonly data: Elements }[],
): void {
  const whole = 'subarray' in values ? (values as Elements) : (Float64Array.from(values) as Elements)
  for (const { rank, data } of pieces) {
    forRuns(shape, boxOf(mesh, layout, shape, rank), (from, to, length) =>
      data.set(whole.subarray(from, from + length), to),
    )
  }
}

/** Puts the pieces of all ranks together into `whole`. */
export function assemble(
  mesh: Mesh,
  layout: Layout,
  shape: readonly number[],
  pieces: readonly { readonly rank: number; readonly data: Elements }[],
  whole: Elements,
): void {
  for (const { rank, data } of pieces) {
    forRuns(shape, boxOf(mesh, layout, shape, rank), (to, from, length) =>
      whole.set(data.subarray(from, from + length), to),
    )
  }
}
