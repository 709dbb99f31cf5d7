/**
 * Fusion: which nodes become one kernel. Elementwise work and reductions over trailing axes are gathered into *row
 * kernels* (for each row: one or more passes over its columns); products, attention, gathers into tables, loops and
 * joins stand alone. Two rules keep it simple and exact: arithmetic is never duplicated, so the emitted program does the
 * graph's FLOPs and no more, and a node joins a kernel only behind all producers of its inputs, so order is never
 * violated.
 */
import { InternalError } from '../../../errors.ts'
import { reachable, type Func, type Node } from '../../graph/node.ts'
import { sizeOf } from '../../graph/types.ts'
import { reducedAxes } from '../../ops/reduce.ts'
import { accessOf, denseView, isViewOp, viewThrough, type Access, type View } from './view.ts'

/** A node as an operand: the stored or computed node it shows, and how. */
export interface Source {
  readonly base: Node
  readonly view: View
}

/** For each row, passes over its columns: elementwise nodes and reductions that share one iteration space. */
export interface RowKernel {
  readonly kind: 'rows'
  /** Elements of the full iteration space. */
  readonly size: number
  /** Columns of a row once a reduction or a row broadcast has fixed them. */
  columns: number | undefined
  /** Members in order; `row` members have one value a row. */
  readonly members: Map<Node, 'full' | 'row'>
  /** Kernels, by position, that must have run before, though this one may read nothing of theirs. */
  readonly behind: number[]
}

/** Any other node that is a kernel (or loop) of its own, with the elementwise work fused into its inputs. */
export interface SingleKernel {
  readonly kind: 'single'
  readonly node: Node
  /** Elementwise nodes evaluated inside, private to this kernel. */
  readonly fused: ReadonlySet<Node>
  readonly behind: readonly number[]
}

export type FusedKernel = RowKernel | SingleKernel

export interface Fusion {
  readonly kernels: readonly FusedKernel[]
  /** Nodes that live in memory (besides parameters). */
  readonly stored: ReadonlySet<Node>
  source(node: Node): Source
  /** How many nodes read a base (program results count). */
  readCount(node: Node): number
  /** Values without inputs and without FLOPs (masks, positions, constants): recomputed wherever they are read. */
  isClosed(node: Node): boolean
}

const isPointwise = (node: Node): boolean => node.op.kind === 'elementwise' || readsWhole(node)

/** Pointwise in what they write, but they read whole operands, which must therefore be stored. */
const readsWhole = (node: Node): boolean => node.op.name === 'gather' || node.op.name === 'random'

/** Reduction over the last axes only: the columns of a row kernel. */
export function trailingColumns(node: Node): number | undefined {
  if (node.op.kind !== 'reduce') return undefined
  const { shape } = node.inputs[0]!
  const axes = reducedAxes(node)
  const firstReduced = Math.min(...axes)
  const trailing = shape.every((extent, axis) => axes.includes(axis) === axis >= firstReduced || extent === 1)
  const rows = sizeOf(node.shape)
  // A reduction to one value has no rows to share out: it is a kernel of its own with a fixed tree.
  return trailing && rows > 1 ? sizeOf(shape) / rows : undefined
}

