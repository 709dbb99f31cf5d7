/**
 * Simulated ranks: local programs, interpreted in float64 for all ranks in step, so that collectives see the values of
 * every rank. Stages of a pipeline have programs of their own; each runs until it must wait for a message. The oracle
 * for every parallel plan: nothing here knows how values travel.
 */
import { InternalError } from '../../../errors.ts'
import { groupRanks } from '../../graph/mesh.ts'
import { reachable, type Func, type Node } from '../../graph/node.ts'
import type { Values } from '../../graph/op.ts'
import { sizeOf } from '../../graph/types.ts'
import { callOp } from '../../ops/call.ts'
import { getOp } from '../../ops/get.ts'
import { scanAttrs, scanOp } from '../../ops/scan.ts'
import { messageAttrs, receiveOp, sendOp } from '../../ops/send.ts'

/** One value on every rank that has it, by rank. */
export type Everywhere = readonly Values[]

/** A local program and the ranks that run it. */
export interface RankedFunc {
  readonly func: Func
  readonly ranks: readonly number[]
  /** Parameter values, [parameter][rank]. */
  readonly args: readonly Everywhere[]
}

/** Runs all programs together; results of each, [program][result][rank]. */
export function interpretRanks(programs: readonly RankedFunc[]): Everywhere[][] {
  const mail = new Map<string, Values>()
  const runs = programs.map((program) => steps(program, mail))
  const results: Everywhere[][] = []
  for (let waiting = runs.length; waiting > 0;) {
    let moved = false
    for (const [i, run] of runs.entries()) {
      if (results[i]) continue
      const next = run.next()
      moved ||= next.value !== 'waits'
      if (!next.done) continue
      results[i] = next.value
      waiting--
    }
    if (!moved) throw new InternalError('the stages of the pipeline wait for one another')
  }
  return results
}

/** Yields whenever a message that is needed has not come, and at each that is sent or has come. */
function* steps(
  { func, ranks, args }: RankedFunc,
  mail: Map<string, Values>,
): Generator<'waits' | 'moved', Everywhere[]> {
  const values = new Map<Node, readonly Everywhere[]>()
  func.params.forEach((param, i) => values.set(param, [args[i]!]))
  for (const node of reachable(func.results)) {
    if (values.has(node)) continue
    if (node.op === sendOp || node.op === receiveOp) {
      const address = (rank: number, peer: number): string =>
        `${messageAttrs(node).channel}: ${rank} to ${peer}`
      const peerOf = (rank: number): number => groupRanks(messageAttrs(node), rank)[messageAttrs(node).peer]!
      const result: Values[] = []
      if (node.op === sendOp) {
        const [x] = values.get(node.inputs[0]!)!
        for (const rank of ranks) {
          mail.set(address(rank, peerOf(rank)), x![rank]!)
          result[rank] = new Float64Array(1)
        }
        yield 'moved'
      } else {
        for (const rank of ranks) {
          const name = address(peerOf(rank), rank)
          while (!mail.has(name)) yield 'waits'
          yield 'moved'
          result[rank] = mail.get(name)!
          mail.delete(name)
        }
      }
      values.set(node, [result])
    } else values.set(node, resultsOf(node, values, ranks))
  }
  return func.results.map((result) => values.get(result)![0]!)
}

/** Results of a function without messages on every rank. */
function interpretAll(func: Func, args: readonly Everywhere[], ranks: readonly number[]): Everywhere[] {
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
  ranks: readonly number[],
): readonly Everywhere[] {
  if (node.op === getOp) return [values.get(node.inputs[0]!)![node.attrs['index'] as number]!]
  const inputs = node.inputs.map((x) => values.get(x)![0]!)
  if (node.op === callOp) return interpretAll(node.attrs['body'] as Func, inputs, ranks)
  if (node.op === scanOp) return scanRanks(node, inputs, ranks)
  if (node.op.across) return [node.op.across(node, inputs, ranks)]
  const result: Values[] = []
  for (const rank of ranks) {
    result[rank] = node.op.reference!(
      node,
      inputs.map((x) => x[rank]!),
    )
  }
  return [result]
}

function scanRanks(node: Node, inputs: readonly Everywhere[], ranks: readonly number[]): Everywhere[] {
  const { body, length, numConstants, numCarries, reverse } = scanAttrs(node)
  const numFixed = numConstants + numCarries
  let carries = inputs.slice(numConstants, numFixed)
  const everywhere = (make: (rank: number) => Values): Values[] => {
    const list: Values[] = []
    for (const rank of ranks) list[rank] = make(rank)
    return list
  }
  const ys = node.types
    .slice(numCarries)
    .map((type) => everywhere(() => new Float64Array(sizeOf(type.shape))))
  for (let step = 0; step < length; step++) {
    const at = reverse ? length - 1 - step : step
    const slices = inputs.slice(numFixed).map((x) =>
      everywhere((rank) => {
        const part = x[rank]!.length / length
        return x[rank]!.subarray(part * at, part * (at + 1))
      }),
    )
    const results = interpretAll(body, [...inputs.slice(0, numConstants), ...carries, ...slices], ranks)
    carries = results.slice(0, numCarries)
    results
      .slice(numCarries)
      .forEach((y, i) => ranks.forEach((rank) => ys[i]![rank]!.set(y[rank]!, y[rank]!.length * at)))
  }
  return [...carries, ...ys]
}
