/**
 * Many ranks as a grid with named axes, and how a value lies on it. `data=2 tensor=2` is a mesh of four ranks; rank
 * numbers count the last axis fastest. A layout says for each dimension over which mesh axes it is cut, and over which
 * mesh axes the ranks hold partial results that still have to be combined (Xu et al., GSPMD; Shardy's named axes).
 */
import { failure } from '../../errors.ts'
import { sizeOf } from './types.ts'

export interface MeshAxis {
  readonly name: string
  readonly size: number
  /**
   * How a dimension cut over this axis is shared out. `plain`: rank i of n has the i-th of n pieces. `zigzag`: it has
   * pieces i and 2n-1-i of 2n, which gives every rank the same share of a causal mask. A number v: it has pieces i,
   * i + n, i + 2n, … of v n, as the stages of an interleaved pipeline lie.
   */
  readonly order?: Order
}

export type Order = 'plain' | 'zigzag' | number

export type Mesh = readonly MeshAxis[]

export type Combine = 'sum' | 'max'

export interface Layout {
  /** For every dimension the mesh axes that cut it, the outermost cut first. */
  readonly dims: readonly (readonly string[])[]
  /** Mesh axes over which the ranks hold partial results. */
  readonly partial: Readonly<Record<string, Combine>>
}

export const whole = (rank: number): Layout => ({ dims: Array.from({ length: rank }, () => []), partial: {} })

/** The same layout with nothing left to combine. */
export const resolved = ({ dims }: Layout): Layout => ({ dims, partial: {} })

/** The layout with one dimension cut once more, within the cuts it has. */
export const alsoCut = ({ dims, partial }: Layout, dim: number, axis: string): Layout => ({
  dims: [...dims.slice(0, dim), [...dims[dim]!, axis], ...dims.slice(dim + 1)],
  partial,
})

export const sameLayout = (a: Layout, b: Layout): boolean => layoutKey(a) === layoutKey(b)

/** `data+expert,.,tensor|sum data`: for keys, comments and errors. */
export function layoutKey({ dims, partial }: Layout): string {
  const cuts = dims.map((axes) => axes.join('+') || '.').join(',')
  const open = Object.keys(partial)
    .toSorted()
    .map((axis) => `${partial[axis]!} ${axis}`)
  return open.length > 0 ? `${cuts}|${open.join('+')}` : cuts
}

export const isWhole = ({ dims, partial }: Layout): boolean =>
  dims.every((axes) => axes.length === 0) && Object.keys(partial).length === 0

export const ranksOf = (mesh: Mesh): number => sizeOf(mesh.map(({ size }) => size))

export function meshAxis(mesh: Mesh, name: string): MeshAxis {
  const axis = mesh.find((axis) => axis.name === name)
  if (!axis) {
    throw failure({
      where: 'mesh',
      got: `axis '${name}'`,
      expected: mesh.map(({ name }) => name).join(', ') || 'a mesh with axes',
      fix: 'name an axis of the mesh',
    })
  }
  return axis
}

/** Into how many pieces these mesh axes cut a dimension. */
export const piecesOf = (mesh: Mesh, axes: readonly string[]): number =>
  sizeOf(axes.map((name) => meshAxis(mesh, name).size))

/** The shape that one rank holds. */
export const localShape = (mesh: Mesh, { dims }: Layout, shape: readonly number[]): number[] =>
  shape.map((extent, i) => extent / piecesOf(mesh, dims[i]!))

/** Where a rank stands along an axis. */
export function coordinate(mesh: Mesh, axis: string, rank: number): number {
  const at = mesh.findIndex(({ name }) => name === axis)
  return Math.floor(rank / sizeOf(mesh.slice(at + 1).map(({ size }) => size))) % mesh[at]!.size
}

/**
 * The ranks that differ along some mesh axes only, as a collective sees them. `steps` has size and rank distance of each
 * axis, outermost first; member k of a group counts the last axis fastest.
 */
export interface Group {
  readonly axes: readonly string[]
  readonly steps: readonly (readonly [size: number, distance: number])[]
  readonly order: Order
}