export function fuse(func: Func): Fusion {
  const nodes = reachable([...func.params, ...func.results])
  const closed = closedNodes(nodes)
  const { sources, copies } = resolveViews(nodes, closed)
  const source = (node: Node): Source => sources.get(node)!

  // Who reads each base, and whether element for element.
  const readers = new Map<Node, Set<Node>>()
  const exposed = new Set<Node>()
  for (const node of nodes) {
    if (isViewOp(node) && !copies.has(node)) continue
    for (const input of node.inputs) {
      if (closed.has(input)) continue
      const { base, view } = sources.get(input) ?? { base: input, view: denseView([]) }
      const list = readers.get(base) ?? new Set()
      readers.set(base, list)
      const pointwise = isPointwise(node) ? !readsWhole(node) : fusesInputs(node)
      // A join evaluates each part on its own: a value in two parts would be computed twice.
      const repeated = node.op.name === 'concat' && list.has(node)
      list.add(node)
      if (!pointwise || repeated || copies.has(node) || accessOf(view, sizeOf(base.shape)).kind !== 'same')
        exposed.add(base)
    }
  }
  const results = new Set(func.results.map((result) => source(result)?.base ?? result))
  const isPrivate = (node: Node): boolean =>
    isPointwise(node) && !results.has(node) && !exposed.has(node) && readers.get(node)?.size === 1
  const privateOf = (root: Node): Set<Node> => {
    const found = new Set<Node>()
    const visit = (node: Node): void => {
      for (const input of node.inputs) {
        const { base } = sources.get(input) ?? { base: input }
        if (!closed.has(input) && !found.has(base) && isPrivate(base)) {
          found.add(base)
          visit(base)
        }
      }
    }
    visit(root)
    return found
  }

  const kernels: FusedKernel[] = []
  const position = new Map<Node, number>()
  const behind = barrierTokens(nodes)
  // A private node is not placed before its reader is; it can be no earlier than its inputs.
  const placeOf = (node: Node): number => {
    const base = sources.get(node)?.base ?? node
    return position.get(base) ?? Math.max(-1, ...base.inputs.map(placeOf))
  }
  const stored = new Set<Node>()
  const params = new Set(func.params)
  const needed = [...nodes].filter(
    (node) =>
      !params.has(node) &&
      ((closed.has(node) && needsStorage(node, nodes, results, source)) ||
        (!closed.has(node) && (!isViewOp(node) || copies.has(node)))),
  )
  for (const node of needed) {
    if (node.op.name === 'get' || isPrivate(node)) {
      if (node.op.name === 'get') {
        position.set(node, position.get(node.inputs[0]!)!)
        stored.add(node)
      }
      continue
    }
    const fused = closed.has(node) || copies.has(node) ? new Set<Node>() : privateOf(node)
    const operands = operandsOf(node, fused, closed, source)
    const rowMember =
      closed.has(node) || copies.has(node) || isPointwise(node) || trailingColumns(node) !== undefined
    const tokens = [node, ...fused].flatMap((reader) => reader.inputs.flatMap((x) => behind.get(x) ?? []))
    const after = tokens.map(placeOf).filter((place) => place >= 0)
    const latest = Math.max(-1, ...operands.map(({ base }) => position.get(base) ?? -1), ...after)
    if (!rowMember) {
      position.set(node, kernels.push({ kind: 'single', node, fused, behind: after }) - 1)
      continue
    }
    const home = kernels[latest]
    if (home?.kind === 'rows' && join(home, node, fused, operands)) {
      position.set(node, latest)
      home.behind.push(...after.filter((place) => place !== latest))
    } else {
      const fresh: RowKernel = {
        kind: 'rows',
        size: fullSize(node),
        columns: undefined,
        members: new Map(),
        behind: after,
      }
      if (!join(fresh, node, fused, operands))
        throw new InternalError(`cannot place ${node.op.name} in a kernel`)
      position.set(node, kernels.push(fresh) - 1)
    }
    for (const inner of fused) position.set(inner, position.get(node)!)
  }
  for (const kernel of kernels) {
    if (kernel.kind === 'single') {
      if (kernel.node.op.kind !== 'structure') stored.add(kernel.node)
      continue
    }
    const at = position.get([...kernel.members.keys()].at(-1)!)!
    for (const member of kernel.members.keys()) {
      const outside = [...(readers.get(member) ?? [])].some((reader) => position.get(reader) !== at)
      if (outside || results.has(member) || (closed.has(member) && needed.includes(member)))
        stored.add(member)
    }
  }
  return {
    kernels,
    stored,
    source,
    isClosed: (node) => closed.has(node),
    readCount(node) {
      const users = closed.has(node)
        ? nodes.filter((user) => user.inputs.includes(node) && readsMemory(user)).length
        : (readers.get(node)?.size ?? 0)
      return users + (results.has(node) ? 1 : 0)
    },
  }
}

/** Single kernels that can evaluate elementwise inputs on the fly. */
const fusesInputs = (node: Node): boolean =>
  trailingColumns(node) !== undefined ||
  node.op.name === 'concat' ||
  (node.op.kind === 'reduce' && (leadingReduce(node) || middleReduce(node) !== undefined))

/** Reductions over leading axes (column sums) or over everything. */
export function leadingReduce(node: Node): boolean {
  const axes = reducedAxes(node)
  return node.inputs[0]!.shape.every(
    (extent, axis) => axes.includes(axis) === axis < axes.length || extent === 1,
  )
}

/** Reductions over neighbouring axes with some before and some behind: how many rows are added to one, and their columns. */
export function middleReduce(node: Node): { readonly terms: number; readonly columns: number } | undefined {
  const axes = reducedAxes(node).toSorted((a, b) => a - b)
  const { shape } = node.inputs[0]!
  const last = axes.at(-1)!
  if (last - axes[0]! !== axes.length - 1 || node.dtype === 'bf16') return undefined
  const columns = sizeOf(shape.slice(last + 1))
  return columns > 1 ? { terms: sizeOf(axes.map((axis) => shape[axis]!)), columns } : undefined
}

const fullSize = (node: Node): number => sizeOf((node.op.kind === 'reduce' ? node.inputs[0]! : node).shape)

