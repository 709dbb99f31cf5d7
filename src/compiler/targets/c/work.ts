/**
 * What one call of a kernel is for and what it moves, declared from the plan: the ops it carries out, the line of model
 * code that caused it, its FLOPs, and the bytes of the operands it reads and the results it writes. Comments in the
 * emitted program, the profile and its percentages are all made from this.
 */
import { sourceOf, type Node } from '../../graph/node.ts'
import { bytesOf, dtypeBytes, sizeOf, type DType } from '../../graph/types.ts'
import { callOp, compositeName } from '../../ops/call.ts'
import type { Fusion } from './fuse.ts'
import type { Parameter } from './values.ts'
import type { View } from './view.ts'

export interface Work {
  /** Names of the ops, in order; for a kernel shaped by hand, what it is. */
  readonly ops: string
  /** `folder/file.ts:line:column`, or empty when no user code caused it. */
  readonly source: string
  readonly flops: number
  /** Every element that the kernel needs or makes, once; copies inside the kernel are its own affair. */
  readonly bytes: number
  /** What the operands are, where that decides how fast the processor can be. */
  readonly precision: 'f32' | 'f64' | 'bf16'
  /** Ranks exchange values, and wait for each other. */
  readonly communication?: true
}

/** One line for a comment. */
export const describeWork = ({ ops, source }: Work): string => (source === '' ? ops : `${ops} (${source})`)

/** The last two parts of the path, so that emitted text does not depend on where a project lies. */
export const placeOf = (node: Node): string => sourceOf(node)?.split('/').slice(-2).join('/') ?? ''

/** Work of a generated kernel that carries out `members`; stored parameters are read or written. */
export function workOfMembers(
  members: readonly Node[],
  parameters: readonly Parameter[],
  fusion: Fusion,
): Work {
  const last = members.at(-1)!
  const bytes = parameters.map(({ node, written }) =>
    written ? bytesOf(node.type) : elementsRead(node, members, fusion) * dtypeBytes[node.dtype],
  )
  return {
    ops: members.map((node) => node.op.name).join(' '),
    source: placeOf(last),
    flops: sum(members.map((node) => node.op.flops(node))),
    bytes: sum(bytes),
    precision: members.some(({ types }) => types[0]?.dtype === 'f64') ? 'f64' : 'f32',
  }
}

/** Work of a kernel shaped by hand (product, attention), which reads each operand through a view. */
export function workOfNode(node: Node, views: readonly View[]): Work {
  const read = node.inputs.map((input, i) => reached(views[i]!) * dtypeBytes[input.dtype])
  return {
    ops: [node.op === callOp ? compositeName(node) : node.op.name, ...node.inputs.map(dims)].join(' '),
    source: placeOf(node),
    flops: node.op.flops(node),
    bytes: sum([...read, ...node.types.map(bytesOf)]),
    precision: precisionOf(node.inputs.map(({ dtype }) => dtype)),
  }
}

/** Work of a kernel that brings an operand into the order that a product reads it in. */
export const workOfPacking = (node: Node, base: Node, view: View, packedBytes: number): Work => ({
  ops: `packed for ${node.op.name} ${node.inputs.map(dims).join(' ')}`,
  source: placeOf(node),
  flops: 0,
  bytes: reached(view) * dtypeBytes[base.dtype] + packedBytes,
  precision: 'f32',
})

/** Work of a dense copy of a view. */
export function workOfCopy(ops: string, base: Node, view: View): Work {
  const bytes = (reached(view) + sizeOf(view.shape)) * dtypeBytes[base.dtype]
  return { ops, source: placeOf(base), flops: 0, bytes, precision: 'f32' }
}

/** Work of a collective: what it reads and writes on one rank. */
export const workOfCollective = (node: Node): Work => ({
  ops: [node.op.name, ...node.inputs.map(dims)].join(' '),
  source: placeOf(node),
  flops: 0,
  bytes: sum([...node.inputs, node].map(({ type }) => bytesOf(type))),
  precision: 'f32',
  communication: true,
})

const dims = ({ shape }: Node): string => `[${shape.join(',')}]`

/** How many elements of a stored node the members look at: those of each different view of it, at most all. */
function elementsRead(base: Node, members: readonly Node[], fusion: Fusion): number {
  const reads = new Map<string, number>()
  for (const member of members) {
    member.inputs.forEach((input, i) => {
      if (fusion.isClosed(input)) return
      const { base: from, view } = fusion.source(input)
      if (from !== base) return
      // Of a table, the rows that are looked up.
      const table = member.op.name === 'gather' && i === 0
      reads.set(
        table ? `rows ${member.id}` : JSON.stringify([view.offset, view.shape, view.strides]),
        table ? sizeOf(member.shape) : reached(view),
      )
    })
  }
  return Math.min(sizeOf(base.shape), sum([...reads.values()]))
}

/** Different elements that a view shows: an axis of stride 0 shows the same ones again. */
const reached = ({ shape, strides }: View): number => sizeOf(shape.filter((_, axis) => strides[axis] !== 0))

const precisionOf = (dtypes: readonly DType[]): Work['precision'] =>
  dtypes[0] === 'f64' ? 'f64' : dtypes.slice(0, 2).every((dtype) => dtype === 'bf16') ? 'bf16' : 'f32'

const sum = (numbers: readonly number[]): number => numbers.reduce((total, x) => total + x, 0)
