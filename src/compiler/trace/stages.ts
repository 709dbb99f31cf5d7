/**
 * A forward pass cut into pipeline stages. Somewhere in it is a loop over layers; each stage takes a range of those layers, the
 * first also what comes before the loop, the last what comes after. What crosses from stage to stage is what the loop
 * carries, and what it has returned for each layer so far, such as the load of experts. Values that a stage needs and that do not come out of the loop, such as positions, are computed again from
 * the inputs.
 */
import { InternalError, failure } from '../../errors.ts'
import { currentGraph, onBehalfOf, reachable, type Node } from '../graph/node.ts'
import { valueType, type ValueType } from '../graph/types.ts'
import { concat } from '../ops/concat.ts'
import { get, getOp } from '../ops/get.ts'
import { inputOp } from '../ops/input.ts'
import { scan, scanAttrs, scanOp } from '../ops/scan.ts'
import { slice } from '../ops/slice.ts'
import { traceFunction, type Tensors } from './functions.ts'
import type { Tensor } from './tensor.ts'
import type { Tree } from './tree.ts'

export interface Stages {
  readonly count: number
  /** Layers in each stage. */
  readonly layers: number
  /** What a stage is given by the one before it. */
  carries(stage: number): readonly ValueType[]
  /** Paths of inputs that a stage reads; `stacked` ones it needs its own layers of only. */
  reads(stage: number): readonly { readonly path: string; readonly stacked: boolean }[]
  /** What the first stage begins with: what it makes of its inputs before its loop. */
  begin(inputs: ReadonlyMap<string, Node>): readonly Node[]
  /** What a stage makes of its inputs and of what was carried to it: what it carries on, or the results. */
  run(stage: number, inputs: ReadonlyMap<string, Node>, carried: readonly Node[]): readonly Node[]
}

/**
 * Traces `body`, a forward pass with its results in order, in the current graph and cuts it.
 *
 * @throws UserError where there is no loop that can be cut so.
 */
export function cutStages(
  types: Tree<ValueType>,
  body: (inputs: Tensors) => readonly Tensor[],
  count: number,
): Stages {
  const { func, inputPaths } = traceFunction('forward', types, (inputs) =>
    Object.fromEntries(body(inputs).map((result, i) => [`result${i}`, result])),
  )
  const paths = new Map(func.params.map((param, i) => [param, inputPaths[i]!]))
  const loops = reachable(func.results).filter((node) => node.op === scanOp)
  const loop = loops.toSorted((a, b) => b.op.flops(b) - a.op.flops(a))[0]
  const problem = !loop
    ? 'a model without a loop over layers'
    : scanAttrs(loop).length % count !== 0
      ? `${scanAttrs(loop).length} layers`
      : null
  if (!loop || problem) {
    throw failure({
      where: 'pipeline',
      got: problem!,
      expected: `layers that divide into ${count} stages`,
      fix: 'choose another number of layers or stages',
    })
  }
  const attrs = scanAttrs(loop)
  const { numConstants, numCarries } = attrs
  const layers = attrs.length / count
  const constants = loop.inputs.slice(0, numConstants)
  const starts = loop.inputs.slice(numConstants, numConstants + numCarries)
  const sliced = loop.inputs.slice(numConstants + numCarries)
  const last = count - 1

  /** Roots rebuilt with some nodes replaced, without looking behind those. */
  const rebuilt = (roots: readonly Node[], known: Map<Node, Node>): Node[] => {
    const visit = (node: Node): Node => {
      const made = known.get(node)
      if (made) return made
      if (node.op === inputOp)
        throw new InternalError(`pipeline: ${paths.get(node)!} was not given to its stage`)
      const inputs = node.inputs.map(visit)
      const next = onBehalfOf(node, () => currentGraph().intern(node.op, inputs, node.attrs))
      known.set(node, next)
      return next
    }
    return roots.map(visit)
  }
  const given = (inputs: ReadonlyMap<string, Node>): Map<Node, Node> =>
    new Map(
      [...paths].flatMap(([param, path]) => {
        const value = inputs.get(path)
        return value ? [[param, value] as const] : []
      }),
    )
  const inputsBehind = (roots: readonly Node[]): Set<Node> => {
    const seen = new Set<Node>()
    const stack = [...roots]
    for (let node = stack.pop(); node; node = stack.pop()) {
      if (seen.has(node) || node === loop) continue
      seen.add(node)
      stack.push(...node.inputs)
    }
    return new Set([...seen].filter((node) => node.op === inputOp))
  }

  return {
    count,
    layers,
    carries(stage) {
      const carried = starts.map(({ dtype, shape, axes }) => valueType(dtype, shape, axes))
      const stacked = loop.types.slice(numCarries)
      return [
        ...carried,
        ...(stage === 0 ? [] : stacked).map(({ dtype, shape, axes }) =>
          valueType(dtype, [stage * layers, ...shape.slice(1)], axes),
        ),
      ]
    },
    reads(stage) {
      const whole = inputsBehind([
        ...constants,
        ...(stage === 0 ? starts : []),
        ...sliced.filter((x) => x.op !== inputOp),
        ...(stage === last ? func.results : []),
      ])
      const stacked = new Set(sliced.filter((x) => x.op === inputOp))
      return func.params
        .filter((param) => whole.has(param) || stacked.has(param))
        .map((param) => ({ path: paths.get(param)!, stacked: stacked.has(param) }))
    },
    begin: (inputs) => rebuilt(starts, given(inputs)),
    run(stage, values, carried) {
      const known = given(values)
      const own = sliced.map((x) => {
        if (x.op === inputOp) return known.get(x)!
        const [all] = rebuilt([x], known) as [Node]
        const start = all.shape.map((_, axis) => (axis === 0 ? stage * layers : 0))
        return slice(all, start, [layers, ...all.shape.slice(1)])
      })
      const inputs = [...rebuilt(constants, known), ...carried.slice(0, numCarries), ...own]
      const part = scan(inputs, { ...attrs, length: layers })
      const results = part.types.map((_, i) => {
        const result = get(part, i)
        const before = i < numCarries ? undefined : carried[i]
        return before ? concat([before, result], 0) : result
      })
      if (stage !== last) return results
      for (const node of reachable(func.results)) {
        if (node.op === getOp && node.inputs[0] === loop)
          known.set(node, results[node.attrs['index'] as number]!)
      }
      return rebuilt(func.results, known)
    },
  }
}
