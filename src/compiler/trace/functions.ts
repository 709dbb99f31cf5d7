/**
 * Functions as values: tracing a TypeScript function into a `Func`, and the transformations that take one — `scan`,
 * `checkpoint`, `grad`. The subtle part is capture: a body may use tensors from outside, and a `Func` must be closed,
 * so whatever does not depend on the body's own parameters becomes an extra input (which also hoists loop invariants).
 */
import { InternalError } from '../../errors.ts'
import { currentGraph, Node, onBehalfOf, reachable, type Func } from '../graph/node.ts'
import { typeError, valueType, type AxisName, type ValueType } from '../graph/types.ts'
import { call } from '../ops/call.ts'
import { get } from '../ops/get.ts'
import { grad as gradNode, gradOp, gradParts } from '../ops/grad.ts'
import { input, inputOp } from '../ops/input.ts'
import { scan as scanNode } from '../ops/scan.ts'
import { Tensor } from './tensor.ts'
import { leaves, mapTree, type Tree } from './tree.ts'

export type Tensors = Tree<Tensor>

/** Rebuilds `roots` with some nodes replaced. */
export function substitute(roots: readonly Node[], replacement: ReadonlyMap<Node, Node>): Node[] {
  const made = new Map<Node, Node>()
  for (const node of reachable(roots)) {
    const inputs = node.inputs.map((x) => made.get(x)!)
    const same = inputs.every((x, i) => x === node.inputs[i])
    const rebuilt = (): Node => onBehalfOf(node, () => currentGraph().intern(node.op, inputs, node.attrs))
    made.set(node, replacement.get(node) ?? (same ? node : rebuilt()))
  }
  return roots.map((root) => made.get(root)!)
}

/** Closes a body over what it captured: returns the function and the outer nodes its first parameters stand for. */
function close(
  name: string,
  params: readonly Node[],
  bodyResults: readonly Node[],
): { func: Func; captured: Node[] } {
  const nodes = reachable(bodyResults)
  // Values that an inner `grad` differentiates by must stay visible inside, not be hoisted as part of something larger.
  const variables = new Set(nodes.filter((node) => node.op === gradOp).flatMap((node) => gradParts(node).wrt))
  const inside = new Set<Node>(params)
  const hasData = new Set<Node>()
  for (const node of nodes) {
    if (node.inputs.some((x) => inside.has(x) || variables.has(x))) inside.add(node)
    if (node.op === inputOp || node.inputs.some((x) => hasData.has(x)) || node.op.flops(node) > 0)
      hasData.add(node)
  }
  const usedInside = new Set(nodes.filter((node) => inside.has(node)).flatMap((node) => node.inputs))
  // Index arithmetic and constants are cheaper to rebuild than to carry; everything else from outside is captured.
  const captured = nodes.filter(
    (node) =>
      !inside.has(node) &&
      hasData.has(node) &&
      node.types.length === 1 &&
      (bodyResults.includes(node) || variables.has(node) || usedInside.has(node)),
  )
  const scope = currentGraph().scope()
  const replacement = new Map(captured.map((node, i) => [node, input(scope, `captured${i}`, node.type)]))
  const results = substitute(bodyResults, replacement)
  const stray = reachable(results).find(
    (node) => node.op === inputOp && !params.includes(node) && node.attrs['scope'] !== scope,
  )
  if (stray) throw new InternalError(`${name}: ${String(stray.attrs['name'])} was not captured`)
  return { func: currentGraph().func(name, [...replacement.values(), ...params], results), captured }
}

const nodesOf = (tree: Tensors): Node[] => leaves<Tensor>(tree).map(([, tensor]) => tensor.node)

function fillTree(like: Tensors, nodes: readonly Node[]): Tensors {
  let i = 0
  return mapTree<Tensor, Tensor>(like, () => new Tensor(nodes[i++]!))
}

/** Fresh parameters shaped like a tree. */
function parameters(
  scope: number,
  like: Tensors,
  type: (tensor: Tensor) => ValueType = (t) => t.type,
): Tensors {
  return mapTree<Tensor, Tensor>(like, (tensor, path) => new Tensor(input(scope, path, type(tensor))))
}

