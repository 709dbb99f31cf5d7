/**
 * Local algebra that changes no finite value (only the sign of a zero may, in x + 0): constants fold, neutral elements
 * vanish, moves of moves combine. Common subexpressions and dead code need no rule here: hash-consing and rebuilding
 * take care of them.
 */
import { currentGraph, type Func, type Node } from '../graph/node.ts'
import type { Values } from '../graph/op.ts'
import { roundTo } from '../graph/round.ts'
import { isHalf, sameShape } from '../graph/types.ts'
import { broadcast, broadcastOp } from '../ops/broadcast.ts'
import { constant, constantOf, fill } from '../ops/constant.ts'
import { addOp } from '../ops/add.ts'
import { castOp } from '../ops/cast.ts'
import { divOp } from '../ops/div.ts'
import { mulOp } from '../ops/mul.ts'
import { negOp } from '../ops/neg.ts'
import { reshape, reshapeOp } from '../ops/reshape.ts'
import { permutationOf, transpose, transposeOp } from '../ops/transpose.ts'
import { whereOp } from '../ops/where.ts'
import { Rewrite, type Rule } from './rewrite.ts'

export const simplify = (func: Func): Func => new Rewrite(rule).func(func)

const rule: Rule = (node, inputs) => {
  if (node.op.kind === 'elementwise') return foldConstants(node, inputs) ?? neutral(node, inputs)
  return combineMoves(node, inputs)
}

/** An elementwise op of constants is a constant. */
function foldConstants(node: Node, inputs: readonly Node[]): Node | undefined {
  const values = inputs.map(constantOf)
  if (values.some((value) => value === undefined) || isHalf(node.dtype)) return undefined
  const scalars: Values[] = values.map((value) => Float64Array.of(value!))
  const scalarNode = currentGraph().intern(
    node.op,
    inputs.map((x, i) => constant(values[i]!, x.dtype)),
    node.attrs,
  )
  const value = node.op.reference!(scalarNode, scalars)[0]!
  const rounded = roundTo(node.dtype, value)
  // Constants are exact until they are emitted: in float64, folding is to change nothing.
  return fill(node.dtype === 'f32' && Number.isFinite(rounded) ? value : rounded, node.type)
}

/** x + 0, x * 1, x / 1, -(-x), and selection by a constant. x * 0 is left alone: x may be infinite. */
function neutral(node: Node, inputs: readonly Node[]): Node | undefined {
  const [a, b, c] = inputs as [Node, Node, Node]
  const keep = (x: Node): Node | undefined =>
    sameShape(x.shape, node.shape) ? reshape(x, node.shape, node.axes) : undefined
  if (node.op === addOp) return isConstant(b, 0) ? keep(a) : isConstant(a, 0) ? keep(b) : undefined
  if (node.op === mulOp) return isConstant(b, 1) ? keep(a) : isConstant(a, 1) ? keep(b) : undefined
  if (node.op === divOp) return isConstant(b, 1) ? keep(a) : undefined
  if (node.op === negOp) return a.op === negOp ? keep(a.inputs[0]!) : undefined
  if (node.op === castOp) return a.dtype === node.dtype ? keep(a) : undefined
  if (node.op === whereOp) {
    const condition = constantOf(a)
    return condition === undefined ? undefined : keep(condition !== 0 ? b : c)
  }
  return undefined
}

const isConstant = (node: Node, value: number): boolean => Object.is(constantOf(node), value)

function combineMoves(node: Node, [x]: readonly Node[]): Node | undefined {
  if (node.op === reshapeOp) {
    const constantValue = constantOf(x!)
    if (constantValue !== undefined) return fill(constantValue, node.type)
    return x!.op === reshapeOp
      ? reshape(x!.inputs[0]!, node.shape, node.axes)
      : reshape(x!, node.shape, node.axes)
  }
  if (node.op === transposeOp && x!.op === transposeOp) {
    const inner = permutationOf(x!)
    return transpose(
      x!.inputs[0]!,
      permutationOf(node).map((i) => inner[i]!),
    )
  }
  if (node.op === broadcastOp && x!.op === broadcastOp) {
    const inner = x!.attrs['dims'] as number[]
    const outer = node.attrs['dims'] as number[]
    const source = x!.inputs[0]!
    // Only sound when the inner broadcast's own repeats are not of an axis the outer one repeats from 1.
    const dims = inner.map((axis) => outer[axis]!)
    if (source.shape.every((extent, i) => extent === 1 || extent === node.shape[dims[i]!])) {
      return broadcast(source, node.shape, dims, node.axes)
    }
  }
  return undefined
}
