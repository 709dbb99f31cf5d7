/**
 * The kernels of one program: C functions by text, so that equal kernels are emitted once, and the choice of a
 * hand-shaped kernel (matrix product, attention) for a node, with the operands it needs copied first.
 *
 * Calling convention: `static void NAME(const int tid, void *p0, …)`, run by every thread of the team; kernels that are
 * shared out by rows (span.ts) take `begin, end` after `tid`.
 */
import { InternalError } from '../../../errors.ts'
import { describe, type Node } from '../../graph/node.ts'
import { sizeOf, stridesOf } from '../../graph/types.ts'
import { callOp, compositeName, optionsOf } from '../../ops/call.ts'
import { convGeometry, convRoles, rolesOf } from '../../ops/convolution.ts'
import { dotAxes, freeAxes } from '../../ops/dot.ts'
import { groupedDotOp } from '../../ops/grouped-dot.ts'
import { groupedOuterOp } from '../../ops/grouped-outer.ts'
import { leavesAttr, leavesOf } from '../../ops/leaves.ts'
import {
  emitAttention,
  emitAttentionBackward,
  emitAttentionBias,
  type BiasShape,
  type AttentionSpec,
  type PairStrides,
  type Strides,
} from './attention.ts'
import { emitCachedAttention, type CachedAttentionSpec } from './cached-attention.ts'
import { constantOf, emitCollective, siteOf, type CollectiveSite } from './collectives.ts'
import { emitConv, type ConvSpec } from './conv.ts'
import type { Element } from './gemm-plan.ts'
import { emitDot, type DotSpec, type EmittedKernel, type Packing } from './gemm.ts'
import { emitGroupedDot, emitGroupedOuter, type RowPlaces } from './grouped.ts'
import { isRowLocal, never, type Locality, type Nature } from './span.ts'
import { uniqueSupport, type Support, type VectorTarget } from './prelude.ts'
import type { KernelText } from './rows.ts'
import { cType } from './values.ts'
import { collapse, denseView, isDense, type View } from './view.ts'

/** Composites with a kernel of their own on this target. */
export const claimed = (composite: string): boolean =>
  ['attention', 'attentionBackward', 'attentionBiasGradient', 'cachedAttention'].includes(composite)

export interface Chosen {
  readonly name: string
  readonly nature: Nature
  readonly scratchBytes: number
  /** Operands that must be copied to dense memory before the call, as these views. */
  readonly copies: ReadonlyMap<number, View>
  readonly operands: readonly ChosenOperand[]
}

export interface ChosenOperand {
  /** Whether it is read only in the rows that the kernel is given. */
  readonly local: Locality
  /** A kernel that brings it into the order it is read in, to be run first, and the bytes of its result. */
  readonly packed?: Packing
}

export class KernelLibrary {
  readonly #target: VectorTarget
  readonly #functions = new Map<string, { name: string; code: string }>()
  readonly #support: Support[] = []
  readonly #counts = new Map<string, number>()
  readonly #emitted = new Map<string, { readonly name: string; readonly kernel: EmittedKernel }>()

  constructor(target: VectorTarget) {
    this.#target = target
  }

  get threads(): number {
    return this.#target.threads
  }

  /** The collectives of the program, in the order of their numbers. */
  readonly collectives: CollectiveSite[] = []
  readonly #channels = new Map<string, number>()

  /** How many channels there are between the stages of a pipeline. */
  get channels(): number {
    return this.#channels.size
  }

  /** A function for one collective, and its number if a group meets in it. */
  collective(node: Node): { readonly name: string; readonly nature: Nature; readonly site?: number } {
    const site = this.collectives.length
    const { constant, ...text } = emitCollective(node, site, (channel) => {
      const number = this.#channels.get(channel) ?? this.#channels.size
      this.#channels.set(channel, number)
      return number
    })
    if (node.op.name !== 'meshIndex') this.collectives.push(siteOf(node))
    const name = this.raw(node.op.name, text, node.inputs.length + 1)
    if (constant === undefined) return { name, nature: text.nature }
    this.#support.push({ name: constantOf(site), code: constant })
    return { name, nature: text.nature, site }
  }

