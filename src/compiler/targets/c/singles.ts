/**
 * Kernels that are not row kernels: joins, padding, tables, and reductions that end in few values. The reductions work
 * in a fixed number of leaves combined in a fixed tree, so their bits do not depend on the number of threads.
 */
import type { Node } from '../../graph/node.ts'
import { dtypeBytes, isFloat, isHalf, sizeOf } from '../../graph/types.ts'
import { concatAxis } from '../../ops/concat.ts'
import { leavesOf } from '../../ops/leaves.ts'
import { reducedAxes } from '../../ops/reduce.ts'
import { emitGroupRank, emitTopk } from './choice.ts'
import { leadingReduce, middleReduce, type Fusion, type SingleKernel } from './fuse.ts'
import { indices, offsetAt, type Position } from './index.ts'
import { range, rowShare, serialLimit, shared, type KernelText } from './rows.ts'
import { emitScatter } from './scatter.ts'
import { emitScatterLeaves } from './scatter-leaves.ts'
import { localReads } from './span.ts'
import { cType, literal, localType, Values } from './values.ts'

export function emitSingle(kernel: SingleKernel, fusion: Fusion): KernelText {
  const { node } = kernel
  if (node.op.name === 'concat') return emitConcat(kernel, fusion)
  if (node.op.name === 'pad') return emitPad(node, fusion)
  if (node.op.name === 'scatterAdd') return emitScatterAdd(node, fusion)
  if (node.op.name === 'scatter') return emitScatter(node, fusion)
  if (node.op.name === 'topk') return emitTopk(node, fusion)
  if (node.op.name === 'groupRank') return emitGroupRank(node, fusion)
  if (leadingReduce(node)) return emitColumns(kernel, fusion)
  return middleReduce(node) ? emitMiddle(kernel, fusion) : emitReduce(node, fusion)
}

/** Lines that compute the fused elementwise inputs of one operand, then the operand's value. */
function evaluate(
  operand: Node,
  fused: ReadonlySet<Node>,
  fusion: Fusion,
  values: Values,
  position: Position,
): { lines: string[]; value: string; flops: number } {
  const lines: string[] = []
  let flops = 0
  const visit = (x: Node): void => {
    if (fusion.isClosed(x)) return
    const { base } = fusion.source(x)
    if (!fused.has(base) || values.locals.has(base)) return
    base.inputs.forEach(visit)
    lines.push(
      `const ${localType(base.dtype)} ${values.nameOf(base)} = ${values.expression(base, position)};`,
    )
    values.locals.set(base, values.nameOf(base))
    flops += base.op.flops(base) / sizeOf(base.shape)
  }
  visit(operand)
  return { lines, value: values.operand(operand, position), flops }
}

const counted = (flops: number): string[] => (flops > 0 ? [`COUNT(${flops});`] : [])

function emitConcat({ node, fused }: SingleKernel, fusion: Fusion): KernelText {
  const values = new Values(fusion)
  const axis = concatAxis(node)
  const rows = sizeOf(node.shape.slice(0, axis))
  const width = sizeOf(node.shape) / rows
  const lines: string[] = []
  let start = 0
  for (const part of node.inputs) {
    const columns = sizeOf(part.shape) / rows
    values.locals.clear()
    const { lines: body, value, flops } = evaluate(part, fused, fusion, values, { columns, level: 'full' })
    const at = `r * ${width} + ${start}${columns === 1 ? '' : ' + c'}`
    const text = [...body, values.store(node, at, value), ...counted(flops)]
    if (columns === 1) lines.push('  {', ...text.map((line) => `    ${line}`), '  }')
    else
      lines.push(
        '  SIMD_LOOP()',
        `  for (int64_t c = 0; c < ${columns}; c++) {`,
        ...text.map((line) => `    ${line}`),
        '  }',
      )
    start += columns
  }
  const { nature, lines: share } = rowShare(sizeOf(node.shape), rows)
  const body = [...share, 'for (int64_t r = begin; r < end; r++) {', ...lines, '}']
  const local = localReads([node, ...fused], fusion)
  return { parameters: values.parameters, body, scratchBytes: 0, nature, local, inPlace: [] }
}

