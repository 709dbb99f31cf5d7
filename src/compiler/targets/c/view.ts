/**
 * Views: how a kernel reads a value without copying it. A chain of movement ops over a stored value is an offset and
 * one stride per axis, as long as each reshape can be expressed; where one cannot, the value below it must be stored.
 */
import type { Node } from '../../graph/node.ts'
import { sizeOf, stridesOf } from '../../graph/types.ts'
import { permutationOf } from '../../ops/transpose.ts'
import { startOf } from '../../ops/slice.ts'

export interface View {
  readonly offset: number
  readonly shape: readonly number[]
  readonly strides: readonly number[]
}

export const denseView = (shape: readonly number[]): View => ({ offset: 0, shape, strides: stridesOf(shape) })

/** Ops that a view can absorb. Concat and pad make new values and are stored. */
export const isViewOp = (node: Node): boolean =>
  node.op.name === 'reshape' ||
  node.op.name === 'transpose' ||
  node.op.name === 'broadcast' ||
  node.op.name === 'slice' ||
  node.op.name === 'barrier'

/** The view of `node`, a view op, from that of its input; undefined when strides cannot say it. */
export function viewThrough(node: Node, input: View): View | undefined {
  switch (node.op.name) {
    case 'reshape':
      return reshapeView(input, node.shape)
    case 'transpose': {
      const order = permutationOf(node)
      return { offset: input.offset, shape: node.shape, strides: order.map((axis) => input.strides[axis]!) }
    }
    case 'broadcast': {
      const dims = node.attrs['dims'] as number[]
      const strides = node.shape.map((extent, axis) => {
        const from = dims.indexOf(axis)
        return from < 0 || (input.shape[from] === 1 && extent !== 1) ? 0 : input.strides[from]!
      })
      return { offset: input.offset, shape: node.shape, strides }
    }
    case 'slice': {
      const start = startOf(node)
      const offset = start.reduce((at, from, axis) => at + from * input.strides[axis]!, input.offset)
      return { offset, shape: node.shape, strides: input.strides }
    }
    default:
      return input
  }
}

interface Dim {
  size: number
  stride: number
}

/** Axes merged where memory allows; axes of extent 1 dropped. */
export function collapse(shape: readonly number[], strides: readonly number[]): Dim[] {
  const out: Dim[] = []
  shape.forEach((size, i) => {
    if (size === 1) return
    const last = out.at(-1)
    if (last && last.stride === strides[i]! * size) {
      last.size *= size
      last.stride = strides[i]!
    } else out.push({ size, stride: strides[i]! })
  })
  return out
}

/** The same memory under another shape: every new axis must fall inside one merged old axis. */
export function reshapeView(view: View, shape: readonly number[]): View | undefined {
  if (sizeOf(shape) === 0) return undefined
  const dims = collapse(view.shape, view.strides)
  const strides: number[] = Array.from({ length: shape.length }, () => 0)
  let at = dims.length - 1
  let left = dims[at]?.size ?? 1
  let stride = dims[at]?.stride ?? 0
  for (let axis = shape.length - 1; axis >= 0; axis--) {
    const size = shape[axis]!
    if (size === 1) continue
    if (left === 1) {
      at--
      left = dims[at]?.size ?? 1
      stride = dims[at]?.stride ?? 0
    }
    if (left % size !== 0) return undefined
    strides[axis] = stride
    stride *= size
    left /= size
  }
  return { offset: view.offset, shape, strides }
}

/** `same`: element i of the view is element i of the base. `row`: it is element floor(i / columns) of the base. */
export type Access =
  | { readonly kind: 'same' }
  | { readonly kind: 'row'; readonly columns: number }
  | { readonly kind: 'other' }

export function accessOf(view: View, baseSize: number): Access {
  const size = sizeOf(view.shape)
  if (view.offset !== 0) return { kind: 'other' }
  if (size === baseSize && isDense(view)) return { kind: 'same' }
  let columns = 1
  let axis = view.shape.length - 1
  while (axis >= 0 && (view.strides[axis] === 0 || view.shape[axis] === 1)) columns *= view.shape[axis--]!
  const rows = { offset: 0, shape: view.shape.slice(0, axis + 1), strides: view.strides.slice(0, axis + 1) }
  return sizeOf(rows.shape) === baseSize && isDense(rows) ? { kind: 'row', columns } : { kind: 'other' }
}

export function isDense(view: View): boolean {
  const dims = collapse(view.shape, view.strides)
  return dims.length === 0 || (dims.length === 1 && dims[0]!.stride === 1)
}
