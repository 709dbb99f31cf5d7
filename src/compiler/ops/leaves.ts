/**
 * Sums in leaves. An op that sums over an axis may carry the attribute `leaves`: the summed index, whose first axis is
 * then cut into that many equal runs ("leaves"). Each leaf is summed by itself, and leaves are added pairwise,
 * neighbours first: ((l0 + l1) + (l2 + l3)) + …. A device that owns a run of leaves owns a subtree, so however the batch
 * is spread, the same additions are done (passes/leaves.ts says where the attribute comes from).
 *
 * The count is a power of two. 1 is not the same as none: it promises the additions of a leaf of a larger whole.
 */
import type { Node } from '../graph/node.ts'
import type { Values } from '../graph/op.ts'

/** How many leaves a sum is made of; undefined: it may be summed in any fixed order. */
export const leavesOf = (node: Node): number | undefined => node.attrs['leaves'] as number | undefined

/** The attribute, if there is one, to be spread into others. */
export const leavesAttr = (leaves: number | undefined): { leaves?: number } =>
  leaves === undefined ? {} : { leaves }

/**
 * The label (see `Factors`) of the axis that is cut into leaves: the first one summed. A part of that axis has its share
 * of the leaves; a part of any other axis has all of them.
 */
export function leafLabel(node: Node): string | undefined {
  if (leavesOf(node) === undefined) return undefined
  const [contracted] = (node.attrs['aContract'] as readonly number[] | undefined) ?? [0]
  return node.op.factors(node).inputs[0]![contracted!] ?? undefined
}

/** For `reference`: sums of [from, to) of `items`, leaf by leaf, added in the tree. */
export function sumInLeaves(node: Node, items: number, sumOf: (from: number, to: number) => Values): Values {
  const leaves = leavesOf(node) ?? 1
  let level = Array.from({ length: leaves }, (_, leaf) =>
    sumOf((items / leaves) * leaf, (items / leaves) * (leaf + 1)),
  )
  while (level.length > 1) {
    level = level.flatMap((left, i) => (i % 2 === 0 ? [left.map((x, j) => x + level[i + 1]![j]!)] : []))
  }
  return level[0]!
}
