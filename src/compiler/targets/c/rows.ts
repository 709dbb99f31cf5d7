/**
 * Row kernels as C: for each row, passes over the columns. A pass computes every member whose inputs are known by then,
 * keeps what later passes need in a small row buffer, stores what other kernels need, and accumulates reductions; the
 * values that exist once a row are plain scalars between passes. Norms, softmax, losses, residual adds, activations and
 * optimizer updates all come out of this one shape.
 */
import type { Node } from '../../graph/node.ts'
import { dtypeBytes, isFloat, sizeOf } from '../../graph/types.ts'
import type { Fusion, RowKernel } from './fuse.ts'
import { hasSimpleColumns, type Position } from './index.ts'
import { localReads, type Locality, type Nature } from './span.ts'
import { collapse } from './view.ts'
import { cType, literal, localType, Values, type Parameter } from './values.ts'

/** A kernel's text before it is named: parameters in order, and the lines of its body. */
export interface KernelText {
  readonly parameters: readonly Parameter[]
  readonly body: readonly string[]
  /** Bytes of scratch memory it wants as a last parameter. */
  readonly scratchBytes: number
  /** Bytes of scratch memory for each thread, likewise. */
  readonly privateBytes?: number
  /** How it is shared out: row kernels take their rows as `begin` and `end`, the others find their share by RANGE. */
  readonly nature: Nature
  /** Which operands are touched only in the kernel's own rows. */
  readonly local: ReadonlyMap<Node, Locality>
  /** Stored inputs whose memory an output may take over: each element is read before it is written. */
  readonly inPlace: readonly { readonly out: Node; readonly input: Node }[]
  /** A second step, which finishes from the same scratch memory once every thread has done the first. */
  readonly finish?: KernelText
}

/** This thread's share [begin, end) of n items, in multiples of `unit`; all of them in a serial kernel. */
export const range = (n: number, unit: number, serial: boolean): string =>
  serial ? `const int64_t begin = 0, end = ${n};` : `RANGE(${n}, ${unit})`

/** Below this many elements, sharing the work costs more than doing it. */
export const serialLimit = 1024

/** Row buffers larger than this together lie in the arena. */
const stackBytes = 64 * 1024

/** How rows are shared out, and the first lines of the kernel: small work is done by one thread, flat work is cut where cache lines end. */
export function rowShare(
  size: number,
  rows: number,
): { readonly nature: Nature; readonly lines: readonly string[] } {
  return size <= serialLimit
    ? { nature: { kind: 'serial' }, lines: [range(rows, 1, true)] }
    : { nature: { kind: 'rows', rows, unit: rows === size ? 64 : 1 }, lines: ['OPAQUE(begin, end)'] }
}

/** Kernels that find their share by themselves, unless one thread does all. */
export const shared = (serial: boolean): Pick<KernelText, 'nature' | 'local'> => ({
  nature: { kind: serial ? 'serial' : 'team' },
  local: new Map(),
})

/** Outputs of at least this size that nothing reads in the program are written past the caches. */
const streamedBytes = 16 * 1024 * 1024

/** Elements of a flat kernel between two streams out of row buffers. */
const streamedRun = 128

