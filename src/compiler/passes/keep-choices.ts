/**
 * The choices that the loops of a program leave: which values each loop may keep for its backward loop, what that takes,
 * and what computing the rest again costs. From `keepFrontier`, for all loops together.
 */
import type { Func, Node } from '../graph/node.ts'
import { reachable } from '../graph/node.ts'
import { bytesOf, sizeOf } from '../graph/types.ts'
import { inputOp } from '../ops/input.ts'
import { scanAttrs } from '../ops/scan.ts'
import { freeValues, loopPairs, stackBytes, type Keeping, type LoopPair } from './keep.ts'
import { keepFrontier, unbeaten, type Choosable } from './keep-frontier.ts'

/** What work takes, for weighing one value against another. */
export interface Rates {
  /** Of products and of composites with a kernel of their own. */
  readonly productFlops: number
  /** Of everything else, a second; an element that takes no arithmetic counts as one operation. */
  readonly otherOperations: number
}

/** Two cores of a server, roughly: only the ratio of the two counts for what is chosen. */
export const usualRates: Rates = { productFlops: 250e9, otherOperations: 10e9 }

export interface Choice {
  /** Bytes of all stacks that can be chosen about. */
  readonly bytes: number
  /** FLOPs done again. */
  readonly flops: number
  /** Estimated seconds of what is done again. */
  readonly cost: number
  readonly keeping: Keeping
}

export interface Choices {
  /** From the most bytes to the fewest; none is beaten by another in bytes and cost. */
  readonly list: readonly Choice[]
  /** No better choice exists under the cost model. */
  readonly optimal: boolean
}

/** Everything that may be chosen about one pair, in order. */
export interface PairValues {
  readonly nodes: readonly Node[]
  readonly values: readonly Choosable[]
  readonly wanted: readonly number[]
}

/** Values of the forward body from which those that are stacked follow. */
export function pairValues(pair: LoopPair, rates: Rates = usualRates): PairValues {
  const free = freeValues(pair)
  const steps = stepsOf(pair)
  const found = pair.stacks.map(({ value }) => value).filter((value) => !free.has(value))
  const nodes = reachable(found).filter((node) => !free.has(node))
  const place = new Map(nodes.map((node, i) => [node, i]))
  const values = nodes.map((node): Choosable => {
    const bytes = node.types.length === 1 && !isMere(node) ? stackBytes(pair, node) : undefined
    // What came from another rank is not asked for twice: whoever sends would have to send again.
    const given = node.op === inputOp || node.op.kind === 'collective'
    const cost = given ? undefined : steps * secondsOf(node, rates)
    const inputs = node.inputs.flatMap((x) => place.get(x) ?? [])
    return { bytes, cost, inputs }
  })
  return { nodes, values, wanted: found.map((node) => place.get(node)!) }
}

/** Steps of its loops in a run of the program. */
const stepsOf = ({ forward, times }: LoopPair): number => times * scanAttrs(forward).length

/** A move that makes nothing smaller: what it moves is kept instead. */
const isMere = (node: Node): boolean =>
  node.op.kind === 'movement' && bytesOf(node.type) >= bytesOf(node.inputs[0]!.types[0]!)

function secondsOf(node: Node, rates: Rates): number {
  if (node.op.kind === 'movement' || node.op.name === 'get') return 0
  const flops = node.op.flops(node)
  if (node.op.kind === 'product' || node.op.kind === 'structure') return flops / rates.productFlops
  return Math.max(flops, sizeOf(node.type.shape)) / rates.otherOperations
}

export function choicesOf(func: Func, rates: Rates = usualRates): Choices {
  let optimal = true
  let list: Choice[] = [{ bytes: 0, flops: 0, cost: 0, keeping: new Map() }]
  for (const pair of loopPairs(func)) {
    const { nodes, values, wanted } = pairValues(pair, rates)
    const frontier = keepFrontier(values, wanted)
    optimal &&= frontier.optimal
    const own = frontier.points.map(({ bytes, cost, kept }) => {
      const set = new Set(kept.map((i) => nodes[i]!))
      return { bytes, cost, set, flops: flopsAgain(pair, set) }
    })
    list = unbeaten(
      list.flatMap((one) =>
        own.map(({ bytes, cost, flops, set }) => ({
          bytes: one.bytes + bytes,
          cost: one.cost + cost,
          flops: one.flops + flops,
          keeping: new Map([...one.keeping, [pair, set]]),
        })),
      ),
    )
  }
  return { list, optimal }
}

/** FLOPs of a step's recomputation, over all steps. */
export function flopsAgain(pair: LoopPair, kept: ReadonlySet<Node>): number {
  const free = freeValues(pair)
  const again = new Set<Node>()
  const visit = (node: Node): void => {
    if (kept.has(node) || free.has(node) || again.has(node)) return
    again.add(node)
    node.inputs.forEach(visit)
  }
  for (const { value } of pair.stacks) visit(value)
  return stepsOf(pair) * [...again].reduce((sum, node) => sum + node.op.flops(node), 0)
}
