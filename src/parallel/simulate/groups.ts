/**
 * The groups that collectives run in. All ranks of a group come to its collectives in the same order, so the n-th that a
 * rank adds is the n-th of the group: the first rank to come adds the collective, the others join it.
 */
import { InternalError } from '../../errors.ts'
import { collectiveCost, groupShape, type CollectiveCost } from './collective-cost.ts'
import type { GroupCollective, PlanCosts } from './costs.ts'
import type { Collective } from './plan.ts'
import type { Ports } from './ports.ts'
import type { Symmetry } from './symmetry.ts'

export interface Groups {
  /** Names of the lanes that collectives run on; lane 0 is arithmetic. */
  readonly lanes: readonly string[]
  readonly collectives: readonly Collective[]
  /** The collective that a simulated rank comes to next over these axes: its index and lane. */
  join(rank: number, wanted: GroupCollective): { readonly collective: number; readonly lane: number }
}

interface Group {
  readonly lane: number
  readonly members: readonly number[]
  readonly shape: readonly number[]
  readonly delays: readonly number[]
  /** By level, both directions of all members' ports. */
  readonly links: readonly (readonly number[])[]
  readonly collectives: number[]
  /** For each member, how many it has joined. */
  readonly joined: Map<number, number>
  readonly costs: Map<string, CollectiveCost>
}

export function createGroups(costs: PlanCosts, symmetry: Symmetry, ports: Ports): Groups {
  const lanes = ['compute']
  const collectives: Collective[] = []
  /** By axes, then by rank; the same group for all its members. */
  const known = new Map<string, Map<number, Group>>()

  const groupOf = (rank: number, axes: readonly string[]): Group => {
    const lane = axes.join('+')
    let byRank = known.get(lane)
    if (!byRank) known.set(lane, (byRank = new Map()))
    let group = byRank.get(rank)
    if (!group) {
      if (!lanes.includes(lane)) lanes.push(lane)
      group = createGroup(costs, symmetry, ports, rank, axes, lanes.indexOf(lane))
      for (const member of group.members) byRank.set(member, group)
    }
    return group
  }
  const costIn = (group: Group, { kind, bytes, calls = 1 }: GroupCollective): CollectiveCost => {
    const key = `${kind} ${bytes} ${calls}`
    let cost = group.costs.get(key)
    if (!cost) {
      const { shape, delays } = group
      cost = collectiveCost(kind, bytes, shape, costs.links, {
        algorithm: costs.algorithm ?? 'ring',
        delays,
        calls,
      })
      group.costs.set(key, cost)
    }
    return cost
  }

  return {
    lanes,
    collectives,
    join(rank, wanted) {
      const group = groupOf(rank, wanted.axes)
      const turn = group.joined.get(rank)!
      group.joined.set(rank, turn + 1)
      if (turn === group.collectives.length) {
        const cost = costIn(group, wanted)
        group.collectives.push(collectives.length)
        collectives.push({
          kind: wanted.kind,
          label: `${wanted.kind} over ${lanes[group.lane]}`,
          parts: group.members.length,
          cost,
          links: cost.levels.map(({ level }) => group.links[level]!),
        })
      }
      return { collective: group.collectives[turn]!, lane: group.lane }
    },
  }
}

function createGroup(
  costs: PlanCosts,
  symmetry: Symmetry,
  ports: Ports,
  rank: number,
  names: readonly string[],
  lane: number,
): Group {
  const axes = names.map((name) => costs.axes.findIndex((axis) => axis.name === name))
  if (axes.includes(-1)) throw new InternalError(`no axis for a collective over ${names.join(', ')}`)
  const members = symmetry.group(rank, axes)
  return {
    lane,
    members,
    shape: groupShape(symmetry.realGroup(rank, axes), costs.links),
    delays: costs.links.map((_, level) => ports.delay(members, level)),
    links: costs.links.map((_, level) =>
      Array.from(
        new Set((['out', 'in'] as const).flatMap((way) => members.map((m) => ports.link(m, level, way)))),
      ),
    ),
    collectives: [],
    joined: new Map(members.map((member) => [member, 0])),
    costs: new Map(),
  }
}