/** The row kernel's text; `results` are values that are only read once the program has ended, if by no node. */
export function emitRows(
  kernel: RowKernel,
  fusion: Fusion,
  results: ReadonlySet<Node> = new Set(),
): KernelText {
  const values = new Values(fusion)
  const columns = kernel.columns ?? chooseColumns(kernel, fusion)
  const rows = kernel.size / columns
  const flat = kernel.columns === undefined && rows === 1
  const plan = planPasses(kernel, fusion)
  const streamed = streamedOutputs(kernel, fusion, results, flat ? streamedRun : columns)
  const apart = sumsApart(kernel, fusion, plan)
  const buffered = new Set([...plan.buffered, ...streamed, ...apart])
  const full: Position = { columns, level: 'full' }
  const row: Position = { columns, level: 'row' }
  const nameOf = (node: Node): string => values.nameOf(node)
  // Rows of a matrix norm are whole matrices: more than the stack of a thread that runs us may hold.
  let privateBytes = 0
  const bufferColumns = flat ? streamedRun : columns
  const rowBytes = (node: Node): number =>
    64 * Math.ceil((bufferColumns * (node.dtype === 'f64' ? 8 : 4)) / 64)
  const buffersBytes = [...buffered].reduce((sum, node) => sum + rowBytes(node), 0)
  const rowBuffer = (node: Node): string => {
    const [type, name] = [localType(node.dtype), `${nameOf(node)}_row`]
    if (buffersBytes <= stackBytes) return `${type} ${name}[${bufferColumns}];`
    const at = `(char *)scratch + tid * ${buffersBytes}LL + ${privateBytes}`
    privateBytes += rowBytes(node)
    return `${type} *const ${name} = (${type} *)(${at});`
  }
  const stream = (node: Node): string => {
    const [from, length] = flat ? ['run', 'stop - run'] : [`r * ${columns}`, `${columns}`]
    const bytes = `(${length}) * (int64_t)sizeof(${cType[node.dtype]})`
    return `stream(${values.pointer(node, true)} + ${from}, ${nameOf(node)}_row, ${bytes});`
  }
  const lines: string[] = []
  const indent = flat ? '' : '  '

  for (let pass = 0; pass <= plan.last; pass++) {
    for (const node of plan.scalars.get(pass) ?? []) {
      lines.push(
        `${indent}const ${localType(node.dtype)} ${nameOf(node)} = ${values.expression(node, row)};${count(node)}`,
      )
      values.locals.set(node, nameOf(node))
      if (fusion.stored.has(node)) lines.push(`${indent}${values.store(node, 'r', nameOf(node))}`)
    }
    const members = plan.passes.get(pass) ?? []
    const reductions = plan.reductions.get(pass) ?? []
    if (members.length === 0 && reductions.length === 0) continue
    for (const node of members) {
      if (buffered.has(node)) lines.push(`${indent}${rowBuffer(node)}`)
    }
    for (const node of reductions) {
      const start = node.op.name === 'sum' ? literal(0, node.dtype) : literal(-Infinity, node.dtype)
      lines.push(`${indent}${localType(node.dtype)} ${nameOf(node)} = ${start};`)
    }
    const body: string[] = []
    let flops = 0
    for (const node of members) {
      body.push(`const ${localType(node.dtype)} ${nameOf(node)} = ${values.expression(node, full)};`)
      values.locals.set(node, nameOf(node))
      flops += node.op.flops(node) / kernel.size
    }
    // Stores come last in an iteration, so that an output may take over an input's memory.
    const stores: string[] = []
    const streams: string[] = []
    for (const node of members) {
      if (buffered.has(node)) stores.push(`${nameOf(node)}_row[${flat ? 'c - run' : 'c'}] = ${nameOf(node)};`)
      if (streamed.has(node)) streams.push(stream(node))
      else if (fusion.stored.has(node))
        stores.push(values.store(node, columns === 1 ? 'r' : flat ? 'c' : `r * ${columns} + c`, nameOf(node)))
    }
    const sums: string[] = []
    const alone = members.some((node) => apart.has(node))
    for (const node of reductions) {
      const summed = fusion.source(node.inputs[0]!).base
      const x = apart.has(summed) ? `${nameOf(summed)}_row[c]` : values.operand(node.inputs[0]!, full)
      const total = nameOf(node)
      ;(alone ? sums : body).push(
        node.op.name === 'sum'
          ? `${total} += ${x};`
          : `{ const ${localType(node.dtype)} x = ${x}; ${total} = ${total} < x ? x : ${total}; }`,
      )
      if (isFloat(node.dtype)) flops += 1
    }
    const clause = reductions
      .map((node) => ` reduction(${node.op.name === 'sum' ? '+' : 'max'}:${nameOf(node)})`)
      .join('')
    const own = alone ? '' : clause.trim()
    const text = [...body, ...stores, ...(flops > 0 ? [`COUNT(${flops});`] : [])]
    if (flat && streams.length > 0)
      lines.push(
        `for (int64_t run = begin; run < end; run += ${streamedRun}) {`,
        `  const int64_t stop = run + ${streamedRun} < end ? run + ${streamedRun} : end;`,
        `  SIMD_LOOP(${clause.trim()})`,
        '  for (int64_t c = run; c < stop; c++) {',
        ...text.map((line) => `    ${line}`),
        '  }',
        ...streams.map((line) => `  ${line}`),
        '}',
      )
    else if (flat)
      lines.push(
        `SIMD_LOOP(${clause.trim()})`,
        `for (int64_t c = begin; c < end; c++) {`,
        ...text.map((line) => `  ${line}`),
        '}',
      )
    else if (columns === 1) lines.push(...text.map((line) => `${indent}${line}`))
    else
      lines.push(
        `${indent}SIMD_LOOP(${own})`,
        `${indent}for (int64_t c = 0; c < ${columns}; c++) {`,
        ...text.map((line) => `${indent}  ${line}`),
        `${indent}}`,
        ...(alone
          ? [
              `${indent}SIMD_LOOP(${clause.trim()})`,
              `${indent}for (int64_t c = 0; c < ${columns}; c++) {`,
              ...sums.map((line) => `${indent}  ${line}`),
              `${indent}}`,
            ]
          : []),
        ...streams.map((line) => `${indent}${line}`),
      )
    // Later passes read buffered members from their row buffer, stored ones from memory.
    for (const node of members) {
      if (columns === 1) continue
      if (buffered.has(node)) values.locals.set(node, `${nameOf(node)}_row[c]`)
      else values.locals.delete(node)
    }
    for (const node of reductions) {
      values.locals.set(node, nameOf(node))
      if (fusion.stored.has(node)) lines.push(`${indent}${values.store(node, 'r', nameOf(node))}`)
    }
  }
  const share = rowShare(kernel.size, flat ? kernel.size : rows)
  const body = flat
    ? [...share.lines, 'const int64_t r = 0; (void)r;', ...lines]
    : [...share.lines, 'for (int64_t r = begin; r < end; r++) {', ...lines, '}']
  if (streamed.size > 0) body.push('STREAMED')
  return {
    parameters: values.parameters,
    body,
    scratchBytes: 0,
    privateBytes,
    nature: share.nature,
    local: localReads(
      [...kernel.members.keys()].filter((node) => !fusion.isClosed(node)),
      fusion,
    ),
    inPlace: inPlacePairs(kernel, fusion, plan),
  }
}

