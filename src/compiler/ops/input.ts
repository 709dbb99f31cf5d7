/** A parameter of a function: program input, or parameter of a scan or composite body. */
import { currentGraph, type Node } from '../graph/node.ts'
import type { Op } from '../graph/op.ts'
import { valueType, type AxisName, type DType, type ValueType } from '../graph/types.ts'

export const inputOp: Op = {
  name: 'input',
  doc: 'parameter of a function',
  kind: 'leaf',
  infer: (_, attrs) => [
    valueType(attrs['dtype'] as DType, attrs['shape'] as number[], attrs['axes'] as AxisName[]),
  ],
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
