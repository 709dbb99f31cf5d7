/**
 * What a collective costs: bytes that each rank sends and seconds, by level of links. A group that lies on several nodes
 * works level by level: an all-reduce scatters inside the node, reduces the shards across nodes, and gathers inside the
 * node, so the slow level carries only a shard. The sum of bytes is that of one flat ring, 2 (d - 1) / d of the value for
 * an all-reduce over d ranks, whatever the levels.
 * `bytes` is always the size of the whole value: what is reduced, the gathered result, the input that is scattered, what
 * one rank holds before an all-to-all or hands on in a shift.
 */
import type { LinkLevel } from '../hardware/index.ts'

/** `shift`: each rank of a ring sends to the next, as ring attention does. */
export type CollectiveKind = 'allReduce' | 'allGather' | 'reduceScatter' | 'allToAll' | 'shift'

/** A ring takes as many steps as there are other ranks, a tree as many as its depth; the bytes are the same. */
export type Algorithm = 'ring' | 'tree'

export interface LevelCost {
  /** Index into the levels of links. */
  readonly level: number
  /** Sent by each rank over this level; the mean where ranks differ (shifts across a boundary). */
  readonly sentBytes: number
  readonly seconds: number
}

export interface CollectiveCost {
  readonly levels: readonly LevelCost[]
  readonly seconds: number
}

/**
 * @param shape Ranks of the group at each level, innermost first: 4 ranks on each of 2 nodes are [4, 2].
 * @param calls Into how many collectives the bytes are cut, one after the other.
 * @param delays For each level, by what a byte takes longer than on the maker's link with a port for each rank.
 */
export function collectiveCost(
  kind: CollectiveKind,
  bytes: number,
  shape: readonly number[],
  links: readonly LinkLevel[],
  {
    algorithm = 'ring',
    delays = [],
    calls = 1,
  }: { algorithm?: Algorithm; delays?: readonly number[]; calls?: number } = {},
): CollectiveCost {
  const size = shape.reduce((product, n) => product * n, 1)
  const costs: LevelCost[] = []
  let inside = 1
  for (const [level, n] of shape.entries()) {
    if (n > 1) {
      const { sentBytes, steps } = share(kind, bytes, n, inside, size, algorithm)
      const { latency, bandwidth, achieved } = links[level]!
      // In a shift the rank at the edge of a node sends everything over the slow level, though the mean is less.
      const carried = kind === 'shift' ? bytes : sentBytes
      const seconds = calls * steps * latency + (carried * (delays[level] ?? 1)) / (bandwidth * achieved)
      costs.push({ level, sentBytes, seconds })
    }
    inside *= n
  }
  // Levels follow each other in reductions and gathers; messages from each rank to another travel on all at once.
  const atOnce = kind === 'allToAll' || kind === 'shift'
  const seconds = costs.map((cost) => cost.seconds)
  return {
    levels: costs,
    seconds: atOnce ? Math.max(0, ...seconds) : seconds.reduce((sum, value) => sum + value, 0),
  }
}

/** At a level with `n` blocks that hold `inside` ranks of the group each. */
function share(
  kind: CollectiveKind,
  bytes: number,
  n: number,
  inside: number,
  size: number,
  algorithm: Algorithm,
): { readonly sentBytes: number; readonly steps: number } {
  const steps = algorithm === 'ring' ? n - 1 : Math.ceil(Math.log2(n))
  const shard = bytes / inside
  switch (kind) {
    case 'allReduce':
      return { sentBytes: (2 * (n - 1) * shard) / n, steps: 2 * steps }
    case 'allGather':
    case 'reduceScatter':
      return { sentBytes: ((n - 1) * shard) / n, steps }
    case 'allToAll':
      return { sentBytes: ((n - 1) * inside * bytes) / size, steps: 1 }
    case 'shift': {
      // One rank of each block crosses to the next block; those that stay inside were counted a level further in.
      const blocks = size / (n * inside)
      const ring = (n * inside - (blocks > 1 ? 1 : 0)) / (n * inside)
      const within = inside === 1 ? 0 : (inside - 1) / inside
      return { sentBytes: bytes * (ring - within), steps: 1 }
    }
  }
}

/** The shape of a group: its ranks at each level, or all at the level that reaches all where nodes hold unequal parts. */
export function groupShape(ranks: readonly number[], links: readonly LinkLevel[]): number[] {
  const blocks = links.map(({ reach }) => {
    const counts = new Map<number, number>()
    for (const rank of ranks) {
      const block = reach === Infinity ? 0 : Math.floor(rank / reach)
      counts.set(block, (counts.get(block) ?? 0) + 1)
    }
    return [...counts.values()]
  })
  const isEven = blocks.every((counts) => counts.every((count) => count === counts[0]))
  const outermost = blocks.findIndex((counts) => counts.length === 1)
  if (!isEven) return links.map((_, level) => (level === outermost ? ranks.length : 1))
  return blocks.map((counts, level) => counts[0]! / (level === 0 ? 1 : blocks[level - 1]![0]!))
}