  /** All functions, shared support code first. */
  get code(): string {
    return [uniqueSupport(this.#support), ...[...this.#functions.values()].map(({ code }) => code)].join('\n')
  }

  /** A generated kernel; returns its function's name. */
  text(kind: string, text: KernelText): string {
    const pointers = text.parameters.map(({ node, name, written }, i) => {
      const type = `${written ? '' : 'const '}${cType[node.dtype]}`
      return `${type} *const ${name} = (${type} *)p${i};`
    })
    return this.raw(
      kind,
      {
        ...text,
        scratchBytes: text.scratchBytes + (text.privateBytes ?? 0),
        body: [...pointers, ...text.body],
      },
      text.parameters.length,
    )
  }

  raw(
    kind: string,
    {
      body,
      nature,
      scratchBytes = 0,
    }: Pick<KernelText, 'body' | 'nature'> & { readonly scratchBytes?: number },
    pointers: number,
  ): string {
    const scratch = scratchBytes > 0
    const ranged = nature.kind === 'rows'
    const key = `${scratch}${ranged}${body.join('\n')}`
    const known = this.#functions.get(key)
    if (known) return known.name
    const name = this.#name(kind)
    const parameters = [
      'const int tid',
      ...(ranged ? ['int64_t begin', 'int64_t end'] : []),
      ...Array.from({ length: pointers }, (_, i) => `void *p${i}`),
    ]
    if (scratch) parameters.push('void *scratch')
    const code = `KERNEL ${name}(${parameters.join(', ')}) {\n${['(void)tid;', ...body].map((line) => `  ${line}`).join('\n')}\n}\n`
    this.#functions.set(key, { name, code })
    return name
  }

  #name(kind: string): string {
    const count = this.#counts.get(kind) ?? 0
    this.#counts.set(kind, count + 1)
    return `${kind}_${count}`
  }

  choose(node: Node, views: readonly View[]): Chosen {
    if (node.op.name === 'dot') return this.#dot(node, views)
    if (node.op.name in convRoles) return this.#conv(node, views)
    if (node.op === groupedDotOp || node.op === groupedOuterOp) return this.#grouped(node, views)
    if (node.op === callOp && compositeName(node) === 'cachedAttention')
      return this.#cachedAttention(node, views)
    if (node.op === callOp && claimed(compositeName(node))) return this.#attention(node, views)
    throw new InternalError(`no kernel for ${describe(node)}`)
  }

  #emit(
    kind: string,
    spec: object,
    emit: (name: string) => EmittedKernel,
    copies: ReadonlyMap<number, View>,
    operands: readonly Locality[],
  ): Chosen {
    const key = `${kind}${JSON.stringify(spec)}`
    let known = this.#emitted.get(key)
    if (!known) {
      const name = this.#name(kind)
      known = { name, kernel: emit(name) }
      this.#support.push(...known.kernel.support)
      this.#functions.set(key, { name, code: known.kernel.code })
      this.#emitted.set(key, known)
    }
    const { name, kernel } = known
    const { scratchBytes, nature = { kind: 'team' }, packed, listed } = kernel
    return {
      name,
      nature,
      scratchBytes,
      copies,
      operands: operands.map((local, i) => {
        const packing = [packed, listed].find((one) => one?.operand === i)
        return packing ? { local, packed: packing } : { local }
      }),
    }
  }

