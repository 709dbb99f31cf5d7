/**
 * The kernels of one program: C functions by text, so that equal kernels are emitted once, and the choice of a
 * hand-shaped kernel (matrix product, attention) for a node, with the operands it needs copied first.
 *
 * Calling convention: `static void NAME(const int tid, void *p0, …)`, run by every thread of the team.
 */
import { InternalError } from '../../../errors.ts'
import { describe, type Node } from '../../graph/node.ts'
import { sizeOf, stridesOf } from '../../graph/types.ts'
import { callOp, compositeName, optionsOf } from '../../ops/call.ts'
import { dotAxes, freeAxes } from '../../ops/dot.ts'
import {
  emitAttention,
  emitAttentionBackward,
  emitAttentionBias,
  type BiasShape,
  type AttentionSpec,
  type PairStrides,
  type Strides,
} from './attention.ts'
import { emitDot, type DotSpec, type EmittedKernel } from './gemm.ts'
import { uniqueSupport, type Support, type VectorTarget } from './prelude.ts'
import type { KernelText } from './rows.ts'
import { cType } from './values.ts'
import { collapse, denseView, type View } from './view.ts'

/** Composites with a kernel of their own on this target. */
export const claimed = (composite: string): boolean =>
  composite === 'attention' || composite === 'attentionBackward' || composite === 'attentionBiasGradient'

export interface Chosen {
  readonly name: string
  readonly scratchBytes: number
  /** Operands that must be copied to dense memory before the call, as these views. */
  readonly copies: ReadonlyMap<number, View>
  /** Where each operand starts in its memory, in elements. */
  readonly offsets: readonly number[]
}

export class KernelLibrary {
  readonly #target: VectorTarget
  readonly #functions = new Map<string, { name: string; code: string }>()
  readonly #support: Support[] = []
  readonly #counts = new Map<string, number>()
  readonly #chosen = new Map<string, Chosen>()

  constructor(target: VectorTarget) {
    this.#target = target
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
    return this.raw(kind, [...pointers, ...text.body], text.parameters.length, text.scratchBytes > 0)
  }

  raw(kind: string, body: readonly string[], pointers: number, scratch = false): string {
    const key = `${scratch}${body.join('\n')}`
    const known = this.#functions.get(key)
    if (known) return known.name
    const name = this.#name(kind)
    const parameters = ['const int tid', ...Array.from({ length: pointers }, (_, i) => `void *p${i}`)]
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
    if (node.op === callOp && claimed(compositeName(node))) return this.#attention(node, views)
    throw new InternalError(`no kernel for ${describe(node)}`)
  }

  #emit(
    kind: string,
    spec: object,
    emit: (name: string) => { code: string; support: readonly Support[]; scratchBytes: number },
    copies: ReadonlyMap<number, View>,
    views: readonly View[],
  ): Chosen {
    const offsets = views.map((view, i) => (copies.has(i) ? 0 : view.offset))
    const key = `${kind}${JSON.stringify(spec)}`
    const known = this.#chosen.get(key)
    if (known) return { ...known, copies, offsets }
    const name = this.#name(kind)
    const { code, support, scratchBytes } = emit(name)
    this.#support.push(...support)
    this.#functions.set(key, { name, code })
    const chosen = { name, scratchBytes, copies, offsets }
    this.#chosen.set(key, chosen)
    return chosen
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
    // The order of contracted pairs is free: follow a's memory.
    const order = axes.aContract.map((_, i) => i).toSorted((i, j) => axes.aContract[i]! - axes.aContract[j]!)
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
    const dtype = x.dtype as 'f32' | 'f64' | 'bf16'
    const spec: DotSpec = {
      a: { dtype, rowStride: left.free, colStride: left.contract },
      b: { dtype, rowStride: right.contract, colStride: right.free },
      out: node.dtype as 'f32' | 'f64',
      batchDims,
      m,
      n,
      k,
    }
    return this.#emit('dot', spec, (name) => emitDot(name, spec, this.#target), copies, views)
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
      return this.#emit('attention_bias', key, emitBias, copies, views)
    }
    const emit = backward ? emitAttentionBackward : emitAttention
    return this.#emit(
      backward ? 'attention_backward' : 'attention',
      spec,
      (name) => emit(name, spec, this.#target),
      copies,
      views,
    )
  }
}