/** Large results that no other kernel reads, in rows of whole cache lines. */
function streamedOutputs(
  kernel: RowKernel,
  fusion: Fusion,
  results: ReadonlySet<Node>,
  columns: number,
): Set<Node> {
  const streams = ([node, level]: [Node, 'full' | 'row']): boolean => {
    const bytes = { f32: 4, f64: 8 }[node.dtype as string]
    if (bytes === undefined || level === 'row' || node.op.kind === 'reduce' || !results.has(node))
      return false
    if (kernel.size * bytes < streamedBytes || (columns * bytes) % 64 !== 0) return false
    const inside = [...kernel.members.keys()].filter((reader) =>
      reader.inputs.some((x) => !fusion.isClosed(x) && fusion.source(x).base === node),
    )
    return fusion.readCount(node) === inside.length + 1
  }
  return new Set([...kernel.members].filter(streams).map(([node]) => node))
}

/**
 * Members that are summed in a loop of their own, out of a row buffer. How the C compiler vectorises a loop depends on
 * everything in it: beside elements of another size, or random numbers, it would add up a row in another order. So the
 * bits of a sum do not depend on what it is fused with.
 */
function sumsApart(kernel: RowKernel, fusion: Fusion, plan: Passes): Set<Node> {
  const found = new Set<Node>()
  if (kernel.columns === 1) return found
  for (const [pass, reductions] of plan.reductions) {
    const bytes = dtypeBytes[reductions[0]!.dtype]
    const differs = (node: Node): boolean => dtypeBytes[node.dtype] !== bytes
    const members = plan.passes.get(pass) ?? []
    const disturbs = (node: Node): boolean =>
      node.op.kind === 'leaf' ||
      node.op.kind === 'index' ||
      (fusion.stored.has(node) && differs(node)) ||
      node.inputs.some((x) => {
        const base = fusion.isClosed(x) ? undefined : fusion.source(x).base
        return base && !kernel.members.has(base) && differs(base)
      })
    if (!members.some(disturbs)) continue
    for (const node of reductions) {
      const { base } = fusion.source(node.inputs[0]!)
      if (members.includes(base)) found.add(base)
    }
  }
  return found
}

const count = (node: Node): string => {
  const flops = node.op.flops(node)
  return flops > 0 ? ` COUNT(${flops / sizeOf(node.shape)});` : ''
}

interface Passes {
  readonly last: number
  /** Full members by pass. */
  readonly passes: Map<number, Node[]>
  /** Reductions by the pass that accumulates them. */
  readonly reductions: Map<number, Node[]>
  /** Row values by the pass before which they are computed. */
  readonly scalars: Map<number, Node[]>
  /** Full members that a later pass reads. */
  readonly buffered: ReadonlySet<Node>
  readonly passOf: ReadonlyMap<Node, number>
}

