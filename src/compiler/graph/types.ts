/**
 * What a value in the graph is: an element type, a shape known when the program is traced, and a name for each axis.
 * Names are optional (`null`), but where both sides of an operation carry one they must agree: that catches a swapped
 * axis while tracing and gives sharding something to refer to later.
 */
import { failure, type UserError } from '../../errors.ts'

export const dtypes = ['f32', 'f64', 'bf16', 'f16', 'i32', 'u8', 'bool'] as const
export type DType = (typeof dtypes)[number]

export const dtypeBytes: Readonly<Record<DType, number>> = {
  f32: 4,
  f64: 8,
  bf16: 2,
  f16: 2,
  i32: 4,
  u8: 1,
  bool: 1,
}

/** Floats that are stored in 16 bits and computed in f32. */
export type Half = 'bf16' | 'f16'
export const isHalf = (dtype: DType): dtype is Half => dtype === 'bf16' || dtype === 'f16'

export const isFloat = (dtype: DType): boolean => dtype === 'f32' || dtype === 'f64' || isHalf(dtype)

export type AxisName = string | null

export interface ValueType {
  readonly dtype: DType
  readonly shape: readonly number[]
  /** One name (or null) per dimension. */
  readonly axes: readonly AxisName[]
}

export function valueType(
  dtype: DType,
  shape: readonly number[],
  axes: readonly AxisName[] = shape.map(() => null),
): ValueType {
  return { dtype, shape, axes }
}

/** Number of elements in a shape; 1 for a scalar. */
export function sizeOf(shape: readonly number[]): number {
  let size = 1
  for (const extent of shape) size *= extent
  return size
}

/** Whole extents, none negative. */
export const isShape = (shape: readonly number[]): boolean =>
  shape.every((extent) => Number.isInteger(extent) && extent >= 0)

export const bytesOf = (type: ValueType): number => sizeOf(type.shape) * dtypeBytes[type.dtype]

/** Row-major strides in elements. */
export function stridesOf(shape: readonly number[]): number[] {
  const strides: number[] = Array.from({ length: shape.length }, () => 1)
  for (let i = shape.length - 2; i >= 0; i--) strides[i] = strides[i + 1]! * shape[i + 1]!
  return strides
}

/** `f32[batch=4, 8]`: the form used in errors and in printed graphs. */
export function formatType(type: ValueType): string {
  const dims = type.shape.map((extent, i) =>
    type.axes[i] === null ? `${extent}` : `${type.axes[i]}=${extent}`,
  )
  return `${type.dtype}[${dims.join(', ')}]`
}

export const sameShape = (a: readonly number[], b: readonly number[]): boolean =>
  a.length === b.length && a.every((extent, i) => extent === b[i])

export const sameType = (a: ValueType, b: ValueType): boolean =>
  a.dtype === b.dtype && sameShape(a.shape, b.shape) && a.axes.every((name, i) => name === b.axes[i])

/** A shape, dtype or axis mistake found while tracing. */
export function typeError(op: string, got: string, expected: string, fix: string): UserError {
  return failure({ where: op, got, expected, fix })
}

/** Agreement of two axis names: an unnamed axis takes the other's name; two different names are a mistake. */
export function mergeAxes(op: string, a: ValueType, b: ValueType): AxisName[] {
  return a.axes.map((name, i) => {
    const other = b.axes[i] ?? null
    if (name !== null && other !== null && name !== other) {
      throw typeError(
        op,
        `${formatType(a)} and ${formatType(b)}`,
        `axis ${i} to carry one name, not '${name}' and '${other}'`,
        'transpose or rename one side',
      )
    }
    return name ?? other
  })
}
