/**
 * A table with some rows replaced: result[index[i…], :] = rows[i…, :], everything else as it was. What a key/value cache
 * is written with: targets do it in place when nothing reads the old table afterwards. A later row wins over an earlier
 * one of the same index; an index outside the table writes nothing, which is how padding is left out.
 */
import type { Node } from '../graph/node.ts'
import type { Op } from '../graph/op.ts'
import { formatType, sameShape, sizeOf, typeError, valueType } from '../graph/types.ts'
import { fill } from './constant.ts'
import { apply } from './elementwise.ts'
import { equal } from './equal.ts'
import { broadcast } from './broadcast.ts'
import { gather } from './gather.ts'
import { iota } from './iota.ts'
import { reshape } from './reshape.ts'
import { where } from './where.ts'

export const scatterOp: Op = {
  name: 'scatter',
  doc: 'a table with rows replaced by index; the last of equal ones wins, those outside are ignored',
  kind: 'index',
  infer([table, index, rows]) {
    const shape = [...index!.shape, ...table!.shape.slice(1)]
    if (
      index!.dtype !== 'i32' ||
      table!.shape.length === 0 ||
      rows!.dtype !== table!.dtype ||
      !sameShape(rows!.shape, shape)
    ) {
      throw typeError(
        'scatter',
        `${formatType(rows!)} into ${formatType(table!)} by ${formatType(index!)}`,
        'an i32 index, and a row of the table for each of its elements',
        'reshape or cast one side',
      )
    }
    return [table!]
  },
  gradient(node, [g]) {
    const [table, index, rows] = node.inputs as [Node, Node, Node]
    // Each row leaves its number where it is written; whoever finds another there was replaced, or outside.
    const count = sizeOf(index.shape)
    const numbers = reshape(iota({ dtype: 'i32', shape: [count], axes: [null] }, 0), index.shape, index.axes)
    const nobody = fill(-1, valueType('i32', [table.shape[0]!]))
    const kept = equal(gather(apply(scatterOp, [nobody, index, numbers]), index), numbers)
    const mask = broadcast(
      kept,
      rows.shape,
      index.shape.map((_, axis) => axis),
      rows.axes,
    )
    const zeros = fill(0, rows.type)
    return [apply(scatterOp, [g!, index, zeros]), null, where(mask, gather(g!, index), zeros)]
  },
  factors(node) {
    const [table, index] = node.inputs as [Node, Node]
    const whole = index.shape.map(() => null)
    const rest = table.shape.slice(1).map((_, i) => `t${i}`)
    return { inputs: [[null, ...rest], whole, [...whole, ...rest]], results: [[null, ...rest]] }
  },
  flops: () => 0,
  reference(node, [table, index, rows]) {
    const out = table!.slice()
    const count = node.shape[0]!
    const width = out.length / count
    index!.forEach((row, i) => {
      if (row >= 0 && row < count) out.set(rows!.subarray(i * width, (i + 1) * width), row * width)
    })
    return out
  },
  samples: () => [
    {
      inputs: [valueType('f64', [5, 3]), valueType('i32', [4]), valueType('f64', [4, 3])],
      ranges: [
        [-2, 2],
        [-1, 6],
        [-2, 2],
      ],
    },
    {
      inputs: [valueType('f64', [6, 2, 2]), valueType('i32', [2, 2]), valueType('f64', [2, 2, 2, 2])],
      ranges: [
        [-2, 2],
        [0, 6],
        [-2, 2],
      ],
    },
    {
      inputs: [valueType('i32', [7]), valueType('i32', [3]), valueType('i32', [3])],
      ranges: [
        [0, 9],
        [0, 7],
        [0, 9],
      ],
    },
  ],
}

export const scatter = (table: Node, index: Node, rows: Node): Node => apply(scatterOp, [table, index, rows])
