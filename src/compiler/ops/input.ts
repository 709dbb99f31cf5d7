/** A parameter of a function: program input, or parameter of a scan or composite body. */
import { currentGraph, type Node } from '../graph/node.ts'
import type { Op } from '../graph/op.ts'
import { dtypes, isShape, typeError, valueType, type ValueType } from '../graph/types.ts'

export const inputOp: Op = {
  name: 'input',
  doc: 'parameter of a function',
  kind: 'leaf',
  infer(_, attrs) {
    const { dtype, shape, axes } = attrs as unknown as ValueType
    if (!dtypes.includes(dtype) || !isShape(shape) || axes.length !== shape.length) {
      throw typeError(
        `input '${String(attrs['name'])}'`,
        `${dtype}[${shape.join(', ')}] with axes [${axes.map((name) => name ?? 'null').join(', ')}]`,
        'an element type, whole extents, and one name or null for each',
        'check the type',
      )
    }
    return [valueType(dtype, shape, axes)]
  },
  gradient: () => [],
  factors: (node) => ({ inputs: [], results: [node.shape.map((_, i) => `d${i}`)] }),
  flops: () => 0,
  samples: () => [],
}

/** `scope` keeps the parameters of different functions apart. */
export const input = (scope: number, name: string, type: ValueType): Node =>
  currentGraph().intern(inputOp, [], {
    scope,
    name,
    dtype: type.dtype,
    shape: [...type.shape],
    axes: [...type.axes],
  })
