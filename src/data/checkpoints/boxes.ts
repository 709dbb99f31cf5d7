/**
 * Boxes: rectangular parts of an array, by which ranks say what they hold and files what they store. All that moving a
 * checkpoint from one parallel plan to another needs is here: where two boxes meet, what is left of one without the
 * other, and which contiguous runs of numbers they have in common. Offsets and counts are elements, row-major.
 */

/** The elements with `start[i] <= index[i] < start[i] + size[i]` on every axis; of a scalar, `[]` and `[]`. */
export interface Box {
  readonly start: readonly number[]
  readonly size: readonly number[]
}

/** All of an array. */
export const wholeBox = (shape: readonly number[]): Box => ({ start: shape.map(() => 0), size: [...shape] })

/** Number of elements. */
export const volume = ({ size }: Box): number => size.reduce((product, n) => product * n, 1)

/** Half-open ranges, as `[0:128,64:96]`. */
export const printBox = ({ start, size }: Box): string =>
  `[${start.map((at, axis) => `${at}:${at + size[axis]!}`).join(',')}]`

/** Whether a box is one of an array of that shape: as many axes, and nowhere outside. */
export const fits = ({ start, size }: Box, shape: readonly number[]): boolean =>
  start.length === shape.length &&
  size.length === shape.length &&
  shape.every((n, axis) => start[axis]! >= 0 && size[axis]! >= 0 && start[axis]! + size[axis]! <= n)

/** Whether every element of `inner` is in `outer`. */
export const contains = (outer: Box, inner: Box): boolean =>
  inner.start.every(
    (at, axis) =>
      at >= outer.start[axis]! && at + inner.size[axis]! <= outer.start[axis]! + outer.size[axis]!,
  )

/** The elements two boxes share; undefined when there are none. */
export function intersect(a: Box, b: Box): Box | undefined {
  const start = a.start.map((at, axis) => Math.max(at, b.start[axis]!))
  const size = start.map(
    (at, axis) => Math.min(a.start[axis]! + a.size[axis]!, b.start[axis]! + b.size[axis]!) - at,
  )
  return size.every((n) => n > 0) ? { start, size } : undefined
}

/** `a` without the elements of `b`, as disjoint boxes: what sticks out on each axis, below and above, in turn. */
export function subtract(a: Box, b: Box): Box[] {
  const common = intersect(a, b)
  if (!common) return [a]
  const rest: Box[] = []
  let { start, size } = a
  for (const [axis, from] of common.start.entries()) {
    const end = from + common.size[axis]!
    const below = from - start[axis]!
    const above = start[axis]! + size[axis]! - end
    if (below > 0) rest.push({ start, size: size.with(axis, below) })
    if (above > 0) rest.push({ start: start.with(axis, end), size: size.with(axis, above) })
    start = start.with(axis, from)
    size = size.with(axis, common.size[axis]!)
  }
  return rest
}

/** What keeps boxes from being a partition of an array, every element in exactly one: a phrase, or undefined. */
export function partitionProblem(boxes: readonly Box[], shape: readonly number[]): string | undefined {
  const stray = boxes.find((box) => !fits(box, shape))
  if (stray) return `${printBox(stray)}, which is no part of it`
  const filled = boxes.filter((box) => volume(box) > 0)
  // Ordered by the first axis, a box can meet only those that begin before it ends.
  const ordered = filled.toSorted((a, b) => (a.start[0] ?? 0) - (b.start[0] ?? 0))
  for (const [i, box] of ordered.entries()) {
    const end = (box.start[0] ?? 0) + (box.size[0] ?? 1)
    for (let j = i + 1; j < ordered.length && (ordered[j]!.start[0] ?? 0) < end; j++) {
      if (intersect(box, ordered[j]!)) return `${printBox(box)} and ${printBox(ordered[j]!)}, which overlap`
    }
  }
  const [stored, all] = [filled.reduce((sum, box) => sum + volume(box), 0), volume(wholeBox(shape))]
  return stored === all ? undefined : `${stored} of its ${all} elements`
}

/**
 * Calls `visit` for every run of elements of `common` that lie next to each other both in an array that holds the box
 * `from` and in one that holds `to`. `common` must be in both.
 */
export function forEachRun(
  from: Box,
  to: Box,
  common: Box,
  visit: (fromOffset: number, toOffset: number, count: number) => void,
): void {
  if (volume(common) === 0) return
  // Trailing axes that are whole in both arrays belong to one run, and the axis before them.
  let outer = common.size.length
  let count = 1
  while (outer > 0) {
    outer--
    const n = common.size[outer]!
    count *= n
    if (n !== from.size[outer]! || n !== to.size[outer]!) break
  }
  const [fromStrides, toStrides] = [strides(from.size), strides(to.size)]
  let [fromOffset, toOffset] = [offset(from, common, fromStrides), offset(to, common, toStrides)]
  const index = common.size.slice(0, outer).fill(0)
  for (;;) {
    visit(fromOffset, toOffset, count)
    let axis = outer - 1
    for (; axis >= 0; axis--) {
      fromOffset += fromStrides[axis]!
      toOffset += toStrides[axis]!
      if (++index[axis]! < common.size[axis]!) break
      fromOffset -= common.size[axis]! * fromStrides[axis]!
      toOffset -= common.size[axis]! * toStrides[axis]!
      index[axis] = 0
    }
    if (axis < 0) return
  }
}

/** Elements from one index to the next, on every axis. */
function strides(size: readonly number[]): number[] {
  const result = size.map(() => 1)
  for (let axis = size.length - 2; axis >= 0; axis--) result[axis] = result[axis + 1]! * size[axis + 1]!
  return result
}

/** Where the first element of `inner` lies in an array that holds `outer`. */
const offset = (outer: Box, inner: Box, step: readonly number[]): number =>
  inner.start.reduce((sum, at, axis) => sum + (at - outer.start[axis]!) * step[axis]!, 0)
