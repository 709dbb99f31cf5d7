/**
 * What several ranks hold alike must be the same bits on all of them; where it is not, a core, memory or a cable is
 * broken, or a rank read other data. Ranks compare hashes, and whoever is alone in a group is named.
 */
import { coordinate, type Layout, type Mesh } from './graph/mesh.ts'

/** Ranks whose part of a value differs from that of most ranks with the same part; all of them where there is no majority. */
export function strangers(
  mesh: Mesh,
  layout: Layout,
  ranks: readonly number[],
  hashOf: (rank: number) => bigint,
): number[] {
  const cut = layout.dims.flat()
  const replicas = Map.groupBy(ranks, (rank) => cut.map((axis) => coordinate(mesh, axis, rank)).join())
  return [...replicas.values()].flatMap((ranks) => {
    const camps = [...Map.groupBy(ranks, (rank) => hashOf(rank)).values()].toSorted(
      (a, b) => b.length - a.length,
    )
    if (camps.length === 1) return []
    const tied = camps[0]!.length === camps[1]!.length
    return (tied ? camps : camps.slice(1)).flat()
  })
}
