/** What the reductions share: the axes in `attrs.axes` disappear. */
import type { Node } from '../graph/node.ts'
import type { Factors, Values } from '../graph/op.ts'
import { formatType, sizeOf, stridesOf, typeError, valueType, type ValueType } from '../graph/types.ts'

export const reducedAxes = (node: Node): readonly number[] => node.attrs['axes'] as number[]

export function inferReduce(name: string, input: ValueType, axes: readonly number[]): ValueType[] {
  if (axes.some((axis) => axis < 0 || axis >= input.shape.length) || new Set(axes).size !== axes.length) {
    throw typeError(
      name,
      `axes ${axes.join(', ')} of ${formatType(input)}`,
      'distinct axes of the input',
      'check the axis numbers',
    )
  }
  const keep = input.shape.map((_, i) => i).filter((i) => !axes.includes(i))
  return [
    valueType(
      input.dtype,
      keep.map((i) => input.shape[i]!),
      keep.map((i) => input.axes[i]!),
    ),
  ]
}

export function reduceFactors(node: Node, reduce: 'sum' | 'max'): Factors {
  const labels = node.inputs[0]!.shape.map((_, i) => `d${i}`)
  return { inputs: [labels], results: [labels.filter((_, i) => !reducedAxes(node).includes(i))], reduce }
}

export function foldReduce(
  node: Node,
  x: Values,
  start: number,
  combine: (a: number, b: number) => number,
  from = 0,
  to = x.length,
): Values {
  const shape = node.inputs[0]!.shape
  const axes = reducedAxes(node)
  const strides = stridesOf(shape)
  const outStrides: number[] = shape.map(() => 0)
  const kept = shape.map((_, i) => i).filter((i) => !axes.includes(i))
  const keptStrides = stridesOf(node.shape)
  kept.forEach((axis, i) => (outStrides[axis] = keptStrides[i]!))
  const out = new Float64Array(sizeOf(node.shape)).fill(start)
  for (let i = from; i < to; i++) {
    let target = 0
    for (let axis = 0; axis < shape.length; axis++) {
      target += (Math.floor(i / strides[axis]!) % shape[axis]!) * outStrides[axis]!
    }
    out[target] = combine(out[target]!, x[i]!)
  }
  return out
}

/** Puts a reduced value back under the shape it came from. */
export function keptAxes(node: Node): number[] {
  return node.inputs[0]!.shape.map((_, i) => i).filter((i) => !reducedAxes(node).includes(i))
}
