/** Choosing and grouping, as model code says it: the k largest elements, and rows that each meet the matrix of a group. */
import { groupedDot as groupedDotNode } from '../ops/grouped-dot.ts'
import { groupRank as groupRankNode } from '../ops/group-rank.ts'
import { topk as topkNode } from '../ops/topk.ts'
import { iota, Tensor, where } from './tensor.ts'

/** Where an i32 index along an axis of `extent` elements points: bool [..., extent]. */
export function oneHot(index: Tensor, extent: number, axis: string | null = null): Tensor {
  const shape = [...index.shape, extent]
  const axes = [...index.axes, axis]
  const each = index.reshape([...index.shape, 1], [...index.axes, null]).broadcastTo({ shape, axes })
  const counter = iota(extent, axis).reshape([...index.shape.map(() => 1), extent])
  return each.equal(counter.broadcastTo({ shape, axes }))
}

/** Elements of x [..., n] at an i32 index [..., k], as a sum with one term that is not zero: exact, and with a gradient. */
export function pick(x: Tensor, index: Tensor): Tensor {
  const n = x.size(-1)
  const hot = oneHot(index, n, x.axes.at(-1)!)
  const each = x.reshape([...x.shape.slice(0, -1), 1, n], [...x.axes.slice(0, -1), null, x.axes.at(-1)!])
  return where(hot, each.broadcastTo(hot.type), 0).sum(-1)
}

/** The k largest elements along the last axis, largest first, and where they are; of equal ones the lower index first. */
export function topk(x: Tensor, k: number): { readonly values: Tensor; readonly indices: Tensor } {
  const indices = new Tensor(topkNode(x.node, k))
  return { values: pick(x, indices), indices }
}

/** Every row of x [..., k] times the matrix of its group: `w` [groups, k, n], `group` i32 [...]. */
export const groupedDot = (x: Tensor, group: Tensor, w: Tensor): Tensor =>
  new Tensor(groupedDotNode(x.node, group.node, w.node, iota(w.size(0), w.axes[0]!).node))

/** How many earlier elements of `group`, in row-major order, have the same number. */
export const groupRank = (group: Tensor, groups: number): Tensor =>
  new Tensor(groupRankNode(group.node, groups))
