/**
 * Convolution (strictly: correlation) over 1 to 3 axes of space, channels last; see convolution.ts for the form. A kernel
 * of one tap that moves by one position is a matrix product, and becomes one here.
 */
import type { Node } from '../graph/node.ts'
import type { Op } from '../graph/op.ts'
import { sameShape, valueType } from '../graph/types.ts'
import { convInput } from './conv-input.ts'
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
import { dot } from './dot.ts'
import { apply } from './elementwise.ts'
import { reshape } from './reshape.ts'

export const convOp: Op = {
  name: 'conv',
  doc: 'convolution over 1 to 3 axes, with stride, dilation, padding and groups',
  kind: 'product',
  infer([x, w], attrs) {
    const own = attrs as unknown as ConvAttrs
    const [channels, columns] = [x!.shape.at(-1)!, w!.shape.at(-1)!]
    checkConv('conv', [x!, w!], own, [
      [
        channels % own.groups === 0 && columns % own.groups === 0,
        'groups to divide input and output channels',
      ],
      [
        w!.shape.at(-2) === channels / own.groups,
        'weight [...kernel, input channels / groups, output channels]',
      ],
    ])
    if (own.groups === 1) sameName('conv', 'channels of input and weight', x!.axes.at(-1)!, w!.axes.at(-2)!)
    return [
      valueType(
        x!.dtype,
        [x!.shape[0]!, ...own.extents, columns],
        [...x!.axes.slice(0, -1), w!.axes.at(-1)!],
      ),
    ]
  },
  gradient(node, [g]) {
    const [x, w] = node.inputs as [Node, Node]
    const attrs = convAttrs(node)
    return [
      convInput(g!, w, withExtents(attrs, spaceOf(x.shape))),
      convWeight(x, g!, withExtents(attrs, kernelOf(w.shape))),
    ]
  },
  factors: convFactors,
  flops: convFlops,
  reference: convReference,
  samples: () => convSamples(({ x, w }, attrs) => ({ inputs: [x, w], attrs: { ...attrs } })),
}

export function conv(x: Node, w: Node, attrs: ConvAttrs): Node {
  const { stride, low, groups, extents } = attrs
  const { shape } = w
  const pointwise =
    groups === 1 &&
    shape.length === x.shape.length &&
    kernelOf(shape).every((extent) => extent === 1) &&
    stride.every((step) => step === 1) &&
    low.every((count) => count === 0) &&
    sameShape(extents, spaceOf(x.shape))
  if (!pointwise) return apply(convOp, [x, w], { ...withExtents(attrs, extents) })
  const matrix = reshape(w, shape.slice(-2), w.axes.slice(-2))
  return dot(x, matrix, { aBatch: [], bBatch: [], aContract: [x.shape.length - 1], bContract: [0] })
}
