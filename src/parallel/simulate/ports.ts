/**
 * The ports through which simulated ranks reach their links. Ranks on one port share it; where one simulated rank stands
 * for several on a port, all of them use it at the same moment, so a byte of each takes as many times as long.
 */
import type { LinkLevel } from '../hardware/index.ts'
import type { Link } from './plan.ts'
import type { Symmetry } from './symmetry.ts'

export interface Ports {
  readonly links: readonly Link[]
  /** The innermost level that reaches from one simulated rank to another. */
  levelBetween(a: number, b: number): number
  /** Index of one direction of a rank's port. */
  link(rank: number, level: number, direction: 'out' | 'in'): number
  /** By what a byte takes longer for the slowest of these ranks: the load of its port, times what was injected. */
  delay(ranks: readonly number[], level: number): number
}

export function createPorts(
  symmetry: Symmetry,
  levels: readonly LinkLevel[],
  slow: readonly { readonly rank: number; readonly level: string; readonly factor: number }[],
): Ports {
  const { classes } = symmetry
  const total = classes.reduce((sum, { count }) => sum + count, 0)
  const links: Link[] = []
  const known = new Map<string, number>()
  const portOf = (rank: number, level: number): number =>
    Math.floor(classes[rank]!.rank / levels[level]!.ranksPerPort)
  /** How many of the ranks on its port a simulated rank stands for. */
  const loads = levels.map(({ ranksPerPort }, level) =>
    classes.map(({ count }, rank) => {
      if (count === 1 || ranksPerPort === 1) return 1
      const first = portOf(rank, level) * ranksPerPort
      return Array.from({ length: ranksPerPort }, (_, i) => first + i).filter(
        (real) => real < total && symmetry.classOf(real) === rank,
      ).length
    }),
  )
  const slowness = levels.map(({ name }, level) => {
    const byPort = new Map<number, number>()
    for (const { rank, level: slowLevel, factor } of slow) {
      if (slowLevel === name) byPort.set(portOf(symmetry.classOf(rank), level), factor)
    }
    return byPort
  })
  return {
    links,
    levelBetween: (a, b) =>
      levels.findIndex(
        ({ reach }) =>
          reach === Infinity || Math.floor(classes[a]!.rank / reach) === Math.floor(classes[b]!.rank / reach),
      ),
    link(rank, level, direction) {
      const port = portOf(rank, level)
      const key = `${level} ${port} ${direction}`
      const index = known.get(key)
      if (index !== undefined) return index
      known.set(key, links.length)
      links.push({ level, port, direction })
      return links.length - 1
    },
    delay(ranks, level) {
      const load = new Map<number, number>()
      for (const rank of ranks) {
        const port = portOf(rank, level)
        load.set(port, (load.get(port) ?? 0) + loads[level]![rank]!)
      }
      return Math.max(...[...load].map(([port, n]) => n * (slowness[level]!.get(port) ?? 1)))
    },
  }
}
