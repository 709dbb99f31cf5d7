/** Gradient of a convolution by its input: the transposed convolution. See convolution.ts for the form. */
import type { Node } from '../graph/node.ts'
import type { Op } from '../graph/op.ts'
import { valueType } from '../graph/types.ts'
import { conv } from './conv.ts'
import { convWeight } from './conv-weight.ts'
import {
  checkConv,
  convAttrs,
  convFactors,
  convFlops,
  convReference,
  convSamples,
  kernelOf,
  sameName,
  spaceOf,
  withExtents,
  type ConvAttrs,
} from './convolution.ts'
import { apply } from './elementwise.ts'

export const convInputOp: Op = {
  name: 'convInput',
  doc: 'gradient of conv by its input: transposed convolution',
  kind: 'product',
  infer([y, w], attrs) {
    const own = attrs as unknown as ConvAttrs
    const columns = w!.shape.at(-1)!
    checkConv('convInput', [y!, w!], own, [
      [columns % own.groups === 0, 'groups to divide the channels of the output'],
      [y!.shape.at(-1) === columns, 'output and weight of one number of output channels'],
    ])
    sameName('convInput', 'channels of output and weight', y!.axes.at(-1)!, w!.axes.at(-1)!)
    const channels = w!.shape.at(-2)! * own.groups
    return [
      valueType(
        y!.dtype,
        [y!.shape[0]!, ...own.extents, channels],
        [...y!.axes.slice(0, -1), w!.axes.at(-2)!],
      ),
    ]
  },
  gradient(node, [g]) {
    const [y, w] = node.inputs as [Node, Node]
    const attrs = convAttrs(node)
    return [
      conv(g!, w, withExtents(attrs, spaceOf(y.shape))),
      convWeight(g!, y, withExtents(attrs, kernelOf(w.shape))),
    ]
  },
  factors: convFactors,
  flops: convFlops,
  reference: convReference,
  samples: () =>
    convSamples(({ x, w, y }, attrs) => ({
      inputs: [y, w],
      attrs: { ...withExtents(attrs, spaceOf(x.shape)) },
    })),
}

export const convInput = (y: Node, w: Node, attrs: ConvAttrs): Node =>
  apply(convInputOp, [y, w], { ...withExtents(attrs, attrs.extents) })
