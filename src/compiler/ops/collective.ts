/**
 * What the collectives share. They are the only ops in which ranks see one another: each rank runs the same local
 * program, and a collective's meaning is given over the values of all ranks at once (`across`). Groups, not the whole
 * mesh, take part: the ranks that differ along the named mesh axes only.
 *
 * Sums are taken in a fixed binary tree over the members, so that they do not depend on how values travel. What a
 * collective adds up is counted as bytes, not as FLOPs. Gradients are the transposes of these linear maps over all ranks, the loss being the sum of what each rank computes.
 */
import type { Node } from '../graph/node.ts'
import type { Factors, Values } from '../graph/op.ts'
import { groupRanks, groupSize, piecesOfMember, type Combine, type Group } from '../graph/mesh.ts'
import { sizeOf, typeError, valueType, formatType, type ValueType } from '../graph/types.ts'

/** Attributes of every collective; `dim` where one dimension is cut or joined. */
export interface CollectiveAttrs extends Group {
  readonly combine?: Combine
  readonly dim?: number
  /** allToAll: the dimension that is cut, while `dim` is joined. */
  readonly split?: number
}

export const collectiveAttrs = (node: Node): CollectiveAttrs => node.attrs as unknown as CollectiveAttrs

/** Attributes as plain data, the group's among them. */
export const groupAttrs = ({ axes, steps, order }: Group): Record<string, never> =>
  ({ axes: [...axes], steps: steps.map((step) => [...step]), order }) as unknown as Record<string, never>

/** No dimension may be cut further: partition has happened. */
export const closedFactors = (node: Node): Factors => ({
  inputs: node.inputs.map((x) => x.shape.map(() => null)),
  results: [node.shape.map(() => null)],
})

/** The type with one dimension multiplied or divided. */
export function scaled(name: string, type: ValueType, dim: number, times: number): ValueType {
  const extent = type.shape[dim]
  if (extent === undefined || !Number.isInteger(extent * times)) {
    throw typeError(
      name,
      `${formatType(type)}, dimension ${dim}`,
      `a dimension that can be cut into ${Math.round(1 / times)} pieces`,
      'choose a mesh that divides it',
    )
  }
  return valueType(
    type.dtype,
    type.shape.map((n, i) => (i === dim ? n * times : n)),
    type.axes,
  )
}

/** Calls `body` with the values of each group; returns results by rank. */
export function byGroup(
  group: Group,
  values: readonly Values[],
  body: (members: readonly Values[], ranks: readonly number[]) => readonly Values[],
): Values[] {
  const out: Values[] = []
  // Where stages have programs of their own, the ranks of one stage only are here.
  for (let rank = 0; rank < values.length; rank++) {
    if (out[rank] || !values[rank]) continue
    const ranks = groupRanks(group, rank)
    const results = body(
      ranks.map((member) => values[member]!),
      ranks,
    )
    ranks.forEach((member, i) => (out[member] = results[i]!))
  }
  return out
}

/** Element by element over the members, neighbours first: ((0 1) (2 3)) ((4 5) (6 7)); an odd one out goes up as it is. */
export function combineTree(members: readonly Values[], combine: Combine): Values {
  if (members.length === 1) return members[0]!
  const next: Values[] = []
  for (let i = 0; i < members.length; i += 2) {
    const [a, b] = [members[i]!, members[i + 1]]
    next.push(b ? a.map((x, j) => (combine === 'sum' ? x + b[j]! : Math.max(x, b[j]!))) : a)
  }
  return combineTree(next, combine)
}

/** Positions along a cut dimension of the whole value that member `member` holds, in its own order. */
export function positionsOf(group: Group, member: number, extent: number): number[] {
  const { parts, own } = piecesOfMember(group.order, groupSize(group), member)
  const length = extent / parts
  return own.flatMap((part) => Array.from({ length }, (_, i) => part * length + i))
}

/** Rows (outer, position, inner) of a value along one dimension: copies `positions` of `x` into a new value. */
export function pick(x: Values, shape: readonly number[], dim: number, positions: readonly number[]): Values {
  const [outer, extent, inner] = around(shape, dim)
  const out = new Float64Array(outer * positions.length * inner)
  for (let o = 0; o < outer; o++) {
    positions.forEach((from, to) => {
      const at = (o * extent + from) * inner
      out.set(x.subarray(at, at + inner), (o * positions.length + to) * inner)
    })
  }
  return out
}

/** The inverse of `pick`: copies `x` to `positions` of `out`. */
export function place(
  x: Values,
  out: Values,
  shape: readonly number[],
  dim: number,
  positions: readonly number[],
): void {
  const [outer, extent, inner] = around(shape, dim)
  for (let o = 0; o < outer; o++) {
    positions.forEach((to, from) => {
      const at = (o * positions.length + from) * inner
      out.set(x.subarray(at, at + inner), (o * extent + to) * inner)
    })
  }
}

const around = (shape: readonly number[], dim: number): [number, number, number] => [
  sizeOf(shape.slice(0, dim)),
  shape[dim]!,
  sizeOf(shape.slice(dim + 1)),
]