/**
 * Rows of zeros, and rows with the source between zeros. Nothing is read under a condition: gcc 12 vectorises
 * conditional reads of narrow rows with the wrong mask (see `select` in emit.ts).
 */
function emitPad(node: Node, fusion: Fusion): KernelText {
  const values = new Values(fusion)
  const [x] = node.inputs as [Node]
  const low = node.attrs['low'] as number[]
  const columns = node.shape.at(-1)!
  const width = x.shape.at(-1)!
  const before = low.at(-1)!
  const rows = sizeOf(node.shape) / columns
  const at = indices(node.shape, { columns, level: 'full' }).slice(0, -1)
  const shifted = at.map((index, axis) => (low[axis] === 0 ? index : `(${index} - ${low[axis]})`))
  const inside = shifted.flatMap((index, axis) =>
    x.shape[axis] === node.shape[axis] ? [] : [`${index} >= 0 && ${index} < ${x.shape[axis]}`],
  )
  const { base, view } = fusion.source(x)
  const value = values.load(base, offsetAt(view, [...shifted, 'c']))
  const zeros = (from: number, to: number): string[] =>
    from === to
      ? []
      : [
          `for (int64_t c = ${from}; c < ${to}; c++) ${values.store(node, `r * ${columns} + c`, literal(0, node.dtype))}`,
        ]
  const copy = `for (int64_t c = 0; c < ${width}; c++) ${values.store(node, `r * ${columns} + ${before} + c`, value)}`
  const serial = sizeOf(node.shape) <= serialLimit
  const body = [
    range(rows, 1, serial),
    'for (int64_t r = begin; r < end; r++) {',
    ...(inside.length === 0
      ? []
      : [
          `  if (!(${inside.join(' && ')})) {`,
          ...zeros(0, columns).map((line) => `    ${line}`),
          '    continue;',
          '  }',
        ]),
    ...[...zeros(0, before), copy, ...zeros(before + width, columns)].map((line) => `  ${line}`),
    '}',
  ]
  return { parameters: values.parameters, body, scratchBytes: 0, ...shared(serial), inPlace: [] }
}

/** Threads own columns, and every thread walks the rows in order: no atomics, one order of additions. */
function emitScatterAdd(node: Node, fusion: Fusion): KernelText {
  if (leavesOf(node) !== undefined) return emitScatterLeaves(node, fusion)
  const values = new Values(fusion)
  const [index, updates] = node.inputs as [Node, Node]
  const width = sizeOf(node.shape) / node.shape[0]!
  const items = sizeOf(index.shape)
  const serial = items * width <= serialLimit || width === 1
  const position: Position = { columns: width, level: 'full' }
  const at = indices(updates.shape, position)
  const rows = fusion.source(index)
  const source = fusion.source(updates)
  const row = values.load(rows.base, offsetAt(rows.view, at.slice(0, index.shape.length)))
  const out = values.pointer(node, true)
  const column = width === 1 ? '0' : 'c'
  const body = [
    range(width, 16, serial),
    `for (int64_t r = 0; r < ${node.shape[0]}; r++)`,
    `  for (int64_t c = begin; c < end; c++) ${out}[r * ${width} + c] = 0;`,
    `for (int64_t r = 0; r < ${items}; r++) {`,
    `  const int64_t target = clamp_index(${row}, ${node.shape[0]}) * ${width};`,
    `  SIMD_LOOP()`,
    `  for (int64_t c = begin; c < end; c++) {`,
    `    ${out}[target + ${column}] += ${values.load(source.base, offsetAt(source.view, at))};`,
    ...counted(isFloat(node.dtype) ? 1 : 0).map((line) => `    ${line}`),
    '  }',
    '}',
  ]
  return { parameters: values.parameters, body, scratchBytes: 0, ...shared(serial), inPlace: [] }
}

const maxLeaves = 16

/**
 * Into how many runs the rows of a sum are cut. Leaves that the sum has anyway (ops/leaves.ts) are halved while they are
 * long, which depends on the length of a leaf and not on how many there are here.
 */
