/**
 * What several ranks hold alike must be the same bits on all of them; where it is not, a core, memory or a cable is
 * broken, or a rank read other data. Ranks compare hashes, and whoever is alone in a group is named.
 */
import { coordinate, type Layout, type Mesh } from './graph/mesh.ts'

/** `hashes`: of a value, by rank. Ranks whose part of it differs from that of most ranks with the same part; all of them where there is no majority. */
export function strangers(mesh: Mesh, layout: Layout, hashes: ReadonlyMap<number, bigint>): number[] {
  const cut = layout.dims.flat()
  const replicas = Map.groupBy(hashes.keys(), (rank) =>
    cut.map((axis) => coordinate(mesh, axis, rank)).join(),
  )
  return [...replicas.values()].flatMap((ranks) => {
    const camps = [...Map.groupBy(ranks, (rank) => hashes.get(rank)!).values()].toSorted(
      (a, b) => b.length - a.length,
    )
    if (camps.length === 1) return []
    const tied = camps[0]!.length === camps[1]!.length
    return (tied ? camps : camps.slice(1)).flat()
  })
}
