/**
 * Rows that live on one rank each. Where experts are shared out, a product of rows with the matrices of their groups
 * (ops/grouped.ts) gives each row on the rank of its expert, and zeros elsewhere: a partial sum, but one through which more
 * than linear ops can pass. An activation that takes 0 to 0, and the product with the next matrix of the same group, need
 * nothing from other ranks. So all that a mixture sends is its tokens, gathered before the first product, and its results,
 * summed after the last.
 *
 * Which ranks have a row follows from the numbers of its group, so values that are apart by the same numbers are apart alike;
 * `keyOf` names those.
 */
import type { Node } from '../graph/node.ts'
import { sizeOf } from '../graph/types.ts'
import { constantOf } from '../ops/constant.ts'
import { getOp } from '../ops/get.ts'
import { groupedDotOp } from '../ops/grouped-dot.ts'
import { groupedOuterOp } from '../ops/grouped-outer.ts'
import { reshapeOp } from '../ops/reshape.ts'
import type { Operand } from './layouts.ts'

/** For mesh axes over which a value is partial, the key of the group numbers that say on which rank a row is. */
export type Apart = Readonly<Record<string, string>>

/** The label of the matrices of groups in dimension maps. */
export const matrices = 'e'

/** Names a value, whatever its shape and axes are called; a result of an op that has several by the op and its place. */
export function keyOf(node: Node): string {
  if (node.op === reshapeOp) return keyOf(node.inputs[0]!)
  return node.op === getOp ? `${node.inputs[0]!.id}.${String(node.attrs['index'])}` : String(node.id)
}

export const isGrouped = ({ op }: Node): boolean => op === groupedDotOp || op === groupedOuterOp

/**
 * How an op takes operands whose rows are apart over an axis. `stay`: its result is partial over it, too, rows apart by
 * `key` if that is given. Otherwise it is a product with matrices that have to be cut over the axis. Null: in no way.
 */
export function rowsApart(
  node: Node,
  operands: readonly (Operand | null)[],
  axis: string,
): { readonly stay: boolean; readonly key?: string } | null {
  const open = operands.filter((operand) => operand?.layout.partial[axis] !== undefined)
  const keys = new Set(open.map((operand) => operand!.apart?.[axis]))
  const [key] = keys
  if (open.length === 0 || keys.size > 1 || key === undefined) return null
  if (isGrouped(node)) return key === keyOf(node.inputs[1]!) ? { stay: false, key } : null
  // What is added up over rows is an ordinary partial sum.
  if (node.op.name === 'sum') return { stay: true }
  if (node.op.name === 'reshape' || node.op.name === 'transpose') return { stay: true }
  if (node.op.kind !== 'elementwise') return null
  return zeroFromZeros(node, operands, axis) ? { stay: true, key } : null
}

/** Whether an elementwise op gives 0 where its partial operands are. */
function zeroFromZeros(node: Node, operands: readonly (Operand | null)[], axis: string): boolean {
  const values = node.inputs.map((x, i) => (operands[i]?.layout.partial[axis] ? 0 : constantOf(x)))
  if (node.op.name === 'mul') return true
  // A condition that is false chooses what comes last.
  if (node.op.name === 'where' && values[0] === 0) return values[2] === 0
  if (values.includes(undefined) || sizeOf(node.shape) === 0) return false
  const scalars = values.map((value) => Float64Array.of(value!))
  return node.op.reference!(node, scalars)[0] === 0
}
