/**
 * `scatterAdd` in leaves (ops/leaves.ts) without a table for each leaf. First the items of every table row are listed, in
 * order; then each row is added up by itself: a leaf is summed in place, and a finished one carries like a digit of a
 * binary counter, so that few columns at a time and a sum a level are all the memory there is. Leaves without an item
 * for a row would add zero, and are passed over.
 */
import type { Node } from '../../graph/node.ts'
import { isFloat, sizeOf } from '../../graph/types.ts'
import { leavesOf } from '../../ops/leaves.ts'
import type { Fusion } from './fuse.ts'
import { indices, offsetAt, type Position } from './index.ts'
import { range, serialLimit, shared, type KernelText } from './rows.ts'
import { localType, Values } from './values.ts'

/** Columns that are summed at a time. */
const columnsAtOnce = 64

export function emitScatterLeaves(node: Node, fusion: Fusion): KernelText {
  const [index, updates] = node.inputs as [Node, Node]
  const leaves = leavesOf(node)!
  const [tableRows, items] = [node.shape[0]!, sizeOf(index.shape)]
  const width = sizeOf(node.shape) / tableRows
  const at = indices(updates.shape, { columns: width, level: 'full' } satisfies Position)
  const type = localType(node.dtype)

  const listing = new Values(fusion)
  const rows = fusion.source(index)
  const row = listing.load(rows.base, offsetAt(rows.view, at.slice(0, index.shape.length)))
  // Item r is one of table row t; `start[t]` counts, then says where the items of t begin, then where they end.
  const lists = [
    `int32_t *const start = (int32_t *)scratch, *const items = start + ${tableRows + 1};`,
    `memset(start, 0, ${tableRows + 1} * sizeof *start);`,
    `for (int64_t r = 0; r < ${items}; r++) start[clamp_index(${row}, ${tableRows}) + 1]++;`,
    `for (int64_t t = 0; t < ${tableRows}; t++) start[t + 1] += start[t];`,
    `for (int64_t r = 0; r < ${items}; r++) items[start[clamp_index(${row}, ${tableRows})]++] = (int32_t)r;`,
  ]

  const values = new Values(fusion)
  const source = fusion.source(updates)
  const out = values.pointer(node, true)
  const serial = items * width <= serialLimit || width === 1
  const column = width === 1 ? '0' : 'c'
  const levels = Math.log2(leaves) + 1
  const merge = 'depth--; for (int64_t c = 0; c < columns; c++) sums[depth - 1][c] += sums[depth][c];'
  const body = [
    `const int32_t *const end_of = (const int32_t *)scratch, *const items = end_of + ${tableRows + 1};`,
    range(width, 16, serial),
    `for (int64_t t = 0; t < ${tableRows}; t++) {`,
    '  const int64_t item = t ? end_of[t - 1] : 0, stop = end_of[t];',
    `  for (int64_t first = begin; first < end; first += ${columnsAtOnce}) {`,
    `    const int64_t last = end - first < ${columnsAtOnce} ? end : first + ${columnsAtOnce}, columns = last - first;`,
    // Sums that wait for their right neighbour, the one being added to last, and the first leaf of each.
    `    ${type} sums[${levels}][${columnsAtOnce}];`,
    `    int64_t leaf_of[${levels}], depth = 0;`,
    '    for (int64_t i = item; i < stop; i++) {',
    `      const int64_t r = items[i], leaf = r / ${items / leaves};`,
    '      if (depth == 0 || leaf != leaf_of[depth - 1]) {',
    // Of two neighbours, those are added first whose numbers differ in lower digits.
    '        while (depth > 1 && (leaf_of[depth - 2] ^ leaf_of[depth - 1]) < (leaf_of[depth - 1] ^ leaf)) {',
    `          ${merge}`,
    '        }',
    '        leaf_of[depth] = leaf;',
    '        for (int64_t c = 0; c < columns; c++) sums[depth][c] = 0;',
    '        depth++;',
    '      }',
    `      ${type} *const sum = sums[depth - 1];`,
    '      SIMD_LOOP()',
    `      for (int64_t c = first; c < last; c++) sum[c - first] += ${values.load(source.base, offsetAt(source.view, at))};`,
    '    }',
    `    while (depth > 1) { ${merge} }`,
    `    for (int64_t c = first; c < last; c++) ${out}[t * ${width} + ${column}] = depth ? sums[0][c - first] : 0;`,
    ...(isFloat(node.dtype) ? ['    COUNT((stop - item) * columns);'] : []),
    '  }',
    '}',
  ]
  const scratchBytes = (tableRows + 1 + items) * 4
  return {
    parameters: listing.parameters,
    body: lists,
    scratchBytes,
    ...shared(true),
    inPlace: [],
    finish: { parameters: values.parameters, body, scratchBytes, ...shared(serial), inPlace: [] },
  }
}
