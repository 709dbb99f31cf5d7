/**
 * What all elementwise ops share: one output element from one element of each input, so shapes are equal, every axis
 * may be split, and the cost is one operation an element. Broadcasting is explicit (the `broadcast` op), never here.
 */
import { currentGraph, type Node } from '../graph/node.ts'
import type { Op, Sample } from '../graph/op.ts'
import { formatType, isFloat, mergeAxes, sameShape, sizeOf, typeError, valueType } from '../graph/types.ts'
import type { DType } from '../graph/types.ts'

export type ElementwiseKind = 'float' | 'number' | 'bool' | 'any'

export interface ElementwiseSpec {
  readonly name: string
  readonly doc: string
  readonly arity: number
  /** Which element types are accepted. */
  readonly accepts: ElementwiseKind
  /** Result element type; default: that of the first input. */
  readonly result?: DType
  /** Inputs from this index on set the dtype that must agree; default 0. */
  readonly valuesFrom?: number
  /** False for moves (where, cast): they cost nothing. */
  readonly counted?: boolean
  readonly apply: (...values: number[]) => number
  readonly gradient?: Op['gradient']
  readonly c: NonNullable<Op['c']>
  readonly ranges?: Sample['ranges']
  readonly samples?: Op['samples']
}

const accepts: Readonly<Record<ElementwiseKind, (dtype: DType) => boolean>> = {
  float: isFloat,
  number: (dtype) => dtype !== 'bool',
  bool: (dtype) => dtype === 'bool',
  any: () => true,
}

/** Makes an elementwise op from its scalar meaning. */
export function elementwise(spec: ElementwiseSpec): Op {
  const valuesFrom = spec.valuesFrom ?? 0
  return {
    name: spec.name,
    doc: spec.doc,
    kind: 'elementwise',
    infer(inputs) {
      const values = inputs.slice(valuesFrom)
      const first = values[0]!
      const shown = (): string => inputs.map(formatType).join(', ')
      if (inputs.length !== spec.arity) {
        throw typeError(spec.name, `${inputs.length} inputs`, `${spec.arity}`, 'check the call')
      }
      if (inputs.some((input) => !sameShape(input.shape, first.shape))) {
        throw typeError(spec.name, shown(), 'equal shapes', 'broadcast or reshape one side')
      }
      if (values.some((input) => input.dtype !== first.dtype)) {
        throw typeError(spec.name, shown(), 'one element type', 'cast one side')
      }
      if (!accepts[spec.accepts](first.dtype)) {
        throw typeError(spec.name, shown(), `${spec.accepts} elements`, 'cast the input')
      }
      const axes = inputs.reduce((a, b) => valueType(a.dtype, a.shape, mergeAxes(spec.name, a, b))).axes
      return [valueType(spec.result ?? first.dtype, first.shape, axes)]
    },
    ...(spec.gradient ? { gradient: spec.gradient } : {}),
    factors(node) {
      const labels = node.shape.map((_, i) => `d${i}`)
      return { inputs: node.inputs.map(() => labels), results: [labels] }
    },
    flops(node) {
      const counted = spec.counted !== false && isFloat(node.inputs[valuesFrom]!.dtype)
      return counted ? sizeOf(node.shape) : 0
    },
    reference(_, inputs) {
      const out = new Float64Array(inputs[0]!.length)
      const [a, b, c] = inputs as [Float64Array, Float64Array?, Float64Array?]
      if (spec.arity === 1) for (let i = 0; i < out.length; i++) out[i] = spec.apply(a[i]!)
      else if (spec.arity === 2) for (let i = 0; i < out.length; i++) out[i] = spec.apply(a[i]!, b![i]!)
      else for (let i = 0; i < out.length; i++) out[i] = spec.apply(a[i]!, b![i]!, c![i]!)
      return out
    },
    c: spec.c,
    samples: spec.samples ?? (() => defaultSamples(spec)),
  }
}

function defaultSamples({ accepts, arity, ranges }: ElementwiseSpec): Sample[] {
  const dtype: DType = accepts === 'bool' ? 'bool' : 'f64'
  return [[], [5], [2, 3], [2, 1, 4]].map((shape) => {
    const inputs = Array.from({ length: arity }, () => valueType(dtype, shape))
    return ranges ? { inputs, ranges } : { inputs }
  })
}

export const apply = (op: Op, inputs: readonly Node[], attrs: Node['attrs'] = {}): Node =>
  currentGraph().intern(op, inputs, attrs)

/** `name_f32(x)` or `name_f64(x)`: the prelude has both; bf16 and f16 are computed in f32. */
export const cCall =
  (name: string): NonNullable<Op['c']> =>
  (args, dtype) =>
    `${name}_${dtype === 'f64' ? 'f64' : 'f32'}(${args.join(', ')})`