export function groupOf(mesh: Mesh, axes: readonly string[]): Group {
  const steps = axes.map((name) => {
    const at = mesh.indexOf(meshAxis(mesh, name))
    return [mesh[at]!.size, sizeOf(mesh.slice(at + 1).map(({ size }) => size))] as const
  })
  const orders = axes.map((name) => meshAxis(mesh, name).order ?? 'plain')
  const special = orders.find((order) => order !== 'plain')
  if (special !== undefined && axes.length > 1) {
    throw failure({
      where: 'mesh',
      got: `a dimension cut over ${axes.join(' and ')}`,
      expected: 'an axis with an order of its own to cut a dimension alone',
      fix: 'use plain order',
    })
  }
  return { axes: [...axes], steps, order: special ?? 'plain' }
}

export const groupSize = ({ steps }: Group): number => sizeOf(steps.map(([size]) => size))

/** This rank's number within its group. */
export function memberOf({ steps }: Group, rank: number): number {
  let member = 0
  for (const [size, distance] of steps) member = member * size + (Math.floor(rank / distance) % size)
  return member
}

/** Ranks of the group of `rank`, in member order. */
export function groupRanks(group: Group, rank: number): number[] {
  let ranks = [
    group.steps.reduce(
      (base, [size, distance]) => base - (Math.floor(rank / distance) % size) * distance,
      rank,
    ),
  ]
  for (const [size, distance] of group.steps) {
    ranks = ranks.flatMap((base) => Array.from({ length: size }, (_, i) => base + i * distance))
  }
  return ranks
}

/** Into how many equal parts a dimension is cut, and which of them member `member` of `size` holds, in its order. */
export function piecesOfMember(
  order: Group['order'],
  size: number,
  member: number,
): { readonly parts: number; readonly own: readonly number[] } {
  if (order === 'zigzag') return { parts: 2 * size, own: [member, 2 * size - 1 - member] }
  const rounds = order === 'plain' ? 1 : order
  return { parts: rounds * size, own: Array.from({ length: rounds }, (_, i) => member + i * size) }
}

/** A box of a value, and where it lies in the piece that a rank holds. */
export interface Box {
  readonly start: readonly number[]
  readonly size: readonly number[]
  /** Its first element, within the rank's piece. */
  readonly at: readonly number[]
}

/** A stretch of a dimension. */
type Stretch = readonly [start: number, length: number]

/** What a rank holds of a dimension cut over these axes, in its order. Each axis cuts what the ones before it left. */
function stretchesOf(mesh: Mesh, axes: readonly string[], extent: number, rank: number): Stretch[] {
  let held: Stretch[] = [[0, extent]]
  let length = extent
  for (const axis of axes) {
    const { order = 'plain', size } = meshAxis(mesh, axis)
    const { parts, own } = piecesOfMember(order, size, coordinate(mesh, axis, rank))
    const piece = length / parts
    held = own.flatMap((part) => within(held, part * piece, piece))
    length /= size
  }
  return held
}

/** The part of some stretches, laid end to end, that begins at `start`. */
function within(stretches: readonly Stretch[], start: number, length: number): Stretch[] {
  let at = 0
  return stretches.flatMap(([from, size]): Stretch[] => {
    const [low, high] = [Math.max(start, at), Math.min(start + length, at + size)]
    const found: Stretch[] = high > low ? [[from + low - at, high - low]] : []
    at += size
    return found
  })
}

/** What a rank holds of a value: one box, more where a dimension is not shared out plainly. */
export function boxesOf(mesh: Mesh, { dims }: Layout, shape: readonly number[], rank: number): Box[] {
  let boxes: Box[] = [{ start: [], size: [], at: [] }]
  dims.forEach((axes, dim) => {
    const stretches = stretchesOf(mesh, axes, shape[dim]!, rank)
    boxes = boxes.flatMap((box) => {
      let local = 0
      return stretches.map(([from, length]): Box => {
        local += length
        return {
          start: [...box.start, from],
          size: [...box.size, length],
          at: [...box.at, local - length],
        }
      })
    })
  })
  return boxes
}
