/**
 * How composites are made: a body in tensor code, memoised per option and input type so that equal calls are one node,
 * and, where the derivative of the body is not what one wants to run, a gradient of its own.
 */
import { currentGraph, type Attrs, type Node } from '../graph/node.ts'
import { formatType, type ValueType } from '../graph/types.ts'
import { call } from '../ops/call.ts'
import { get } from '../ops/get.ts'
import { input } from '../ops/input.ts'
import { Tensor } from '../trace/tensor.ts'

export interface CompositeSample {
  readonly inputs: readonly ValueType[]
  readonly options?: Attrs
  readonly ranges?: readonly (readonly [number, number])[]
}

export interface Composite {
  readonly name: string
  readonly doc: string
  readonly body: (inputs: readonly Tensor[], options: Attrs) => readonly Tensor[]
  /** Cotangents of the inputs. Absent: the body is differentiated. */
  readonly gradient?: (node: Node, cotangents: readonly (Node | null)[]) => readonly (Node | null)[]
  /** FLOPs of the algorithm, where a kernel rightly does less than the body. */
  readonly flops?: (inputs: readonly ValueType[], options: Attrs) => number
  /** With `flops`: those that are multiply-adds of products that a model needs, none of them done before. */
  readonly products?: (inputs: readonly ValueType[], options: Attrs) => number
  readonly samples: () => readonly CompositeSample[]
}

/** Calls a composite; returns its results. */
export function invoke(composite: Composite, inputs: readonly Tensor[], options: Attrs = {}): Tensor[] {
  const graph = currentGraph()
  const types = inputs.map((x) => x.type)
  const key = `${composite.name}${JSON.stringify(options)}${types.map(formatType).join()}`
  const body = graph.memoFunc(key, () => {
    const scope = graph.scope()
    const params = types.map((type, i) => input(scope, `${composite.name}${i}`, type))
    const results = composite.body(
      params.map((param) => new Tensor(param)),
      options,
    )
    return graph.func(
      composite.name,
      params,
      results.map((result) => result.node),
    )
  })
  const flops = composite.flops?.(types, options) ?? null
  const node = call(
    composite.name,
    inputs.map((x) => x.node),
    options,
    body,
    flops,
  )
  return node.types.map((_, i) => new Tensor(get(node, i)))
}