  #dot(node: Node, views: readonly View[]): Chosen {
    const [a, b] = views as [View, View]
    const axes = dotAxes(node)
    const [x, y] = node.inputs as [Node, Node]
    const pick = (view: View, list: readonly number[]): { shape: number[]; strides: number[] } => ({
      shape: list.map((axis) => view.shape[axis]!),
      strides: list.map((axis) => view.strides[axis]!),
    })
    const aFree = freeAxes(x.shape, axes.aBatch, axes.aContract)
    const bFree = freeAxes(y.shape, axes.bBatch, axes.bContract)
    // The order of contracted pairs is free: follow a's memory. With leaves, the first stays outermost.
    const leaves = leavesOf(node)
    const place = (i: number): number => (leaves !== undefined && i === 0 ? -1 : axes.aContract[i]!)
    const order = axes.aContract.map((_, i) => i).toSorted((i, j) => place(i) - place(j))
    const aContract = order.map((i) => axes.aContract[i]!)
    const bContract = order.map((i) => axes.bContract[i]!)
    // A group of axes must be one axis in memory; the contracted ones in the same order on both sides.
    const single = (view: View, list: readonly number[]): number | undefined => {
      const { shape, strides } = pick(view, list)
      const dims = collapse(shape, strides)
      return dims.length <= 1 ? (dims[0]?.stride ?? 1) : undefined
    }
    const strideOf = (
      view: View,
      free: readonly number[],
      contract: readonly number[],
    ): { free: number; contract: number } | undefined => {
      const [f, c] = [single(view, free), single(view, contract)]
      return f === undefined || c === undefined ? undefined : { free: f, contract: c }
    }
    const copies = new Map<number, View>()
    interface Settled {
      readonly batch: readonly number[]
      readonly free: number
      readonly contract: number
    }
    const settle = (
      index: number,
      view: View,
      batch: readonly number[],
      free: readonly number[],
      contract: readonly number[],
    ): Settled => {
      const strides = strideOf(view, free, contract)
      if (strides) return { batch: batch.map((axis) => view.strides[axis]!), ...strides }
      // Copied in the order batch, free, contracted, every group is one axis.
      const groups = [batch, free, contract].map((axes) => sizeOf(axes.map((axis) => view.shape[axis]!)))
      const ordered = pick(view, [...batch, ...free, ...contract])
      copies.set(index, { offset: view.offset, ...ordered })
      const inner = stridesOf(batch.map((axis) => view.shape[axis]!)).map(
        (stride) => stride * groups[1]! * groups[2]!,
      )
      return { batch: inner, free: groups[2]!, contract: 1 }
    }
    const left = settle(0, a, axes.aBatch, aFree, aContract)
    const right = settle(1, b, axes.bBatch, bFree, bContract)
    const m = sizeOf(aFree.map((axis) => x.shape[axis]!))
    const n = sizeOf(bFree.map((axis) => y.shape[axis]!))
    const k = sizeOf(axes.aContract.map((axis) => x.shape[axis]!))
    const batchDims = axes.aBatch.map((axis, i) => ({
      size: x.shape[axis]!,
      a: left.batch[i]!,
      b: right.batch[i]!,
    }))
    const dtype = x.dtype as Element
    const spec: DotSpec = {
      a: { dtype, rowStride: left.free, colStride: left.contract },
      b: { dtype, rowStride: right.contract, colStride: right.free },
      out: node.dtype as 'f32' | 'f64',
      batchDims,
      m,
      n,
      k,
      ...leavesAttr(leaves),
    }
    // Rows of the result follow rows of a, when those come first in memory.
    const rows = pick(a, [...axes.aBatch, ...aFree, ...aContract])
    const local: Locality = (count) => isRowLocal({ offset: a.offset, ...rows }, sizeOf(x.shape), count)
    const fixed = axes.aBatch.length === 0 ? local : never
    return this.#emit('dot', spec, (name) => emitDot(name, spec, this.#target), copies, [fixed, never])
  }

  #conv(node: Node, views: readonly View[]): Chosen {
    const result = rolesOf(node)[2]
    const spec: ConvSpec = {
      result,
      dtype: node.dtype as 'f32' | 'f64',
      geometry: convGeometry(node),
      ...leavesAttr(leavesOf(node)),
    }
    const copies = new Map(views.flatMap((view, i) => (isDense(view) ? [] : [[i, view] as const])))
    return this.#emit(
      'conv',
      spec,
      (name) => emitConv(name, spec, this.#target),
      copies,
      views.map(() => never),
    )
  }

  #grouped(node: Node, views: readonly View[]): Chosen {
    const [x, , second] = node.inputs as [Node, Node, Node]
    const copies = new Map<number, View>()
    const rowsOf = (operand: number): RowPlaces => {
      const places = rowPlaces(views[operand]!)
      if (!places) copies.set(operand, views[operand]!)
      return places ?? rowPlaces(denseView(views[operand]!.shape))!
    }
    for (const operand of [1, 3]) if (!isDense(views[operand]!)) copies.set(operand, views[operand]!)
    const common = {
      dtype: x.dtype as 'f32' | 'f64',
      rows: sizeOf(x.shape.slice(0, -1)),
      groups: node.inputs[3]!.shape[0]!,
      inner: x.shape.at(-1)!,
      columns: node.shape.at(-1)!,
      x: rowsOf(0),
    }
    const local = views.map(() => never)
    if (node.op === groupedOuterOp) {
      const spec = { ...common, y: rowsOf(2), leaves: leavesOf(node) ?? 1 }
      const emit = (name: string): EmittedKernel => emitGroupedOuter(name, spec, this.#target)
      return this.#emit('grouped_outer', spec, emit, copies, local)
    }
    const [group, inner, column] = views[2]!.strides.map((stride, i) => (second.shape[i] === 1 ? 1 : stride))
    const spec = { ...common, w: [group!, inner!, column!] as const }
    return this.#emit('grouped_dot', spec, (name) => emitGroupedDot(name, spec, this.#target), copies, local)
  }

  #cachedAttention(node: Node, views: readonly View[]): Chosen {
    const [q, k, , listed] = node.inputs as [Node, Node, Node, Node]
    const [rows, heads, dim] = q.shape as [number, number, number]
    const [held, kvHeads, size] = k.shape as [number, number, number]
    const pages = listed.shape[1]!
    const copies = new Map(views.flatMap((view, i) => (isDense(view) ? [] : [[i, view] as const])))
    const dtype = q.dtype as 'f32' | 'f64'
    const scale = optionsOf(node)['scale'] as number
    const spec: CachedAttentionSpec = { dtype, rows, heads, kvHeads, held, pages, size, dim, scale }
    const emit = (name: string): EmittedKernel => emitCachedAttention(name, spec, this.#target)
    return this.#emit(
      'cached_attention',
      spec,
      emit,
      copies,
      views.map(() => never),
    )
  }

  #attention(node: Node, views: readonly View[]): Chosen {
    const { causal, window, scale, bias, mask, dLse } = optionsOf(node) as {
      causal: boolean
      window: number
      scale: number
      bias?: true
      mask?: true
      dLse?: true
    }
    const composite = compositeName(node)
    const backward = composite !== 'attention'
    const [q, k] = node.inputs as [Node, Node, Node]
    const [batch, queries, heads, dim] = q.shape as [number, number, number, number]
    const [, keys, kvHeads] = k.shape as [number, number, number]
    const firstExtra = backward ? 6 : 3
    const lastExtra = firstExtra + Number(bias ?? false) + Number(mask ?? false)
    const copies = new Map<number, View>()
    const used = views.map((view, i) => {
      const dense = denseView(view.shape)
      const exact = view.strides.every(
        (stride, axis) => stride === dense.strides[axis] || view.shape[axis] === 1,
      )
      // q, k and v may be any view with contiguous heads, bias and mask any view; everything else is read densely.
      const paired = i >= firstExtra && i < lastExtra
      const usable = i < 3 ? view.strides[3] === 1 || dim === 1 : paired || exact
      if (!usable) copies.set(i, view)
      return usable ? view : dense
    })
    const strides = ({ strides: [batch, time, head] }: View): Strides => ({
      batch: batch!,
      time: time!,
      head: head!,
    })
    const pairStrides = (view: View): PairStrides => {
      const [batch, head, query, key] = view.strides.map((stride, axis) =>
        view.shape[axis] === 1 ? 0 : stride,
      )
      return { batch: batch!, head: head!, query: query!, key: key! }
    }
    const spec: AttentionSpec = {
      dtype: q.dtype as 'f32' | 'f64',
      batch,
      queries,
      keys,
      heads,
      kvHeads,
      dim,
      causal,
      window,
      scale,
      q: strides(used[0]!),
      k: strides(used[1]!),
      v: strides(used[2]!),
      ...(bias ? { bias: pairStrides(used[firstExtra]!) } : {}),
      ...(mask ? { mask: pairStrides(used[lastExtra - 1]!) } : {}),
      ...(dLse ? { dLse } : {}),
    }
    if (composite === 'attentionBiasGradient') {
      const shape = node.inputs[firstExtra]!.shape as BiasShape
      const key = { ...spec, biasShape: shape }
      const emitBias = (name: string): EmittedKernel => emitAttentionBias(name, spec, shape, this.#target)
      return this.#emit(
        'attention_bias',
        key,
        emitBias,
        copies,
        views.map(() => never),
      )
    }
    const emit = backward ? emitAttentionBackward : emitAttention
    return this.#emit(
      backward ? 'attention_backward' : 'attention',
      spec,
      (name) => emit(name, spec, this.#target),
      copies,
      views.map(() => never),
    )
  }
}

/** Where the rows of a view lie, if its last axis is contiguous and at most two steps lead from row to row. */
function rowPlaces({ shape, strides }: View): RowPlaces | undefined {
  const dims = collapse(shape.slice(0, -1), strides.slice(0, -1))
  if ((strides.at(-1) !== 1 && shape.at(-1) !== 1) || dims.length > 2) return undefined
  const [outer, inner] = dims.length === 2 ? dims : [dims[0], undefined]
  return { inner: inner?.size ?? 1, outerStep: outer?.stride ?? 0, innerStep: inner?.stride ?? 0 }
}