function planPasses(kernel: RowKernel, fusion: Fusion): Passes {
  // For full members: the pass that computes them; for row members: the first pass that may read them.
  const ready = new Map<Node, number>()
  const passes = new Map<number, Node[]>()
  const reductions = new Map<number, Node[]>()
  const scalars = new Map<number, Node[]>()
  const buffered = new Set<Node>()
  const passOf = new Map<Node, number>()
  const put = (list: Map<number, Node[]>, pass: number, node: Node): void => {
    list.set(pass, [...(list.get(pass) ?? []), node])
    passOf.set(node, pass)
  }
  let last = 0
  for (const [node, level] of kernel.members) {
    const inside = node.inputs.flatMap((x) => {
      const base = fusion.isClosed(x) ? undefined : fusion.source(x)?.base
      return base && kernel.members.has(base) && base !== node ? [base] : []
    })
    const pass = Math.max(0, ...inside.map((base) => ready.get(base)!))
    last = Math.max(last, pass)
    if (node.op.kind === 'reduce') {
      put(reductions, pass, node)
      ready.set(node, pass + 1)
    } else {
      put(level === 'full' ? passes : scalars, pass, node)
      ready.set(node, pass)
    }
    if (level === 'full' || node.op.kind === 'reduce') {
      for (const base of inside)
        if (kernel.members.get(base) === 'full' && ready.get(base)! < pass) buffered.add(base)
    }
  }
  for (const pass of scalars.keys()) last = Math.max(last, pass)
  return { last, passes, reductions, scalars, buffered, passOf }
}

/** The longest column run that keeps all indexing simple; the whole space when everything is dense. */
function chooseColumns(kernel: RowKernel, fusion: Fusion): number {
  const views = [...kernel.members.keys()].flatMap((node) =>
    node.inputs.flatMap((x) =>
      fusion.isClosed(x) || sizeOf(x.shape) === 1 || node.op.name === 'gather' ? [] : [fusion.source(x).view],
    ),
  )
  const root = [...kernel.members.keys()].at(-1)!
  const special = [...kernel.members.keys()].some(
    (node) => node.op.name === 'gather' || node.inputs.some((x) => fusion.isClosed(x) && !isUniform(x)),
  )
  const dense = views.every(
    (view) =>
      sizeOf(view.shape) === kernel.size &&
      collapse(view.shape, view.strides).every((dim, i) => i === 0 && dim.stride <= 1) &&
      view.offset === 0,
  )
  if (dense && !special) return kernel.size
  const gather = [...kernel.members.keys()].find((node) => node.op.name === 'gather')
  const shape = gather ? gather.shape : root.shape
  let columns = shape.at(-1) ?? 1
  if (special) return columns
  for (let axis = shape.length - 2; axis >= 0; axis--) {
    const longer = columns * shape[axis]!
    if (kernel.size / longer < 64 || !views.every((view) => hasSimpleColumns(view, longer))) break
    columns = longer
  }
  return columns
}

/** Constants look the same at every index; masks and positions do not. */
const isUniform = (node: Node): boolean =>
  node.op.name === 'constant' || (node.op.name === 'broadcast' && isUniform(node.inputs[0]!))

function inPlacePairs(kernel: RowKernel, fusion: Fusion, plan: Passes): { out: Node; input: Node }[] {
  const pairs: { out: Node; input: Node }[] = []
  // An input qualifies when every read of it is element for element and no later than the pass that stores the output.
  const reads = new Map<Node, { last: number; direct: boolean; level: 'full' | 'row' }>()
  for (const [node, level] of kernel.members) {
    for (const x of node.inputs) {
      if (fusion.isClosed(x)) continue
      const { base, view } = fusion.source(x)
      if (kernel.members.has(base)) continue
      const dims = collapse(view.shape, view.strides)
      const readLevel = node.op.kind === 'reduce' ? 'full' : level
      const direct =
        node.op.name !== 'gather' &&
        view.offset === 0 &&
        sizeOf(view.shape) === sizeOf(base.shape) &&
        (dims.length === 0 || (dims.length === 1 && dims[0]!.stride === 1))
      const known = reads.get(base)
      reads.set(base, {
        last: Math.max(known?.last ?? 0, plan.passOf.get(node)!),
        direct: direct && (known?.direct ?? true) && (known?.level ?? readLevel) === readLevel,
        level: readLevel,
      })
    }
  }
  for (const [out, level] of kernel.members) {
    if (!fusion.stored.has(out) || out.op.kind === 'reduce') continue
    for (const [input, read] of reads) {
      if (
        read.direct &&
        read.level === level &&
        read.last <= plan.passOf.get(out)! &&
        sizeOf(input.shape) === sizeOf(out.shape) &&
        input.dtype === out.dtype
      ) {
        pairs.push({ out, input })
      }
    }
  }
  return pairs
}
