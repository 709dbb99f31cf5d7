/**
 * Index arithmetic as C text. A kernel walks rows `r` and columns `c`; a value of any shape is addressed by splitting its
 * axes at the column boundary, so that row axes depend on `r` alone and the compiler can hoist them.
 */
import { collapse, type View } from './view.ts'

/** The loop position that text refers to: element r * columns + c, or (row values) element r. */
export interface Position {
  readonly columns: number
  readonly level: 'full' | 'row'
}

const linear = ({ columns, level }: Position): string =>
  level === 'row' ? 'r' : columns === 1 ? 'r' : `(r * ${columns} + c)`

/** Index along each of some axes (sizes) for an element number given as text; outermost first. */
function digits(sizes: readonly number[], element: string): string[] {
  let below = 1
  const out: string[] = []
  for (let axis = sizes.length - 1; axis >= 0; axis--) {
    const quotient = below === 1 ? element : `${element} / ${below}`
    below *= sizes[axis]!
    out.unshift(sizes[axis] === 1 ? '0' : axis === 0 ? `(${quotient})` : `(${quotient} % ${sizes[axis]})`)
  }
  return out
}

/** Index along each axis of `shape` at a loop position. */
export function indices(shape: readonly number[], position: Position): string[] {
  const { columns, level } = position
  if (level === 'full' && columns > 1) {
    // Find the axis at which the columns begin; it may have to be split in two.
    let below = 1
    let axis = shape.length
    while (axis > 0 && below * shape[axis - 1]! <= columns) below *= shape[--axis]!
    if (below === columns) return [...digits(shape.slice(0, axis), 'r'), ...digits(shape.slice(axis), 'c')]
    const low = columns / below
    if (axis > 0 && Number.isInteger(low) && shape[axis - 1]! % low === 0) {
      const high = shape[axis - 1]! / low
      const rows = digits([...shape.slice(0, axis - 1), high], 'r')
      const inner = digits([low, ...shape.slice(axis)], 'c')
      return [...rows.slice(0, -1), `(${rows.at(-1)} * ${low} + ${inner[0]})`, ...inner.slice(1)]
    }
  }
  return digits(shape, linear(position))
}

/** Offset into memory of the element that a view shows at a loop position. */
export function offset(view: View, position: Position): string {
  const dims = collapse(view.shape, view.strides)
  const at = indices(
    dims.map((dim) => dim.size),
    position,
  )
  return sumOf(
    dims.map((dim, i) => scaled(at[i]!, dim.stride)),
    view.offset,
  )
}

/** Offset for explicit axis indices. */
export const offsetAt = (view: View, index: readonly string[]): string =>
  sumOf(
    view.strides.map((stride, axis) => (view.shape[axis] === 1 ? '' : scaled(index[axis]!, stride))),
    view.offset,
  )

const scaled = (index: string, stride: number): string =>
  stride === 0 || index === '0' ? '' : stride === 1 ? index : `${index} * ${stride}`

function sumOf(terms: readonly string[], constant: number): string {
  const parts = [...terms.filter((term) => term !== ''), ...(constant === 0 ? [] : [`${constant}`])]
  return parts.length === 0 ? '0' : parts.join(' + ')
}

/** Whether the columns of a view lie one stride apart, which keeps the inner loop simple. */
export function hasSimpleColumns(view: View, columns: number): boolean {
  const dims = collapse(view.shape, view.strides)
  let below = 1
  for (let i = dims.length - 1; i >= 0; i--) {
    below *= dims[i]!.size
    if (below >= columns) return i === dims.length - 1 && below % columns === 0
  }
  return true
}
