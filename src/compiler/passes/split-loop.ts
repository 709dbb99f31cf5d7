/**
 * One loop as two, where some of its results are not wanted until later: the first loop makes what is wanted now and
 * stacks, beside it, the values that the second one needs to make the rest. Nothing is calculated twice. For a pipeline
 * stage whose backward pass is split, the first loop carries the gradient of the stage's input from layer to layer and
 * stacks the cotangents of its products; the second makes the gradients of weights, each layer by itself.
 */
import { currentGraph, reachable, type Node } from '../graph/node.ts'
import { bytesOf, sizeOf } from '../graph/types.ts'
import { castOp } from '../ops/cast.ts'
import { get, getOp } from '../ops/get.ts'
import { input } from '../ops/input.ts'
import { scan, type ScanAttrs } from '../ops/scan.ts'
import { substitute } from '../trace/functions.ts'

export interface SplitLoop {
  readonly first: Node
  /** What was result `index` of the whole loop. */
  result(index: number): Node
}

/**
 * `late`: results that only the second loop needs to make. `attrs.body` belongs to the current graph. Null where nothing
 * that costs much would move.
 */
export function splitLoop(
  inputs: readonly Node[],
  attrs: ScanAttrs,
  late: ReadonlySet<number>,
): SplitLoop | null {
  const { body, numConstants, numCarries } = attrs
  const { params, results } = body
  const numFixed = numConstants + numCarries
  const now = neededFor(
    results.filter((_, i) => !late.has(i)),
    attrs,
  )
  const indices = results.map((_, i) => i)
  const moved = indices.filter((i) => late.has(i) && !now.has(results[i]!))
  const movedNodes = reachable(moved.map((i) => results[i]!)).filter((node) => isMoved(node, now))
  if (!movedNodes.some(({ op }) => op.kind === 'product' || (op.kind === 'structure' && op !== getOp))) {
    return null
  }

  // Values of the first loop that the second needs, and parameters of both.
  const crossing = crossingValues(movedNodes, now, params.slice(numConstants, numFixed))
  const isCarry = (param: Node, i: number): boolean =>
    i >= numConstants && i < numFixed && params[i] === param
  const stays = (i: number): boolean => !moved.includes(i)
  const firstResults = [
    ...indices.filter((i) => i < numCarries && stays(i)),
    ...indices.filter((i) => i >= numCarries && stays(i)),
  ]
  const firstRoots = [...firstResults.map((i) => results[i]!), ...crossing]
  const firstUses = new Set(reachable(firstRoots))
  const firstParams = params.filter((param, i) =>
    isCarry(param, i) ? stays(i - numConstants) : firstUses.has(param),
  )
  const graph = currentGraph()
  const loop = (
    name: string,
    own: readonly Node[],
    roots: readonly Node[],
    outer: readonly Node[],
    carries: number,
    constants: number,
  ): Node =>
    scan(outer, {
      ...attrs,
      body: graph.func(name, own, roots),
      numConstants: constants,
      numCarries: carries,
    })
  const outerOf = (param: Node): Node => inputs[params.indexOf(param)]!
  const constantsAmong = (list: readonly Node[]): number =>
    list.filter((param) => params.indexOf(param) < numConstants).length
  const first = loop(
    body.name,
    firstParams,
    firstRoots,
    firstParams.map(outerOf),
    firstResults.filter((i) => i < numCarries).length,
    constantsAmong(firstParams),
  )

  const scope = graph.scope()
  const secondRoots = moved.map((i) => results[i]!)
  const known = new Map(crossing.map((x, i) => [x, input(scope, `crossing${i}`, x.type)]))
  const secondUses = new Set(reachable(substitute(secondRoots, known)))
  const secondParams = params.filter((param, i) =>
    isCarry(param, i) ? moved.includes(i - numConstants) : secondUses.has(param),
  )
  const fresh = new Map(
    secondParams.map((param, i) => [param, input(scope, `${String(param.attrs['name'])}.${i}`, param.type)]),
  )
  const second = loop(
    `${body.name}Rest`,
    [...fresh.values(), ...known.values()],
    substitute(secondRoots, new Map([...known, ...fresh])),
    [...secondParams.map(outerOf), ...crossing.map((_, i) => get(first, firstResults.length + i))],
    moved.filter((i) => i < numCarries).length,
    constantsAmong(secondParams),
  )
  return {
    first,
    result: (index) =>
      moved.includes(index) ? get(second, moved.indexOf(index)) : get(first, firstResults.indexOf(index)),
  }
}

/** Everything in a loop's body that these results need, in this step or through carries. */
function neededFor(roots: readonly Node[], { body, numConstants, numCarries }: ScanAttrs): Set<Node> {
  const carries = new Map(
    body.params.slice(numConstants, numConstants + numCarries).map((param, i) => [param, body.results[i]!]),
  )
  const needed = new Set<Node>()
  const stack = [...roots]
  for (let node = stack.pop(); node; node = stack.pop()) {
    if (needed.has(node)) continue
    needed.add(node)
    stack.push(...node.inputs)
    const next = carries.get(node)
    if (next) stack.push(next)
  }
  return needed
}

/** A result of something that is made now is there now, whoever reads it. */
const isMoved = (node: Node, now: ReadonlySet<Node>): boolean =>
  !now.has(node) && node.inputs.length > 0 && !(node.op === getOp && now.has(node.inputs[0]!))

/** What has to be kept between the loops: values made now, but not what costs nothing to make again of fewer bytes. */
function crossingValues(
  moved: readonly Node[],
  now: ReadonlySet<Node>,
  carries: readonly Node[],
): readonly Node[] {
  const crossing = new Set<Node>()
  const visit = (x: Node): void => {
    if (isMoved(x, now) || crossing.has(x)) return
    if (x.inputs.length === 0) {
      if (carries.includes(x) && now.has(x)) crossing.add(x)
      return
    }
    const [source, ...others] = x.inputs as [Node, ...Node[]]
    const move = (x.op.kind === 'movement' || x.op === castOp) && others.length === 0
    if (move && sizeOf(source.shape) > 0 && bytesOf(source.type) <= bytesOf(x.type)) visit(source)
    else crossing.add(x)
  }
  for (const node of moved) node.inputs.forEach(visit)
  return [...crossing]
}
