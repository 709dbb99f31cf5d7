/**
 * Simulated ranks: one local program, interpreted in float64 for all ranks in step, so that collectives see the values
 * of every rank. The oracle for every parallel plan: nothing here knows how values travel.
 */
import { reachable, type Func, type Node } from '../../graph/node.ts'
import type { Values } from '../../graph/op.ts'
import { sizeOf } from '../../graph/types.ts'
import { callOp } from '../../ops/call.ts'
import { getOp } from '../../ops/get.ts'
import { scanAttrs, scanOp } from '../../ops/scan.ts'

/** One value on every rank. */
export type Everywhere = readonly Values[]

/** Results of a function on every rank, [result][rank], for parameter values [parameter][rank]. */
export function interpretRanks(func: Func, args: readonly Everywhere[], ranks: number): Everywhere[] {
  const values = new Map<Node, readonly Everywhere[]>()
  func.params.forEach((param, i) => values.set(param, [args[i]!]))
  for (const node of reachable(func.results)) {
    if (!values.has(node)) values.set(node, resultsOf(node, values, ranks))
  }
  return func.results.map((result) => values.get(result)![0]!)
}

function resultsOf(
  node: Node,
  values: ReadonlyMap<Node, readonly Everywhere[]>,
  ranks: number,
): readonly Everywhere[] {
  if (node.op === getOp) return [values.get(node.inputs[0]!)![node.attrs['index'] as number]!]
  const inputs = node.inputs.map((x) => values.get(x)![0]!)
  if (node.op === callOp) return interpretRanks(node.attrs['body'] as Func, inputs, ranks)
  if (node.op === scanOp) return scanRanks(node, inputs, ranks)
  if (node.op.across) return [node.op.across(node, inputs, ranks)]
  const one = (rank: number): Values =>
    node.op.reference!(
      node,
      inputs.map((x) => x[rank]!),
    )
  return [Array.from({ length: ranks }, (_, rank) => one(rank))]
}

function scanRanks(node: Node, inputs: readonly Everywhere[], ranks: number): Everywhere[] {
  const { body, length, numConstants, numCarries, reverse } = scanAttrs(node)
  const numFixed = numConstants + numCarries
  let carries = inputs.slice(numConstants, numFixed)
  const ys = node.types
    .slice(numCarries)
    .map((type) => Array.from({ length: ranks }, () => new Float64Array(sizeOf(type.shape))))
  for (let step = 0; step < length; step++) {
    const at = reverse ? length - 1 - step : step
    const slices = inputs
      .slice(numFixed)
      .map((x) =>
        x.map((value) => value.subarray((value.length / length) * at, (value.length / length) * (at + 1))),
      )
    const results = interpretRanks(body, [...inputs.slice(0, numConstants), ...carries, ...slices], ranks)
    carries = results.slice(0, numCarries)
    results
      .slice(numCarries)
      .forEach((y, i) => y.forEach((value, rank) => ys[i]![rank]!.set(value, value.length * at)))
  }
  return [...carries, ...ys]
}
