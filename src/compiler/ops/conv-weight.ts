/** Gradient of a convolution by its weight: what every tap saw, times what its output got. See convolution.ts. */
import type { Node } from '../graph/node.ts'
import type { Op } from '../graph/op.ts'
import { valueType } from '../graph/types.ts'
import { conv } from './conv.ts'
import { convInput } from './conv-input.ts'
import {
  checkConv,
  convAttrs,
  convFactors,
  convFlops,
  convReference,
  convSamples,
  sameName,
  spaceOf,
  withExtents,
  type ConvAttrs,
} from './convolution.ts'
import { apply } from './elementwise.ts'

export const convWeightOp: Op = {
  name: 'convWeight',
  doc: 'gradient of conv by its weight',
  kind: 'product',
  infer([x, y], attrs) {
    const own = attrs as unknown as ConvAttrs
    const [channels, columns] = [x!.shape.at(-1)!, y!.shape.at(-1)!]
    checkConv('convWeight', [x!, y!], own, [
      [
        channels % own.groups === 0 && columns % own.groups === 0,
        'groups to divide input and output channels',
      ],
      [x!.shape[0] === y!.shape[0], 'input and output of one batch'],
    ])
    sameName('convWeight', 'batches of input and output', x!.axes[0]!, y!.axes[0]!)
    return [
      valueType(
        x!.dtype,
        [...own.extents, channels / own.groups, columns],
        [...own.extents.map(() => null), x!.axes.at(-1)!, y!.axes.at(-1)!],
      ),
    ]
  },
  gradient(node, [g]) {
    const [x, y] = node.inputs as [Node, Node]
    const attrs = convAttrs(node)
    return [
      convInput(y, g!, withExtents(attrs, spaceOf(x.shape))),
      conv(x, g!, withExtents(attrs, spaceOf(y.shape))),
    ]
  },
  factors: convFactors,
  flops: convFlops,
  reference: convReference,
  samples: () => {
    const plain = convSamples(({ x, y }, attrs, kernel) => ({
      inputs: [x, y],
      attrs: { ...withExtents(attrs, kernel) },
    }))
    const leaved = plain
      .filter(({ inputs }) => inputs[0]!.shape[0]! % 2 === 0)
      .map(({ inputs, attrs }) => ({ inputs, attrs: { ...attrs, leaves: 2 } }))
    return [...plain, ...leaved.slice(0, 2)]
  },
}

export const convWeight = (x: Node, y: Node, attrs: ConvAttrs): Node =>
  apply(convWeightOp, [x, y], { ...withExtents(attrs, attrs.extents) })
