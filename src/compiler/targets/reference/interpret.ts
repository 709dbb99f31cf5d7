/**
 * The reference target: a plain float64 interpreter of the graph, one node at a time, straight from each op's own
 * `reference`. It is slow and simple on purpose: it is the oracle every other target is compared with.
 */
import { reachable, type Func, type Node } from '../../graph/node.ts'
import type { Values } from '../../graph/op.ts'
import { sizeOf } from '../../graph/types.ts'
import { callOp } from '../../ops/call.ts'
import { getOp } from '../../ops/get.ts'
import { scanAttrs, scanOp } from '../../ops/scan.ts'

/** Sees every operation of a run: its node and the values that go in. */
export type Watch = (node: Node, inputs: readonly Values[]) => void

/** Results of a function for given parameter values, in row-major order. */
export function interpret(func: Func, args: readonly Values[], watch?: Watch): Values[] {
  const values = new Map<Node, readonly Values[]>()
  func.params.forEach((param, i) => values.set(param, [args[i]!]))
  for (const node of reachable(func.results)) {
    if (values.has(node)) continue
    if (node.op === getOp) {
      values.set(node, [values.get(node.inputs[0]!)![node.attrs['index'] as number]!])
      continue
    }
    const inputs = node.inputs.map((x) => values.get(x)![0]!)
    if (node.op === callOp) values.set(node, interpret(node.attrs['body'] as Func, inputs, watch))
    else if (node.op === scanOp) values.set(node, interpretScan(node, inputs, watch))
    else {
      watch?.(node, inputs)
      values.set(node, [node.op.reference!(node, inputs)])
    }
  }
  return func.results.map((result) => values.get(result)![0]!)
}

function interpretScan(node: Node, inputs: readonly Values[], watch?: Watch): Values[] {
  const { body, length, numConstants, numCarries, reverse } = scanAttrs(node)
  const numFixed = numConstants + numCarries
  let carries = inputs.slice(numConstants, numFixed)
  const ys = node.types.slice(numCarries).map((type) => new Float64Array(sizeOf(type.shape)))
  for (let step = 0; step < length; step++) {
    const at = reverse ? length - 1 - step : step
    const slices = inputs
      .slice(numFixed)
      .map((x) => x.subarray((x.length / length) * at, (x.length / length) * (at + 1)))
    const results = interpret(body, [...inputs.slice(0, numConstants), ...carries, ...slices], watch)
    carries = results.slice(0, numCarries)
    results.slice(numCarries).forEach((y, i) => ys[i]!.set(y, y.length * at))
  }
  return [...carries, ...ys]
}
