/**
 * A parallel plan in the user's words, and what it means for the compiler: where every parameter, optimizer state and
 * input lies on the mesh, and where sums go. All the techniques that cut one program are these few rules; models name
 * their dimensions and know no more.
 *
 * - `data`: the batch is cut; gradients are summed over it.
 * - `zero`: 1 cuts optimizer state over `data`, 2 gradients as well, 3 parameters as well (Rajbhandari et al., ZeRO).
 * - `tensor`: heads, hidden units and the vocabulary are cut (Shoeybi et al., Megatron-LM). With `sequence`, what lies
 *   between those products is cut along time over the same axis (Korthikanti et al.).
 * - `context`: time is cut everywhere; attention sees the keys of other ranks in the way `attention` names.
 * - `expert`: experts are cut, and the batch once more.
 * - `replicas`: what `data` cuts is an axis of that name instead of the batch: ranks that have state of their own.
 */
import { alsoCut, groupOf, groupSize, whole, type Layout, type Mesh } from '../compiler/graph/mesh.ts'
import type { ValueType } from '../compiler/graph/types.ts'
import { namedCuts, type InputPlace } from '../compiler/passes/partition.ts'
import type { Placement } from '../compiler/passes/layouts.ts'
import type { Parallel } from '../compiler/ranked.ts'

export interface Plan {
  readonly mesh: Mesh
  readonly zero: 0 | 1 | 2 | 3
  readonly sequence: boolean
  readonly attention: Placement['context']
  readonly replicas?: boolean
}

/** Which named dimensions which mesh axes cut. */
const cutBy: Readonly<Record<string, readonly string[]>> = {
  data: ['batch'],
  expert: ['batch', 'expert'],
  context: ['time'],
  tensor: ['vocab', 'q', 'k', 'v', 'kv', 'hidden', 'inner'],
}

/** The plan as the partition pass takes it. */
export function placementOf(plan: Plan): Placement {
  const { mesh, zero, sequence, attention, replicas = false } = plan
  const named: Record<string, string[]> = {}
  const cuts = replicas ? { ...cutBy, data: ['replica'] } : cutBy
  for (const { name } of mesh) for (const dim of cuts[name] ?? []) named[dim] = [...(named[dim] ?? []), name]
  const placement: Placement = {
    mesh,
    weightAxes: ['tensor', 'expert'],
    named,
    context: attention,
    boundary(type) {
      const layout = namedCuts(placement, type, whole(type.shape.length))
      const dim = mesh.some(({ name }) => name === 'tensor') ? placement.settle(type, layout, 'tensor') : null
      return dim === null ? layout : alsoCut(layout, dim, 'tensor')
    },
    settle(type, layout, axis) {
      if (axis === 'data' && zero > 0) return storageDim(plan, type, layout)
      // The residual stream, and nothing else that happens to have a time.
      if (axis !== 'tensor' || !sequence || !type.axes.includes('embed')) return null
      const time = type.axes.indexOf('time')
      return time >= 0 && fits(mesh, type, layout, time, axis) ? time : null
    },
    inLoop: (axis) => axis === 'data' && zero >= 2,
  }
  return placement
}

/** Where an input of a training program lies; results under the same path lie there, too. */
export function placeOf(plan: Plan, path: string, type: ValueType): InputPlace {
  const weight = path.startsWith('state.')
  const placement = placementOf(plan)
  // Time is cut where activations are; a table of positions stays whole.
  const { time: _, ...named } = placement.named
  const layout = namedCuts(weight ? { ...placement, named } : placement, type, whole(type.shape.length))
  const stage = path.startsWith('state.optim.') ? 1 : path.startsWith('state.params.') ? 3 : Infinity
  if (plan.zero < stage || !plan.mesh.some(({ name }) => name === 'data')) return { layout, weight }
  const dim = storageDim(plan, type, layout)
  return { layout: dim === null ? layout : alsoCut(layout, dim, 'data'), weight }
}

/**
 * The dimension over which ZeRO cuts a parameter, its gradient and its optimizer state. Layers, if they divide, while
 * nothing has to be cut within the loop over them: then whole matrices stay together, as Muon wants them.
 */
function storageDim({ mesh, zero }: Plan, type: ValueType, layout: Layout): number | null {
  const dims = type.shape.map((_, i) => i).filter((i) => fits(mesh, type, layout, i, 'data'))
  const stacked = dims.find((i) => type.axes[i] === 'layer')
  if (zero === 1 && stacked !== undefined) return stacked
  return dims.find((i) => type.axes[i] !== 'layer') ?? null
}

const fits = (mesh: Mesh, type: ValueType, { dims }: Layout, dim: number, axis: string): boolean =>
  dims[dim]!.length === 0 && type.shape[dim]! > 1 && type.shape[dim]! % groupSize(groupOf(mesh, [axis])) === 0

/** What `compile` takes to make a program of ranks out of one for a single device. */
export const parallelOf = (plan: Plan): Parallel => ({
  placement: placementOf(plan),
  placeOf: (path, type) => placeOf(plan, path, type),
})