function closedNodes(nodes: readonly Node[]): Set<Node> {
  const closed = new Set<Node>()
  for (const node of nodes) {
    const inputs = node.op.name === 'barrier' ? node.inputs.slice(0, 1) : node.inputs
    const free = inputs.every((x) => closed.has(x)) && node.op.flops(node) === 0
    const simple = node.op.kind === 'leaf' || node.op.kind === 'elementwise' || isViewOp(node)
    if (free && simple && node.op.name !== 'input' && node.op.name !== 'random') closed.add(node)
  }
  return closed
}

/** A closed value must be stored when something reads it that cannot evaluate an expression. */
function needsStorage(
  node: Node,
  nodes: readonly Node[],
  results: ReadonlySet<Node>,
  source: (node: Node) => Source,
): boolean {
  if (results.has(source(node).base) && source(node).base === node) return true
  return nodes.some((user) => user.inputs.includes(node) && readsMemory(user))
}

/** Ops that read their operands from memory and cannot evaluate an expression in their place. */
const readsMemory = (node: Node): boolean =>
  !isViewOp(node) && !(isPointwise(node) && !readsWhole(node)) && !fusesInputs(node)

/** For values seen through barriers: what has to be computed before they may be read. */
function barrierTokens(nodes: readonly Node[]): ReadonlyMap<Node, readonly Node[]> {
  const tokens = new Map<Node, readonly Node[]>()
  for (const node of nodes) {
    if (!isViewOp(node)) continue
    const below = tokens.get(node.inputs[0]!) ?? []
    tokens.set(node, node.op.name === 'barrier' ? [...below, node.inputs[1]!] : below)
  }
  return tokens
}

/** Finds the base and view of every node, and the view ops that have to be stored because strides cannot say them. */
function resolveViews(
  nodes: readonly Node[],
  closed: ReadonlySet<Node>,
): { sources: Map<Node, Source>; copies: Set<Node> } {
  const sources = new Map<Node, Source>()
  const copies = new Set<Node>()
  for (const node of nodes) {
    if (node.types.length !== 1) continue
    if (closed.has(node) || !isViewOp(node)) {
      sources.set(node, { base: node, view: denseView(node.shape) })
      continue
    }
    const input = node.inputs[0]!
    const below = sources.get(input)!
    let view = viewThrough(node, below.view)
    let { base } = below
    if (!view) {
      // Store the value under this reshape as it is read; from here on it is dense.
      copies.add(node)
      base = node
      view = denseView(node.shape)
    }
    sources.set(node, { base, view })
  }
  return { sources, copies }
}

interface Operand extends Source {
  readonly access: Access
  readonly reader: Node
}

/** What a unit (a root with its private nodes) reads from outside itself. */
function operandsOf(
  root: Node,
  fused: ReadonlySet<Node>,
  closed: ReadonlySet<Node>,
  source: (node: Node) => Source,
): Operand[] {
  if (closed.has(root)) return []
  return [root, ...fused].flatMap((reader) =>
    reader.inputs
      .filter((input) => !closed.has(input))
      .flatMap((input) => {
        const { base, view } = input.types.length === 1 ? source(input) : { base: input, view: denseView([]) }
        if (fused.has(base)) return []
        return [
          {
            base,
            view,
            reader,
            access: readsWhole(reader)
              ? ({ kind: 'other' } as const)
              : accessOf(view, sizeOf(base.types[0]!.shape)),
          },
        ]
      }),
  )
}

/** Adds a unit to a row kernel if iteration spaces agree and nothing inside is read across rows. */
function join(
  kernel: RowKernel,
  root: Node,
  fused: ReadonlySet<Node>,
  operands: readonly Operand[],
): boolean {
  const inside = operands.filter(({ base }) => kernel.members.has(base))
  const columns = root.op.kind === 'reduce' ? trailingColumns(root) : undefined
  const size = fullSize(root)
  const touchesRow = inside.some(
    ({ base, access }) => kernel.members.get(base) === 'row' && access.kind === 'same',
  )
  const level = touchesRow && columns === undefined ? 'row' : 'full'
  let fixed = kernel.columns
  const fix = (count: number): boolean => {
    if (fixed !== undefined && fixed !== count) return false
    fixed = count
    return kernel.size % count === 0
  }
  if (level === 'full' && size !== kernel.size) return false
  if (level === 'row' && (kernel.columns === undefined || size * kernel.columns !== kernel.size)) return false
  if (columns !== undefined && !fix(columns)) return false
  for (const { base, access } of inside) {
    const member = kernel.members.get(base)!
    if (access.kind === 'other') return false
    if (member === level && access.kind !== 'same') return false
    if (member === 'full' && level === 'row') return false
    if (member === 'row' && level === 'full' && (access.kind !== 'row' || !fix(access.columns))) return false
  }
  kernel.columns = fixed
  // Private nodes share the root's iteration space; a reduction's own value is one per row.
  for (const node of [...fused].toSorted((a, b) => a.id - b.id)) kernel.members.set(node, level)
  kernel.members.set(root, columns === undefined ? level : 'row')
  return true
}
