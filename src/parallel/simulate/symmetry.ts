/**
 * Ranks of a mesh that do the same thing at the same time need simulating once. Along the pipeline every rank differs; along
 * any other axis all ranks do the same, except those that something happens to (a straggler, a slow link, a failure). So
 * each coordinate of such a *marked* rank is a class of its own and the rest of its axis is another: one straggler among
 * 1,024 ranks of data 16 x pipeline 8 x tensor 8 makes 2 x 8 x 2 classes.
 * Ranks are numbered with the last axis running fastest, so its neighbours are the nearest.
 */
import { badUsage } from '../../errors.ts'

export interface Axis {
  readonly name: string
  readonly size: number
}

/** A class of equal ranks. */
export interface RankClass {
  /** Its first rank. */
  readonly rank: number
  readonly count: number
  /** For each axis, which class of coordinates. */
  readonly place: readonly number[]
  readonly coordinates: readonly number[]
}

export interface Symmetry {
  readonly classes: readonly RankClass[]
  /** The class at a place. */
  at(place: readonly number[]): number
  /** The class of a real rank. */
  classOf(rank: number): number
  /** The classes that meet in a collective over `axes` with the class `index`. */
  group(index: number, axes: readonly number[]): number[]
  /** The real ranks of that group. */
  realGroup(index: number, axes: readonly number[]): number[]
}

/**
 * @param alone Axes along which no two ranks are equal.
 * @param marked Real ranks that something happens to.
 */
export function findSymmetry(
  axes: readonly Axis[],
  alone: readonly string[],
  marked: readonly number[],
): Symmetry {
  const total = axes.reduce((product, { size }) => product * size, 1)
  const coordinatesOf = (rank: number): number[] => {
    let rest = rank
    return axes
      .toReversed()
      .map(({ size }) => {
        const coordinate = rest % size
        rest = (rest - coordinate) / size
        return coordinate
      })
      .toReversed()
  }
  const rankOf = (coordinates: readonly number[]): number =>
    axes.reduce((rank, { size }, axis) => rank * size + coordinates[axis]!, 0)
  for (const rank of marked) {
    if (Number.isInteger(rank) && rank >= 0 && rank < total) continue
    throw badUsage({
      where: 'what is injected into a simulation',
      got: `rank ${rank}`,
      expected: `a rank from 0 to ${total - 1}`,
      fix: 'name a rank of the mesh',
    })
  }
  const places = marked.map(coordinatesOf)
  /** Along each axis, classes of coordinates, each as its members. */
  const parts = axes.map(({ name, size }, axis) => {
    const all = Array.from({ length: size }, (_, i) => i)
    const special = new Set(alone.includes(name) ? all : places.map((place) => place[axis]!))
    const rest = all.filter((i) => !special.has(i))
    return [...special]
      .map((i) => [i])
      .concat(rest.length > 0 ? [rest] : [])
      .toSorted((a, b) => a[0]! - b[0]!)
  })
  const classes = product(parts.map((part) => part.length)).map((place): RankClass => {
    const members = place.map((i, axis) => parts[axis]![i]!)
    const coordinates = members.map((member) => member[0]!)
    return {
      rank: rankOf(coordinates),
      count: members.reduce((count, member) => count * member.length, 1),
      place,
      coordinates,
    }
  })
  const at = (place: readonly number[]): number =>
    parts.reduce((index, part, axis) => index * part.length + place[axis]!, 0)
  /** Every way to choose along `along` among `choices` of an axis, the rest as in `fixed`. */
  const vary = (fixed: readonly number[], along: readonly number[], choices: readonly number[]): number[][] =>
    product(along.map((axis) => choices[axis]!)).map((chosen) =>
      fixed.map((value, axis) => (along.includes(axis) ? chosen[along.indexOf(axis)]! : value)),
    )
  return {
    classes,
    at,
    classOf: (rank) =>
      at(
        coordinatesOf(rank).map((coordinate, axis) =>
          parts[axis]!.findIndex((part) => part.includes(coordinate)),
        ),
      ),
    group: (index, along) =>
      vary(
        classes[index]!.place,
        along,
        parts.map((part) => part.length),
      ).map(at),
    realGroup: (index, along) =>
      vary(
        classes[index]!.coordinates,
        along,
        axes.map(({ size }) => size),
      ).map(rankOf),
  }
}

/** All tuples below the sizes, the last place running fastest. */
const product = (sizes: readonly number[]): number[][] =>
  sizes.reduce<number[][]>(
    (tuples, size) => tuples.flatMap((tuple) => Array.from({ length: size }, (_, i) => tuple.concat(i))),
    [[]],
  )
