/**
 * The kernel of `scatter`. When the result took over the table's memory (see lower.ts), only the new rows are written;
 * otherwise the table is copied first. Threads own columns and every thread walks the rows in order, so that the last of
 * several rows for one place wins whatever the team.
 */
import type { Node } from '../../graph/node.ts'
import { sizeOf } from '../../graph/types.ts'
import type { Fusion } from './fuse.ts'
import { indices, offsetAt, type Position } from './index.ts'
import { range, serialLimit, shared, type KernelText } from './rows.ts'
import { Values } from './values.ts'
import { isDense } from './view.ts'

export function emitScatter(node: Node, fusion: Fusion): KernelText {
  const values = new Values(fusion)
  const [table, index, rows] = node.inputs as [Node, Node, Node]
  const count = node.shape[0]!
  const width = sizeOf(node.shape) / count
  const items = sizeOf(index.shape)
  const serial = items * width <= serialLimit || width === 1
  const full: Position = { columns: width, level: 'full' }
  const [old, at, fresh] = [fusion.source(table), fusion.source(index), fusion.source(rows)]
  const where = indices(rows.shape, full)
  const column = width === 1 ? '0' : 'c'
  const from = values.pointer(old.base)
  const out = values.pointer(node, true)
  const target = values.load(at.base, offsetAt(at.view, where.slice(0, index.shape.length)))
  const body = [
    range(width, 16, serial),
    `if (${out} != ${from})`,
    `  for (int64_t r = 0; r < ${count}; r++)`,
    '    for (int64_t c = begin; c < end; c++)',
    `      ${out}[r * ${width} + ${column}] = ${from}[${offsetAt(old.view, indices(table.shape, full))}];`,
    `for (int64_t r = 0; r < ${items}; r++) {`,
    `  const int64_t target = ${target};`,
    `  if (target < 0 || target >= ${count}) continue;`,
    '  for (int64_t c = begin; c < end; c++)',
    `    ${out}[target * ${width} + ${column}] = ${rawLoad(values, fresh.base, offsetAt(fresh.view, where))};`,
    '}',
  ]
  const whole =
    isDense(old.view) && old.view.offset === 0 && sizeOf(old.view.shape) === sizeOf(old.base.shape)
  const alone = at.base !== old.base && fresh.base !== old.base
  const inPlace = whole && alone ? [{ out: node, input: old.base }] : []
  return { parameters: values.parameters, body, scratchBytes: 0, ...shared(serial), inPlace }
}

/** The element as it lies in memory: moved, not converted. */
const rawLoad = (values: Values, base: Node, at: string): string => `${values.pointer(base)}[${at}]`
