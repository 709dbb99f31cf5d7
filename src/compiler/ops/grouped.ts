/**
 * What `groupedDot` and `groupedOuter` share: rows that belong to groups, and one matrix a group. The three derivatives of
 *
 *   sum over row r and group e with group[r] = numbers[e], of x[r, p] w[e, p, c] y[r, c]
 *
 * are products of the rows with their group's matrix, forward and back, and one outer product a group: so every
 * derivative of any order is one of the two again. `numbers` says which groups the matrices are of: consecutive numbers,
 * all of them unless the groups are shared out. A row of a group that is not here counts for nothing, and so the results
 * of parts of the groups add up to the whole: the dimension map may split groups as well as rows.
 */
import type { Node } from '../graph/node.ts'
import type { Sample, Values } from '../graph/op.ts'
import { sizeOf, type ValueType } from '../graph/types.ts'

/** Every row costs one product with a matrix: a multiplication and an addition for each element of it. */
export const groupedFlops = (rows: readonly number[], inner: number, columns: number): number =>
  2 * sizeOf(rows) * inner * columns

/** Visits each row with the place of its group's matrix. */
export function eachRow(group: Values, numbers: Values, visit: (row: number, matrix: number) => void): void {
  group.forEach((number, row) => {
    const matrix = number - numbers[0]!
    if (matrix >= 0 && matrix < numbers.length) visit(row, matrix)
  })
}

/** Labels of the leading axes, which are those of the group numbers. */
export const rowLabels = (group: Node): string[] => group.shape.map((_, i) => `r${i}`)

interface GroupedShape {
  readonly rows: readonly number[]
  readonly groups: number
  readonly inner: number
  readonly columns: number
}

/** The ranges of the operands: floats, group numbers, floats, and the numbers of the matrices. */
export const groupedRanges = (groups: number): NonNullable<Sample['ranges']> => [
  [-2, 2],
  [0, groups],
  [-2, 2],
  'counted',
]

export const groupedShapes: readonly GroupedShape[] = [
  { rows: [6], groups: 3, inner: 2, columns: 4 },
  { rows: [2, 3], groups: 2, inner: 3, columns: 2 },
  { rows: [4], groups: 1, inner: 5, columns: 3 },
  { rows: [90], groups: 4, inner: 20, columns: 33 },
]

export const sameRows = (a: ValueType, group: ValueType): boolean =>
  a.shape.length === group.shape.length + 1 && group.shape.every((extent, i) => a.shape[i] === extent)
