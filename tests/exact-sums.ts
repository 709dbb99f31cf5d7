/**
 * How many bits the sums of one run need, read off in the reference: what the magnitudes of a result's terms add up to,
 * counted in the smallest unit that any term is a multiple of. No partial sum, in whatever order, is more than that, so
 * that with 24 bits none of them is rounded in f32. (Additions of two values have one order and are not looked at.)
 */
import type { Func, Node } from '../src/compiler/graph/node.ts'
import type { Values } from '../src/compiler/graph/op.ts'
import { interpret } from '../src/compiler/targets/reference/interpret.ts'

export interface Sum {
  /** Operation, shape and axes. */
  readonly what: string
  readonly bits: number
}

/** Operations whose results are sums of terms: products of two operands' elements, or elements of either. */
const products = ['dot', 'groupedDot', 'groupedOuter', 'conv', 'convInput', 'convWeight']
const additions = ['sum', 'scatterAdd']

export function bitsOfSums(func: Func, args: readonly Values[]): Sum[] {
  const sums: Sum[] = []
  interpret(func, args, (node, inputs) => {
    const isProduct = products.includes(node.op.name)
    if (!isProduct && !additions.includes(node.op.name)) return
    const isFloat = (at: number): boolean => node.inputs[at]!.types[0]!.dtype === 'f32'
    const magnitudes = inputs.map((values, at) => (isFloat(at) ? values.map(Math.abs) : values))
    const units = inputs.filter((_, at) => isFloat(at)).map(unitOf)
    const unit = isProduct ? units.reduce((a, b) => a * b, 1) : Math.min(...units)
    const most = node.op.reference!(node, magnitudes).reduce((a, b) => Math.max(a, b), 0)
    sums.push({ what: described(node), bits: Math.ceil(Math.log2(most / unit + 1)) })
  })
  return sums
}

const described = ({ op, types: [type] }: Node): string => `${op.name} [${type!.axes.join(', ')}]`

/** The largest power of two that all values are multiples of; of zeros alone, 1. */
function unitOf(values: Values): number {
  let unit = Infinity
  for (const value of values) if (value !== 0) unit = Math.min(unit, lastBit(Math.abs(value)))
  return unit === Infinity ? 1 : unit
}

function lastBit(value: number): number {
  let bit = 2 ** Math.floor(Math.log2(value))
  for (let rest = value - bit; rest > 0; rest -= bit) while (bit > rest) bit /= 2
  return bit
}
