/**
 * The kernels that choose and number: `topk`, whose rows are shared out, and `groupRank`, a count from the first element
 * to the last, which one thread does.
 */
import type { Node } from '../../graph/node.ts'
import { sizeOf } from '../../graph/types.ts'
import { groupCount } from '../../ops/group-rank.ts'
import { topkCount } from '../../ops/topk.ts'
import type { Fusion } from './fuse.ts'
import { indices, offsetAt } from './index.ts'
import { range, serialLimit, shared, type KernelText } from './rows.ts'
import { localType, Values } from './values.ts'

/** k times the largest of those not taken yet: k is small. */
export function emitTopk(node: Node, fusion: Fusion): KernelText {
  const values = new Values(fusion)
  const [x] = node.inputs as [Node]
  const [n, k] = [x.shape.at(-1)!, topkCount(node)]
  const rows = sizeOf(node.shape) / k
  const { base, view } = fusion.source(x)
  const at = indices(x.shape, { columns: n, level: 'full' })
  // Rows of one element have no column to walk along.
  const last = n === 1 ? '0' : 'c'
  const value = values.load(base, offsetAt(view, [...at.slice(0, -1), last]))
  const out = values.pointer(node, true)
  const type = localType(x.dtype)
  const serial = sizeOf(x.shape) * k <= serialLimit
  const body = [
    range(rows, 16, serial),
    'for (int64_t r = begin; r < end; r++) {',
    `  uint8_t taken[${n}] = {0};`,
    `  for (int64_t j = 0; j < ${k}; j++) {`,
    '    int64_t best = -1;',
    `    ${type} largest = 0;`,
    `    for (int64_t c = 0; c < ${n}; c++) {`,
    `      const ${type} x = ${value};`,
    '      if (taken[c] || (best >= 0 && !(x > largest))) continue;',
    '      best = c, largest = x;',
    '    }',
    '    taken[best] = 1;',
    `    ${out}[r * ${k} + j] = (int32_t)best;`,
    '  }',
    `  COUNT(${n * k});`,
    '}',
  ]
  return { parameters: values.parameters, body, scratchBytes: 0, ...shared(serial), inPlace: [] }
}

export function emitGroupRank(node: Node, fusion: Fusion): KernelText {
  const values = new Values(fusion)
  const [group] = node.inputs as [Node]
  const groups = groupCount(node)
  const { base, view } = fusion.source(group)
  const at = indices(group.shape, { columns: 1, level: 'row' })
  const value = values.load(base, offsetAt(view, at))
  const body = [
    'int32_t *const seen = (int32_t *)scratch;',
    `for (int64_t g = 0; g < ${groups}; g++) seen[g] = 0;`,
    `for (int64_t r = 0; r < ${sizeOf(group.shape)}; r++) {`,
    `  const int64_t g = ${value};`,
    `  ${values.pointer(node, true)}[r] = g >= 0 && g < ${groups} ? seen[g]++ : 0;`,
    '}',
  ]
  return { parameters: values.parameters, body, scratchBytes: 4 * groups, ...shared(true), inPlace: [] }
}