function leavesOfRows(given: number | undefined, rows: number, least: number): number {
  if (given === undefined) return Math.max(1, Math.min(maxLeaves, Math.floor(rows / least)))
  return rows / given >= 2 * least ? 2 * given : given
}

/**
 * Reduction over leading axes (column sums) or over everything: leaves are runs of rows, added pairwise. Leaves and their
 * tree are two steps, so that the many sums of a training step meet at the barriers that are there anyway.
 */
function emitColumns({ node, fused }: SingleKernel, fusion: Fusion): KernelText {
  const values = new Values(fusion)
  const [x] = node.inputs as [Node]
  const size = sizeOf(x.shape)
  const whole = sizeOf(node.shape) === 1
  const columns = sizeOf(node.shape)
  const rows = size / columns
  const position: Position = { columns: whole ? size : columns, level: 'full' }
  const { lines, value, flops } = evaluate(x, fused, fusion, values, position)
  const isSum = node.op.name === 'sum'
  const start = isSum ? literal(0, node.dtype) : literal(-Infinity, node.dtype)
  const type = localType(node.dtype)
  const combine = (target: string, other: string): string =>
    isSum
      ? `${target} += ${other};`
      : `{ const ${type} x = ${other}; ${target} = ${target} < x ? x : ${target}; }`
  const leaves = leavesOfRows(leavesOf(node), rows, whole ? 1024 : 16)
  const serial = size <= serialLimit
  const stored = (text: string): string => (isHalf(node.dtype) ? `f32_to_${node.dtype}(${text})` : text)
  const leafBounds = [
    `int64_t from = ${rows}LL * leaf / ${leaves}, to = ${rows}LL * (leaf + 1) / ${leaves};`,
    'OPAQUE(from, to)', // one text for leaves of one length, however many there are
    `${type} *const partial = (${type} *)scratch + leaf * ${columns};`,
  ]
  const countedFlops = counted(flops + (isFloat(node.dtype) ? 1 : 0))
  const body = [
    range(leaves, 1, serial),
    'for (int64_t leaf = begin; leaf < end; leaf++) {',
    ...leafBounds.map((line) => `  ${line}`),
    ...(whole
      ? [
          `  ${type} total = ${start};`,
          '  const int64_t r = 0; (void)r;',
          `  SIMD_LOOP(reduction(${isSum ? '+' : 'max'}:total))`,
          '  for (int64_t c = from; c < to; c++) {',
          ...[...lines, combine('total', value), ...countedFlops].map((line) => `    ${line}`),
          '  }',
          '  partial[0] = total;',
        ]
      : [
          `  for (int64_t c = 0; c < ${columns}; c++) partial[c] = ${start};`,
          '  for (int64_t r = from; r < to; r++) {',
          '    SIMD_LOOP()',
          `    for (int64_t c = 0; c < ${columns}; c++) {`,
          ...[...lines, combine('partial[c]', value), ...countedFlops].map((line) => `      ${line}`),
          '    }',
          '  }',
        ]),
    '}',
  ]
  const scratchBytes = leaves * columns * Math.max(4, dtypeBytes[node.dtype])
  const leavesText = { parameters: values.parameters, body, scratchBytes, ...shared(serial), inPlace: [] }
  const total = new Values(fusion)
  const out = total.pointer(node, true)
  const tree = [
    range(columns, 16, serial),
    'for (int64_t c = begin; c < end; c++) {',
    `  ${type} *const partial = (${type} *)scratch + c;`,
    `  for (int64_t gap = 1; gap < ${leaves}; gap *= 2)`,
    `    for (int64_t leaf = 0; leaf + gap < ${leaves}; leaf += 2 * gap) ${combine(`partial[leaf * ${columns}]`, `partial[(leaf + gap) * ${columns}]`)}`,
    `  ${out}[c] = ${stored('partial[0]')};`,
    '}',
  ]
  return { ...leavesText, finish: { ...leavesText, parameters: total.parameters, body: tree } }
}

