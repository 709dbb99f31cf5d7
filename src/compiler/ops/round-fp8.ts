/**
 * Rounding to what an 8-bit float holds, saturating; the type of the values stays. Like a conversion it costs no FLOP and
 * passes the gradient on as it is (straight through).
 */
import { fp8Formats, roundFp8Of, type Fp8Name } from '../graph/fp8.ts'
import type { Node } from '../graph/node.ts'
import { valueType } from '../graph/types.ts'
import { typeError } from '../graph/types.ts'
import { apply, elementwise } from './elementwise.ts'

const base = elementwise({
  name: 'roundFp8',
  doc: 'nearest number of an 8-bit float format (e4m3, e5m2), saturating',
  arity: 1,
  accepts: 'float',
  counted: false,
  apply: (x) => x,
  gradient: (_, [g]) => [g!],
  c([x], dtype, node) {
    const { largest, smallestExponent, mantissaBits } = fp8Formats[formatOf(node)]
    const [wide, digits] = dtype === 'f64' ? ['f64', 52] : ['f32', 23]
    return `round_fp8_${wide}(${x}, ${largest}, 0x1p${smallestExponent}, 0x1.8p${digits - mantissaBits})`
  },
})

export const roundFp8Op: typeof base = {
  ...base,
  infer(inputs, attrs, nodes) {
    if (!Object.hasOwn(fp8Formats, String(attrs['format']))) {
      throw typeError('roundFp8', String(attrs['format']), Object.keys(fp8Formats).join(' or '), 'name one')
    }
    return base.infer(inputs, attrs, nodes)
  },
  reference: (node, [x]) => x!.map((value) => roundFp8Of(formatOf(node), value)),
  samples: () =>
    Object.keys(fp8Formats).map((format) => ({ inputs: [valueType('f64', [4, 9])], attrs: { format } })),
}

const formatOf = (node: Node): Fp8Name => node.attrs['format'] as Fp8Name

export const roundFp8 = (x: Node, format: Fp8Name): Node => apply(roundFp8Op, [x], { format })
