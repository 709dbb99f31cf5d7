/**
 * Messages between the stages of a pipeline, whose programs differ: `send` gives a value to another stage, `receive` is
 * where that stage gets it. Ranks that agree in all other mesh axes talk to one another; a channel has a name and carries
 * one value a step. The result of `send` is a token for others to wait for.
 */
import type { Node } from '../graph/node.ts'
import type { Group } from '../graph/mesh.ts'
import type { Op } from '../graph/op.ts'
import { valueType, type AxisName, type DType, type ValueType } from '../graph/types.ts'
import { closedFactors, groupAttrs } from './collective.ts'
import { apply } from './elementwise.ts'

export interface MessageAttrs extends Group {
  /** The other end: a number within the group. */
  readonly peer: number
  readonly channel: string
}

export const messageAttrs = (node: Node): MessageAttrs => node.attrs as unknown as MessageAttrs

export const sendOp: Op = {
  name: 'send',
  doc: 'gives a value to another stage of the pipeline',
  kind: 'collective',
  infer: () => [valueType('i32', [])],
  gradient: () => [null],
  factors: closedFactors,
  flops: () => 0,
  samples: () => [],
}

export const receiveOp: Op = {
  name: 'receive',
  doc: 'a value from another stage of the pipeline, asked for after another value is there',
  kind: 'collective',
  infer: (_, attrs) => [
    valueType(attrs['dtype'] as DType, attrs['shape'] as number[], attrs['names'] as AxisName[]),
  ],
  gradient: (node) => node.inputs.map(() => null),
  factors: closedFactors,
  flops: () => 0,
  samples: () => [],
}

export const send = (x: Node, group: Group, peer: number, channel: string): Node =>
  apply(sendOp, [x], { ...groupAttrs(group), peer, channel })

/** `after`: what must have been computed before the value is asked for, if anything. */
export const receive = (
  type: ValueType,
  group: Group,
  peer: number,
  channel: string,
  after: readonly Node[],
): Node =>
  apply(receiveOp, after, {
    ...groupAttrs(group),
    peer,
    channel,
    dtype: type.dtype,
    shape: [...type.shape],
    names: [...type.axes],
  })