/** Reduction over axes in the middle: a row of the result from `terms` rows, one after the other. */
function emitMiddle({ node, fused }: SingleKernel, fusion: Fusion): KernelText {
  const values = new Values(fusion)
  const [x] = node.inputs as [Node]
  const { terms, columns } = middleReduce(node)!
  const { lines, value, flops } = evaluate(x, fused, fusion, values, { columns, level: 'full' })
  const isSum = node.op.name === 'sum'
  const type = localType(node.dtype)
  const start = isSum ? literal(0, node.dtype) : literal(-Infinity, node.dtype)
  const total = `${values.pointer(node, true)}[row * ${columns} + c]`
  const combined = isSum ? 'before + x' : 'before < x ? x : before'
  const { nature, lines: share } = rowShare(sizeOf(x.shape), sizeOf(node.shape) / columns)
  const body = [
    ...share,
    'for (int64_t row = begin; row < end; row++) {',
    `  for (int64_t c = 0; c < ${columns}; c++) ${total} = ${start};`,
    `  for (int64_t r = row * ${terms}; r < (row + 1) * ${terms}; r++) {`,
    '    SIMD_LOOP()',
    `    for (int64_t c = 0; c < ${columns}; c++) {`,
    ...lines.map((line) => `      ${line}`),
    `      const ${type} x = ${value}, before = ${total};`,
    `      ${total} = ${combined};`,
    ...counted(flops + (isFloat(node.dtype) ? 1 : 0)).map((line) => `      ${line}`),
    '    }',
    '  }',
    '}',
  ]
  const local = localReads([node, ...fused], fusion)
  return { parameters: values.parameters, body, scratchBytes: 0, nature, local, inPlace: [] }
}

/** Any other reduction: one result at a time, reduced axes as nested loops. */
function emitReduce(node: Node, fusion: Fusion): KernelText {
  const values = new Values(fusion)
  const [x] = node.inputs as [Node]
  const axes = reducedAxes(node)
  const kept = x.shape.map((_, axis) => axis).filter((axis) => !axes.includes(axis))
  const outer = indices(node.shape, { columns: 1, level: 'row' })
  const at = x.shape.map((_, axis) => (axes.includes(axis) ? `i${axis}` : outer[kept.indexOf(axis)]!))
  const isSum = node.op.name === 'sum'
  const type = localType(node.dtype)
  const start = isSum ? literal(0, node.dtype) : literal(-Infinity, node.dtype)
  const { base, view } = fusion.source(x)
  const value = values.load(base, offsetAt(view, at))
  const serial = sizeOf(x.shape) <= serialLimit
  const step = isSum ? `total += ${value};` : `{ const ${type} x = ${value}; total = total < x ? x : total; }`
  const body = [
    range(sizeOf(node.shape), 1, serial),
    'for (int64_t r = begin; r < end; r++) {',
    `  ${type} total = ${start};`,
    ...axes.map((axis) => `  for (int64_t i${axis} = 0; i${axis} < ${x.shape[axis]}; i${axis}++)`),
    `  { ${step} ${counted(isFloat(node.dtype) ? 1 : 0).join('')} }`,
    `  ${values.store(node, 'r', 'total')}`,
    '}',
  ]
  return { parameters: values.parameters, body, scratchBytes: 0, ...shared(serial), inPlace: [] }
}

/** A dense copy of a view: for operands that a kernel cannot read in place. */
export function emitCopy(
  base: Node,
  view: { offset: number; shape: readonly number[]; strides: readonly number[] },
): Pick<KernelText, 'body' | 'nature'> {
  const size = sizeOf(view.shape)
  const columns = view.shape.at(-1) ?? 1
  const at = indices(view.shape, { columns, level: 'full' })
  const type = cType[base.dtype]
  const cell = columns === 1 ? 'r' : `r * ${columns} + c`
  const { nature, lines } = rowShare(size, size / columns)
  return {
    nature,
    body: [
      ...lines,
      `const ${type} *const in0 = (const ${type} *)p0;`,
      `${type} *const out1 = (${type} *)p1;`,
      'for (int64_t r = begin; r < end; r++)',
      columns === 1 ? '  {' : `  for (int64_t c = 0; c < ${columns}; c++) {`,
      `    out1[${cell}] = in0[${offsetAt(view, at)}];`,
      '  }',
    ],
  }
}
