/**
 * Values as an 8-bit format with shared scales would hold them: each group of elements is scaled so that its largest
 * comes to the format's largest number, rounded, and scaled back. Groups lie along the axes that a product contracts,
 * for there the scales of one product's terms must be equal. The gradient goes straight through.
 *
 * `mx32` is the microscaling format (Open Compute Project): groups of 32 whose scale is a power of two. In any other
 * group an infinity makes all of it NaN, so that an overflow is noticed.
 */
import { fp8Formats, type Fp8Name } from '../graph/fp8.ts'
import { powerFloor } from '../ops/power-floor.ts'
import { roundFp8 } from '../ops/round-fp8.ts'
import { valueType } from '../graph/types.ts'
import { full, Tensor } from '../trace/tensor.ts'
import { invoke, type Composite } from './composite.ts'

export const quantiseGroups = ['tensor', 'row', '1x128', '128x128', 'mx32'] as const
export type QuantiseGroups = (typeof quantiseGroups)[number]

export interface QuantiseOptions {
  readonly format: Fp8Name
  /** What shares a scale: everything, a row, a stretch of 128 or 32 of a row, a square. */
  readonly groups: QuantiseGroups
  /** Axes that make up a row; all others tell rows apart. */
  readonly along: readonly number[]
}

/** Rows and columns of a group. */
const tiles: Readonly<Record<QuantiseGroups, readonly [number, number]>> = {
  tensor: [Infinity, Infinity],
  row: [1, Infinity],
  '1x128': [1, 128],
  '128x128': [128, 128],
  mx32: [1, 32],
}

export const quantiseComposite: Composite = {
  name: 'quantise',
  doc: 'rounded to e4m3 or e5m2 with a scale a group, and back; straight-through gradient',
  body([x], options) {
    const { format, groups, along } = options as unknown as QuantiseOptions
    return [inRows(x!, along, (rows) => quantised(rows, format, groups))]
  },
  gradient: (_, [g]) => [g ?? null],
  samples: () => [
    { inputs: [valueType('f64', [3, 5])], options: { format: 'e4m3', groups: 'tensor', along: [1] } },
    { inputs: [valueType('f64', [4, 3, 5])], options: { format: 'e5m2', groups: 'row', along: [1] } },
    { inputs: [valueType('f64', [3, 140])], options: { format: 'e4m3', groups: '1x128', along: [1] } },
    { inputs: [valueType('f64', [130, 131])], options: { format: 'e4m3', groups: '128x128', along: [0] } },
    { inputs: [valueType('f64', [2, 70])], options: { format: 'e5m2', groups: 'mx32', along: [1] } },
  ],
}

/** Applies a function of [rows, columns] with the given axes as columns. */
function inRows(x: Tensor, along: readonly number[], change: (rows: Tensor) => Tensor): Tensor {
  const order = [...x.shape.map((_, axis) => axis).filter((axis) => !along.includes(axis)), ...along]
  const moved = x.transpose(order)
  const columns = along.reduce((size, axis) => size * x.shape[axis]!, 1)
  const rows = x.shape.reduce((size, extent) => size * extent, 1) / columns
  const changed = change(moved.reshape([rows, columns])).reshape(moved.shape, moved.axes)
  return changed.transpose(x.shape.map((_, axis) => order.indexOf(axis)))
}

function quantised(x: Tensor, format: Fp8Name, groups: QuantiseGroups): Tensor {
  const [rows, columns] = x.shape as [number, number]
  const [r, c] = [Math.min(tiles[groups][0], rows), Math.min(tiles[groups][1], columns)]
  const filled = x.pad(0, 0, upTo(rows, r)).pad(1, 0, upTo(columns, c))
  const tiled = filled.reshape([filled.shape[0]! / r, r, filled.shape[1]! / c, c])
  // Never 0, so that a group of zeros stays one.
  const size = tiled
    .max(tiled.neg())
    .maxOver([1, 3], true)
    .max(2 ** -100)
  const { largest } = fp8Formats[format]
  const unit =
    groups === 'mx32'
      ? new Tensor(powerFloor(size.node)).mul(1 / largestPower(largest))
      : size.mul(1 / largest)
  const scaled = tiled.mul(full(1, unit.type).div(unit))
  const back = new Tensor(roundFp8(scaled.node, format)).mul(unit)
  return back.reshape(filled.shape).slice(0, 0, rows).slice(1, 0, columns)
}

/** What is missing to a multiple. */
const upTo = (size: number, unit: number): number => (unit - (size % unit)) % unit

const largestPower = (largest: number): number => 2 ** Math.floor(Math.log2(largest))

export const quantise = (x: Tensor, options: QuantiseOptions): Tensor =>
  invoke(quantiseComposite, [x], { ...options, along: [...options.along] })[0]!