/**
 * Loops over the leading axis of every leaf of `xs`, threading `carry`. The loop stays in the graph: compile time and
 * code size do not grow with its length.
 *
 * @returns the final carry and the body's per-iteration results stacked along a new leading axis.
 */
export function scan<C extends Tensors, X extends Tensors, Y extends Tensors>(
  carry: C,
  xs: X,
  body: (carry: C, x: X) => readonly [C, Y],
  { reverse = false, name = 'scan' }: { reverse?: boolean; name?: string } = {},
): [C, Y] {
  const slices = leaves<Tensor>(xs)
  const length = slices[0]?.[1].shape[0]
  if (length === undefined)
    throw typeError('scan', 'no sliced input', 'at least one tensor to loop over', 'pass an iota')
  const axis: AxisName = slices[0]![1].axes[0] ?? null
  const scope = currentGraph().scope()
  const carryParams = parameters(scope, carry)
  const xParams = mapTree<Tensor, Tensor>(xs, (t, path) => {
    if (t.shape[0] !== length)
      throw typeError('scan', `${t} at '${path}'`, `leading extent ${length}`, 'stack it to the same length')
    return new Tensor(input(scope, `x:${path}`, valueType(t.dtype, t.shape.slice(1), t.axes.slice(1))))
  })
  const [next, ys] = body(carryParams as C, xParams as X)
  const carries = nodesOf(next)
  const params = [...nodesOf(carryParams), ...nodesOf(xParams)]
  const { func, captured } = close(name, params, [...carries, ...nodesOf(ys)])
  const node = scanNode([...captured, ...nodesOf(carry), ...nodesOf(xs)], {
    body: func,
    length,
    numConstants: captured.length,
    numCarries: carries.length,
    reverse,
    axis,
  })
  const outputs = node.types.map((_, i) => get(node, i))
  return [fillTree(next, outputs) as C, fillTree(ys, outputs.slice(carries.length)) as Y]
}

/**
 * Marks a region whose intermediate values are not kept for the backward pass but computed again (Chen et al.,
 * Training Deep Nets with Sublinear Memory Cost). The `recompute` compile option decides whether the mark is honoured.
 */
export function checkpoint<A extends Tensors, R extends Tensors>(body: (args: A) => R, args: A): R {
  const scope = currentGraph().scope()
  const params = parameters(scope, args)
  const result = body(params as A)
  const { func, captured } = close('checkpoint', nodesOf(params), nodesOf(result))
  const node = call('checkpoint', [...captured, ...nodesOf(args)], {}, func, null)
  return fillTree(
    result,
    node.types.map((_, i) => get(node, i)),
  ) as R
}

/** Gradient of a scalar with respect to every leaf of `wrt`. */
export function grad<W extends Tensors>(loss: Tensor, wrt: W): W {
  const node = gradNode(loss.node, nodesOf(wrt))
  return fillTree(
    wrt,
    node.types.map((_, i) => get(node, i)),
  ) as W
}

/** Traces a function of a tree of inputs; parameters and results carry their paths. */
export interface Traced {
  readonly func: Func
  readonly inputPaths: readonly string[]
  readonly outputPaths: readonly string[]
}

export function traceFunction(
  name: string,
  types: Tree<ValueType>,
  body: (inputs: Tensors) => Tensors,
): Traced {
  const scope = currentGraph().scope()
  const inputs = mapTree<ValueType, Tensor>(types, (type, path) => new Tensor(input(scope, path, type)))
  const outputs = body(inputs)
  const named = leaves<Tensor>(inputs)
  const results = leaves<Tensor>(outputs)
  for (const [path, tensor] of results) {
    if (!(tensor instanceof Tensor))
      throw typeError(name, `${typeof tensor} as output '${path}'`, 'a tensor', 'return tensors only')
  }
  return {
    func: currentGraph().func(
      name,
      named.map(([, tensor]) => tensor.node),
      results.map(([, tensor]) => tensor.node),
    ),
    inputPaths: named.map(([path]) => path),
    outputPaths: results.map(([path]) => path),
  }
}
