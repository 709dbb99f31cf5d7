/**
 * What the ranks of a partitioned program send, read from its graph before anything runs: every collective with the bytes
 * that one rank sends in a step, repetitions of loops counted. The bytes are those of ring algorithms, which no other
 * algorithm beats for long messages: 2 (n - 1) / n of a value that n ranks reduce, (n - 1) / n of one that they gather,
 * scatter or exchange. Messages between pipeline stages are counted where they are sent.
 */
import { groupSize } from '../compiler/graph/mesh.ts'
import { reachable, sourceOf, type Func, type Node } from '../compiler/graph/node.ts'
import { bytesOf } from '../compiler/graph/types.ts'
import { collectiveAttrs } from '../compiler/ops/collective.ts'
import { scanAttrs, scanOp } from '../compiler/ops/scan.ts'
import type { Partitioned } from '../compiler/ranked.ts'

export type TrafficKind = 'allReduce' | 'reduceScatter' | 'allGather' | 'allToAll' | 'shift' | 'send'

export interface TrafficEntry {
  readonly kind: TrafficKind
  /** Mesh axes it runs over. */
  readonly axes: readonly string[]
  readonly members: number
  /** How often a step comes by. */
  readonly calls: number
  /** Of the whole value, once: what is reduced or scattered, the gathered result, what one rank exchanges or hands on. */
  readonly bytes: number
  /** What one rank sends in a step, all calls together. */
  readonly sent: number
  /** `folder/file.ts:line:column` of the model code that caused it, or empty. */
  readonly source: string
}

/** Bytes that one of `members` ranks sends, as a share of the whole value. */
const share: Readonly<Record<TrafficKind, (members: number) => number>> = {
  allReduce: (n) => (2 * (n - 1)) / n,
  reduceScatter: (n) => (n - 1) / n,
  allGather: (n) => (n - 1) / n,
  allToAll: (n) => (n - 1) / n,
  shift: () => 1,
  send: () => 1,
}

/** Everything that one rank running this local program sends, in the order of the program. */
export function trafficOf(func: Func): TrafficEntry[] {
  const entries: TrafficEntry[] = []
  const walk = (nodes: readonly Node[], calls: number): void => {
    for (const node of nodes) {
      if (node.op === scanOp) {
        const { body, length } = scanAttrs(node)
        walk(reachable(body.results), calls * length)
      }
      const entry = trafficOfNode(node, calls)
      if (entry) entries.push(entry)
    }
  }
  walk(reachable(func.results), 1)
  return entries
}

/** What one collective sends; null for other nodes. */
export function trafficOfNode(node: Node, calls: number): TrafficEntry | null {
  const kind = node.op.name
  if (!isTraffic(kind)) return null
  const attrs = collectiveAttrs(node)
  const bytes = bytesOf(kind === 'allGather' ? node.type : node.inputs[0]!.type)
  const members = groupSize(attrs)
  const source = sourceOf(node)?.split('/').slice(-2).join('/') ?? ''
  return { kind, axes: attrs.axes, members, calls, bytes, sent: calls * bytes * share[kind](members), source }
}

const isTraffic = (name: string): name is TrafficKind => Object.hasOwn(share, name)

/** The traffic of each local program of a cut one, with the ranks that run it. */
export const trafficOfCut = ({
  parts,
}: Partitioned): { readonly ranks: readonly number[]; readonly traffic: readonly TrafficEntry[] }[] =>
  parts.map(({ ranks, func }) => ({ ranks, traffic: trafficOf(func) }))

/** Bytes sent over some axes, of some kinds. */
export const sentBytes = (
  traffic: readonly TrafficEntry[],
  wanted: (entry: TrafficEntry) => boolean = () => true,
): number => traffic.filter(wanted).reduce((sum, { sent }) => sum + sent, 0)
