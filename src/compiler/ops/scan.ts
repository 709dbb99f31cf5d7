/**
 * A loop that stays in the graph: layers, microbatches, time steps. Inputs are [constants…, carries…, xs…]; the body
 * takes one slice of each xs and returns [carries…, ys…]; results are [final carries…, stacked ys…]. With `reverse` it
 * runs from the last slice to the first.
 */
import type { Func, Node } from '../graph/node.ts'
import type { Op } from '../graph/op.ts'
import { formatType, sameShape, typeError, valueType, type AxisName, type ValueType } from '../graph/types.ts'
import { flopsOf } from './cost.ts'
import { apply } from './elementwise.ts'

export interface ScanAttrs {
  readonly body: Func
  readonly length: number
  readonly numConstants: number
  readonly numCarries: number
  readonly reverse: boolean
  /** Name of the stacked axis. */
  readonly axis: AxisName
}

export const scanAttrs = (node: Node): ScanAttrs => node.attrs as unknown as ScanAttrs

export const scanOp: Op = {
  name: 'scan',
  doc: 'loop with carries, slices in and stacked slices out',
  kind: 'structure',
  infer(inputs, raw) {
    const attrs = raw as unknown as ScanAttrs
    const { body, length, numConstants, numCarries } = attrs
    const numFixed = numConstants + numCarries
    body.params.forEach((param, i) => {
      const given = inputs[i]
      const want = i < numFixed ? param.shape : [length, ...param.shape]
      if (!given || given.dtype !== param.dtype || !sameShape(given.shape, want)) {
        throw typeError(
          'scan',
          given ? formatType(given) : 'nothing',
          `${param.dtype}[${want.join(', ')}] as input ${i}`,
          'check carries and slices',
        )
      }
    })
    const carries = body.params.slice(numConstants, numFixed)
    carries.forEach((carry, i) => {
      const next = body.results[i]
      if (!next || next.dtype !== carry.dtype || !sameShape(next.shape, carry.shape)) {
        throw typeError(
          'scan',
          next ? formatType(next.type) : 'nothing',
          `carry ${i} to keep the type ${formatType(carry.type)}`,
          'cast or reshape inside the body',
        )
      }
    })
    const stacked = (type: ValueType): ValueType =>
      valueType(type.dtype, [length, ...type.shape], [attrs.axis, ...type.axes])
    return body.results.map((result, i) => (i < numCarries ? carries[i]!.type : stacked(result.type)))
  },
  factors: (node) => ({
    inputs: node.inputs.map((input) => input.shape.map(() => null)),
    results: node.types.map((type) => type.shape.map(() => null)),
  }),
  flops: (node) => scanAttrs(node).length * flopsOf(scanAttrs(node).body),
  samples: () => [],
}

export const scan = (inputs: readonly Node[], attrs: ScanAttrs): Node =>
  apply(scanOp, inputs, {
    body: attrs.body,
    length: attrs.length,
    numConstants: attrs.numConstants,
    numCarries: attrs.numCarries,
    reverse: attrs.reverse,
    axis: attrs.axis,
  })
