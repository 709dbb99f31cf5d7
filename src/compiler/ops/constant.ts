/** A scalar constant. Filled tensors are broadcasts of one. */
import type { Node } from '../graph/node.ts'
import type { Op } from '../graph/op.ts'
import { roundTo } from '../graph/round.ts'
import { dtypes, isFloat, isHalf, valueType, type DType, type ValueType } from '../graph/types.ts'
import { broadcast } from './broadcast.ts'
import { apply } from './elementwise.ts'

export const constantOp: Op = {
  name: 'constant',
  doc: 'scalar constant',
  kind: 'leaf',
  infer: (_, attrs) => [valueType(attrs['dtype'] as DType, [])],
  gradient: () => [],
  factors: () => ({ inputs: [], results: [[]] }),
  flops: () => 0,
  reference: (node) => Float64Array.of(constantValue(node)),
  samples: () =>
    dtypes.filter((dtype) => !isHalf(dtype)).map((dtype) => ({ inputs: [], attrs: { dtype, value: 1 } })),
}

/**
 * Rounded to what the type holds, so that it is one number for every target, folded into others or not. JSON has no
 * infinities or NaN, so those values travel as text.
 */
export function constant(given: number, dtype: DType): Node {
  const value = isFloat(dtype) ? roundTo(dtype, given) : given
  const asText = !Number.isFinite(value) || Object.is(value, -0)
  return apply(constantOp, [], { dtype, value: asText ? textOf(value) : value })
}

const textOf = (value: number): string => (Object.is(value, -0) ? '-0' : String(value))

export const constantValue = (node: Node): number => Number(node.attrs['value'])

/** A tensor of the given type, every element `value`. */
export const fill = (value: number, type: ValueType): Node =>
  broadcast(constant(value, type.dtype), type.shape, [], type.axes)

/** The value of a constant or of a constant broadcast to a shape; undefined for anything else. */
export function constantOf(node: Node): number | undefined {
  if (node.op === constantOp) return constantValue(node)
  return node.op.name === 'broadcast' ? constantOf(node.inputs[0]!) : undefined
}
