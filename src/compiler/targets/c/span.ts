/**
 * Row spans: which kernels work row by row, and which of their operands they touch only in the rows they are given. Two
 * such kernels in a row need no barrier between them when each thread reads only rows that it wrote itself; schedule.ts
 * makes chains of them. A value of `rows` rows is cut evenly: row i is the i-th of `rows` equal pieces of its memory.
 */
import type { Node } from '../../graph/node.ts'
import { sizeOf } from '../../graph/types.ts'
import type { Fusion } from './fuse.ts'
import { collapse, type View } from './view.ts'

/** How a kernel may be shared out. */
export type Nature =
  /** Called with a range of its rows; any split in multiples of `unit` gives the same bits. */
  | { readonly kind: 'rows'; readonly rows: number; readonly unit: number }
  /** Run by the first thread alone. */
  | { readonly kind: 'serial' }
  /** Run by the whole team, each thread finding its share by itself. */
  | { readonly kind: 'team' }

/** Whether a kernel, cut into so many rows, touches of an operand only the same rows. */
export type Locality = (rows: number) => boolean

export const always: Locality = () => true
export const never: Locality = () => false

/** Whether row i of a view, cut into `rows`, lies in row i of the memory below it. */
export function isRowLocal(view: View, baseSize: number, rows: number): boolean {
  if (rows === 1) return true
  if (baseSize % rows !== 0 || sizeOf(view.shape) % rows !== 0) return false
  const piece = baseSize / rows
  const dims = collapse(view.shape, view.strides)
  const outer: { size: number; stride: number }[] = []
  const inner: { size: number; stride: number }[] = []
  let left = rows
  for (const { size, stride } of dims) {
    if (left === 1) inner.push({ size, stride })
    else if (size <= left) {
      if (left % size !== 0) return false
      outer.push({ size, stride })
      left /= size
    } else {
      if (size % left !== 0) return false
      outer.push({ size: left, stride: stride * (size / left) })
      inner.push({ size: size / left, stride })
      left = 1
    }
  }
  let step = piece
  for (const { size, stride } of outer.toReversed()) {
    if (stride !== step) return false
    step *= size
  }
  const last = inner.reduce((at, { size, stride }) => at + (size - 1) * stride, view.offset)
  return left === 1 && last < piece
}

/** Locality of what pointwise or trailing-reduction nodes read from memory, by base. */
export function localReads(readers: Iterable<Node>, fusion: Fusion): Map<Node, Locality> {
  const found = new Map<Node, Locality>()
  for (const reader of readers) {
    for (const input of reader.inputs) {
      if (fusion.isClosed(input)) continue
      const { base, view } = fusion.source(input)
      const size = sizeOf(base.shape)
      const local: Locality =
        reader.op.kind === 'index' || reader.op.kind === 'leaf'
          ? never
          : (rows) => isRowLocal(view, size, rows)
      const known = found.get(base)
      found.set(base, known ? (rows) => known(rows) && local(rows) : local)
    }
  }
  return found
}
