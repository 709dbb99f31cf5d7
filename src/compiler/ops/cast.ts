/** Conversion between element types. To bf16, f16 and f32 it rounds to nearest even; float to integer truncates. */
import type { Node } from '../graph/node.ts'
import { roundTo } from '../graph/round.ts'
import { dtypes, isFloat, isHalf, sizeOf, typeError, valueType, type DType } from '../graph/types.ts'
import type { Op } from '../graph/op.ts'
import { apply } from './elementwise.ts'

export const castOp: Op = {
  name: 'cast',
  doc: 'conversion to another element type',
  kind: 'elementwise',
  infer([input], attrs) {
    const to = attrs['to'] as DType
    if (!dtypes.includes(to))
      throw typeError('cast', String(attrs['to']), dtypes.join(', '), 'name one of these')
    return [valueType(to, input!.shape, input!.axes)]
  },
  gradient(node, [g]) {
    const input = node.inputs[0]!
    return [isFloat(input.dtype) ? cast(g!, input.dtype) : null]
  },
  factors(node) {
    const labels = node.shape.map((_, i) => `d${i}`)
    return { inputs: [labels], results: [labels] }
  },
  flops: () => 0,
  reference(node, [x]) {
    const out = new Float64Array(sizeOf(node.shape))
    for (let i = 0; i < out.length; i++) out[i] = roundTo(node.dtype, x![i]!)
    return out
  },
  // The emitter knows how to load, convert and store every pair of types.
  c: ([x], _, node) => cConvert(x!, node.inputs[0]!.dtype, node.dtype),
  samples: () => [
    { inputs: [valueType('f64', [5])], attrs: { to: 'f32' } },
    { inputs: [valueType('f32', [2, 3])], attrs: { to: 'f64' } },
    { inputs: [valueType('f32', [9])], attrs: { to: 'bf16' } },
    { inputs: [valueType('bf16', [9])], attrs: { to: 'f32' } },
    { inputs: [valueType('f32', [9])], attrs: { to: 'f16' } },
    { inputs: [valueType('f16', [9])], attrs: { to: 'f32' } },
    { inputs: [valueType('f32', [8])], attrs: { to: 'i32' }, ranges: [[-9, 9]] },
    { inputs: [valueType('i32', [8])], attrs: { to: 'f32' }, ranges: [[-99, 99]] },
    { inputs: [valueType('bool', [7])], attrs: { to: 'f32' } },
    { inputs: [valueType('u8', [7])], attrs: { to: 'i32' }, ranges: [[0, 256]] },
  ],
}

function cConvert(x: string, from: DType, to: DType): string {
  if (to === 'bool') return `(${x} != 0)`
  if (isHalf(to)) return `round_${to}((float)${x})`
  const c = { f32: 'float', f64: 'double', i32: 'int32_t', u8: 'uint8_t' }[to]
  return from === to ? x : `((${c})${x})`
}

export const cast = (x: Node, to: DType): Node => (x.dtype === to ? x : apply(castOp, [x], { to }))
