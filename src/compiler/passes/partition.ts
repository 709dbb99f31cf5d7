/**
 * From one program for one device to one local program that every rank of a mesh runs (Xu et al., GSPMD). Walking
 * the graph once, inputs before users, each op gets the layout that suits its operands (`layouts.ts`); where an
 * operand lies otherwise it is moved (`reshard.ts`), and every layout a value has had is remembered, so that it travels
 * once. Values that cost nothing (constants, positions, repetitions) are made in whatever layout is asked for.
 *
 * Data parallelism, ZeRO, tensor and sequence parallelism are all of this: rules for where parameters and inputs lie.
 * Models know nothing of it.
 */
import { InternalError } from '../../errors.ts'
import { compositeByName } from '../composites/index.ts'
import { invoke } from '../composites/composite.ts'
import { currentGraph, onBehalfOf, reachable, type Func, type Node } from '../graph/node.ts'
import {
  alsoCut,
  isWhole,
  layoutKey,
  localShape,
  piecesOf,
  resolved,
  sameLayout,
  whole,
  type Layout,
  type Mesh,
} from '../graph/mesh.ts'
import { valueType, type ValueType } from '../graph/types.ts'
import { broadcast } from '../ops/broadcast.ts'
import { callOp, compositeName, optionsOf } from '../ops/call.ts'
import { constantOf, fill } from '../ops/constant.ts'
import { get, getOp } from '../ops/get.ts'
import { reshape } from '../ops/reshape.ts'
import { input, inputOp } from '../ops/input.ts'
import { scan, scanAttrs, scanOp } from '../ops/scan.ts'
import { receiveOp, sendOp } from '../ops/send.ts'
import { Tensor } from '../trace/tensor.ts'
import { keyOf, type Apart } from './apart.ts'
import { compositeFactors } from './composite-layouts.ts'
import { contextAttention, contextAxis } from './context-attention.ts'
import { decide, type Decision, type Operand, type Placement } from './layouts.ts'
import { localIota, localOp, throughReshape } from './local.ts'
import { divides, nearest, reshard, type Held } from './reshard.ts'
import { shardedRows, shardedRowSums } from './sharded-table.ts'

/** How one parameter of the program lies, and whether what is made from it counts as weights. */
export interface InputPlace {
  readonly layout: Layout
  readonly weight: boolean
}

/** The local program. Results lie as `outputs` says; null: wherever they come to lie, but not partial. */
export function partition(
  func: Func,
  placement: Placement,
  inputs: readonly InputPlace[],
  outputs: readonly (Layout | null)[],
): { readonly func: Func; readonly outputs: readonly Layout[] } {
  const scope = currentGraph().scope()
  const params = func.params.map((param, i) =>
    input(scope, String(param.attrs['name']), localType(placement.mesh, param.type, inputs[i]!.layout)),
  )
  const body = new Body(
    placement,
    func,
    params.map((node, i) => ({ node, ...inputs[i]!, soft: none })),
  )
  const results = func.results.map((result, i) => body.settled(result, outputs[i] ?? undefined))
  return {
    func: currentGraph().func(
      func.name,
      params,
      results.map(({ node }) => node),
    ),
    outputs: results.map(({ layout }) => layout),
  }
}

const none: ReadonlySet<string> = new Set()

export const localType = (mesh: Mesh, type: ValueType, layout: Layout): ValueType =>
  valueType(type.dtype, localShape(mesh, layout, type.shape), type.axes)

/** A value of the whole program, by the local nodes that hold it. The first is the one it was made as. */
interface Value extends Operand {
  readonly held: Held[]
}

/** What a parameter of a function is bound to; null: something that can be made in any layout. */
type Bound = (Operand & { readonly node: Node }) | null

class Body {
  readonly #placement: Placement
  readonly #mesh: Mesh
  readonly #values = new Map<Node, Value>()
  /** Results of ops that have several. */
  readonly #several = new Map<Node, readonly Value[]>()
  readonly #free = new Map<Node, Map<string, Node>>()
  readonly #isFree = new Set<Node>()

  constructor(placement: Placement, func: Func, params: readonly Bound[]) {
    this.#placement = placement
    this.#mesh = placement.mesh
    func.params.forEach((param, i) => {
      const bound = params[i]
      if (bound)
        this.#values.set(param, held(bound.node, bound.layout, bound.soft, bound.weight, bound.apart))
      else this.#isFree.add(param)
    })
    for (const node of reachable([...func.params, ...func.results])) {
      if (!this.#values.has(node) && node.op !== inputOp) onBehalfOf(node, () => this.#place(node))
    }
  }

  /** A node in the layout asked for. */
  as(node: Node, layout: Layout): Node {
    if (this.#isFree.has(node)) return this.#made(node, layout)
    const { held } = this.#value(node)
    const known = held.find((one) => sameLayout(one.layout, layout))
    if (known) return known.node
    if (isRepetition(node)) return this.#repeated(node, layout)
    const from = nearest(this.#mesh, held, layout)
    return reshard(this.#mesh, from, layout, (one) => {
      if (!held.some((other) => sameLayout(other.layout, one.layout))) held.push(one)
    })
  }

  /** A result in the layout asked for, or in its own with nothing left to combine. */
  settled(node: Node, wanted?: Layout): Held {
    const layout = wanted ?? resolved(this.operand(node)?.layout ?? whole(node.shape.length))
    return { layout, node: this.as(node, layout) }
  }

  /** How a node lies, as its readers see it: combined where it has been combined already. Null: in any layout. */
  operand(node: Node): Operand | null {
    if (this.#isFree.has(node)) return null
    const value = this.#value(node)
    const combined = value.held.find(({ layout }) => Object.keys(layout.partial).length === 0)
    return combined ? { ...value, layout: combined.layout } : value
  }

  #value(node: Node): Value {
    const value = this.#values.get(node)
    if (!value) throw new InternalError(`partition: ${node.op.name} %${node.id} was not placed`)
    return value
  }

  #place(node: Node): void {
    if (node.op === getOp) {
      this.#values.set(node, this.#several.get(node.inputs[0]!)![node.attrs['index'] as number]!)
      return
    }
    if (node.op === scanOp) return this.#scan(node)
    if (node.op === callOp) return this.#call(node)
    const cheap = node.op.kind === 'leaf' || node.op.kind === 'elementwise' || node.op.name === 'broadcast'
    if (
      cheap &&
      node.inputs.every((x) => this.#isFree.has(x) || x.shape.length === 0) &&
      this.#isMadeFromFree(node)
    ) {
      this.#isFree.add(node)
      return
    }
    const operands = node.inputs.map((x) => this.operand(x))
    const weight = this.#isWeight(operands)
    if (isRepetition(node)) {
      // Made when it is asked for; its readers see the cuts of what it repeats.
      const { results } = decide(
        node,
        node.op.factors(node),
        [resolvedOperand(operands[0]!)],
        this.#placement,
      )
      this.#values.set(node, { held: [], layout: results[0]!, soft: operands[0]?.soft ?? none, weight })
      return
    }
    if (node.op.name === 'reshape') {
      const own = operands[0]?.layout ?? whole(node.inputs[0]!.shape.length)
      const { input, result } = throughReshape(this.#mesh, node.inputs[0]!.shape, node.shape, own)
      this.#hold(node, this.#local(node, [input], result), result, operands[0]?.soft ?? none, weight)
      return
    }
    if (node.op.name === 'barrier') {
      // What is waited for is never moved.
      const layouts = node.inputs.map((x) => this.operand(x)?.layout ?? whole(x.shape.length))
      const result = resolved(layouts[0]!)
      this.#hold(
        node,
        this.#local(node, [result, layouts[1]!], result),
        result,
        operands[0]?.soft ?? none,
        weight,
      )
      return
    }
    if (node.op === receiveOp) {
      // Both ends know how what crosses between stages lies.
      const layout = this.#placement.boundary(node.type)
      const after = node.inputs.map((x) => this.as(x, this.operand(x)?.layout ?? whole(x.shape.length)))
      const shape = localShape(this.#mesh, layout, node.shape)
      const soft = new Set(this.#placement.weightAxes.filter((axis) => layout.dims.flat().includes(axis)))
      this.#hold(node, currentGraph().intern(node.op, after, { ...node.attrs, shape }), layout, soft, false)
      return
    }
    if (node.op === sendOp) {
      this.#hold(
        node,
        this.#local(node, [this.#placement.boundary(node.inputs[0]!.type)], whole(0)),
        whole(0),
        none,
        false,
      )
      return
    }
    const table = shardedRows(node, operands) ?? shardedRowSums(node, this.#placement)
    if (table) {
      const made = table.make(this.#mesh, (x, layout) => this.as(x, layout), operands)
      this.#hold(node, made.node, made.layout, none, weight)
      return
    }
    const { inputs, results, soft, apart } = decide(node, node.op.factors(node), operands, this.#placement)
    const made = this.#local(node, inputs, results[0]!)
    this.#hold(node, made, results[0]!, soft, weight, apart)
    this.#cutByName(node, soft, weight)
  }

  /** Free: made from nothing that lies anywhere. Scalars count when they are made of free values or are whole. */
  #isMadeFromFree(node: Node): boolean {
    if (node.op.name === 'random') return node.shape.length > 0
    return node.inputs.every((x) => this.#isFree.has(x))
  }

  #isWeight(operands: readonly (Operand | null)[]): boolean {
    const real = operands.filter((operand) => operand !== null)
    return real.length > 0 && real.every(({ weight }) => weight)
  }

  #hold(
    node: Node,
    made: Node,
    layout: Layout,
    soft: ReadonlySet<string>,
    weight: boolean,
    apart?: Apart,
  ): void {
    this.#values.set(node, held(made, layout, soft, weight, apart))
  }

  #local(node: Node, inputs: readonly Layout[], result: Layout): Node {
    const local = node.inputs.map((x, i) => this.as(x, inputs[i]!))
    return localOp(this.#mesh, node, local, inputs, result)
  }

  /** A slice with a named dimension that the rules cut, and which is whole so far, is cut here: nothing travels. */
  #cutByName(node: Node, soft: ReadonlySet<string>, weight: boolean): void {
    if (node.op.name !== 'slice') return
    const { layout } = this.#value(node)
    const cut = namedCuts(this.#placement, node.type, layout)
    if (sameLayout(cut, layout)) return
    this.#hold(node, this.as(node, cut), cut, soft, weight)
  }

  /** A free node in a layout. */
  #made(node: Node, layout: Layout): Node {
    const known = this.#free.get(node) ?? new Map<string, Node>()
    this.#free.set(node, known)
    const key = layoutKey(layout)
    let made = known.get(key)
    if (!made) {
      made = onBehalfOf(node, () => this.#make(node, layout))
      known.set(key, made)
    }
    return made
  }

  #make(node: Node, layout: Layout): Node {
    const { name, kind } = node.op
    // Zeros are zeros on every rank, whole or partial. (A parameter is free only while its layout is being found.)
    if (node.op === inputOp) return fill(0, localType(this.#mesh, node.type, layout))
    if (Object.keys(layout.partial).length > 0) {
      if (constantOf(node) !== 0)
        throw new InternalError(`partition: ${name} %${node.id} cannot be ${layoutKey(layout)}`)
      return this.#make(node, resolved(layout))
    }
    if (name === 'iota') return localIota(this.#mesh, node, layout)
    if (name === 'broadcast') return this.#repeated(node, layout)
    if (kind === 'leaf') {
      const all = currentGraph().intern(
        node.op,
        node.inputs.map((x) => this.as(x, whole(0))),
        node.attrs,
      )
      return reshard(this.#mesh, { node: all, layout: whole(node.shape.length) }, layout)
    }
    return localOp(
      this.#mesh,
      node,
      node.inputs.map((x) => this.as(x, layout)),
      node.inputs.map(() => layout),
      layout,
    )
  }

  /** A broadcast in a layout: what it repeats, cut where it is not repeated. */
  #repeated(node: Node, layout: Layout): Node {
    const x = node.inputs[0]!
    const dims = node.attrs['dims'] as number[]
    const cuts = x.shape.map((extent, i) => (extent === node.shape[dims[i]!] ? layout.dims[dims[i]!]! : []))
    const made = broadcast(
      this.as(x, { dims: cuts, partial: {} }),
      localShape(this.#mesh, layout, node.shape),
      dims,
      node.axes,
    )
    this.#values.get(node)?.held.push({ node: made, layout })
    return made
  }

  #call(node: Node): void {
    const operands = node.inputs.map((x) => this.operand(x))
    const weight = this.#isWeight(operands)
    const { decision, results } = this.#callLocally(node, operands)
    this.#several.set(
      node,
      results.map((tensor, i) => held(tensor.node, decision.results[i]!, decision.soft, weight)),
    )
  }

  #callLocally(
    node: Node,
    operands: readonly (Operand | null)[],
  ): { readonly decision: Decision; readonly results: readonly Tensor[] } {
    const composite = compositeByName.get(compositeName(node))
    const fetch = (i: number, layout: Layout): Tensor => new Tensor(this.as(node.inputs[i]!, layout))
    const decideWith = (time: boolean): Decision => {
      const factors = compositeFactors(node, time)
      if (!factors) throw new InternalError(`partition: no layouts for ${compositeName(node)}`)
      return decide(node, factors, operands, this.#placement)
    }
    const cutInTime = decideWith(true)
    const axis = contextAxis(node, cutInTime, this.#placement)
    if (axis !== null) {
      const { layouts, results } = contextAttention(node, axis, cutInTime, this.#placement, fetch)
      return { decision: { ...cutInTime, results: layouts }, results }
    }
    const decision = decideWith(false)
    const results = invoke(
      composite!,
      decision.inputs.map((layout, i) => fetch(i, layout)),
      optionsOf(node),
    )
    return { decision, results }
  }

  /** A loop stays a loop. How its carries lie is found by trying: what goes round must come out as it went in. */
  #scan(node: Node): void {
    const attrs = scanAttrs(node)
    const lead = this.#cutAlong(node)
    if (lead.length > 0) return this.#map(node, lead)
    const { body, numConstants, numCarries } = attrs
    const numFixed = numConstants + numCarries
    const fixed = node.inputs.map((x, i): Operand | null => {
      const operand = this.operand(x)
      if (!operand || i < numConstants) return operand && resolvedOperand(operand)
      return i < numFixed ? operand : slice(operand, apartWithin(node, operand))
    })
    let carries = fixed.slice(numConstants, numFixed)
    for (let tries = 0; ; tries++) {
      const bound = [...fixed.slice(0, numConstants), ...carries, ...fixed.slice(numFixed)]
      const { inner } = this.#body(body, bound)
      const next = carries.map((carry, i) => join(carry, inner.operand(body.results[i]!)))
      const stable = next.every((carry, i) => {
        const before = carries[i]
        return before && carry ? sameLayout(before.layout, carry.layout) : before === carry
      })
      carries = next
      if (stable) break
      if (tries > 8) throw new InternalError(`partition: the layouts of ${body.name} do not settle`)
    }
    // Values that may lie anywhere are whole from here on.
    const known = [...fixed.slice(0, numConstants), ...carries, ...fixed.slice(numFixed)].map(
      (operand, i) => operand ?? { layout: whole(body.params[i]!.shape.length), soft: none, weight: false },
    )
    const { inner, params } = this.#body(body, known)
    const ys = body.results.slice(numCarries).map((y) => inner.stacked(y))
    const results = [
      ...body.results
        .slice(0, numCarries)
        .map((result, i) => inner.as(result, known[numConstants + i]!.layout)),
      ...ys.map((y) => y.node),
    ]
    const local = scan(
      node.inputs.map((x, i) => {
        const { layout } = known[i]!
        return this.as(x, i < numFixed ? layout : { ...layout, dims: [[], ...layout.dims] })
      }),
      { ...attrs, body: currentGraph().func(body.name, params, results) },
    )
    const places = [
      ...known.slice(numConstants, numFixed),
      ...ys.map(({ layout, soft, weight, apart }) => ({
        layout: { ...layout, dims: [[], ...layout.dims] },
        soft,
        weight,
        apart: apartOutside(node, apart),
      })),
    ]
    this.#several.set(
      node,
      places.map(({ layout, soft, weight, apart }, i) => held(get(local, i), layout, soft, weight, apart)),
    )
  }

  /** Mesh axes that cut a loop along itself: one without carries, whose turns know nothing of each other. */
  #cutAlong(node: Node): readonly string[] {
    const { numConstants, numCarries, length } = scanAttrs(node)
    if (numCarries > 0) return []
    const slices = node.inputs.slice(numConstants)
    const lead = slices.map((x) => this.operand(x)?.layout.dims[0] ?? []).find((axes) => axes.length > 0)
    return lead && divides(this.#mesh, lead, length) ? lead : []
  }

  /**
   * A loop cut along itself: each rank takes its turns, or the one that it has without a loop. Ranks along these axes
   * calculate different things, so within a turn nothing else may be cut over them.
   */
  #map(node: Node, lead: readonly string[]): void {
    const attrs = scanAttrs(node)
    const { body, numConstants } = attrs
    const turns = attrs.length / piecesOf(this.#mesh, lead)
    const without = (dims: Layout['dims']): Layout['dims'] =>
      dims.map((axes) => axes.filter((axis) => !lead.includes(axis)))
    const known = node.inputs.map((x, i): Operand => {
      const { layout, soft, weight } = this.operand(x) ?? {
        layout: whole(x.shape.length),
        soft: none,
        weight: false,
      }
      const dims = without(i < numConstants ? layout.dims : layout.dims.slice(1))
      return { layout: { dims, partial: {} }, soft, weight }
    })
    const stacked = ({ dims, partial }: Layout): Layout => ({ dims: [lead, ...dims], partial })
    const given = node.inputs.map((x, i) =>
      this.as(x, i < numConstants ? known[i]!.layout : stacked(known[i]!.layout)),
    )
    const named = Object.fromEntries(
      Object.entries(this.#placement.named).map(([dim, axes]) => [
        dim,
        axes.filter((axis) => !lead.includes(axis)),
      ]),
    )
    const placement = { ...this.#placement, named }
    const inLoop = (params: readonly Node[]): readonly (Operand & { readonly node: Node })[] => {
      const bound = known.map((operand, i): Bound => ({ ...operand, node: params[i]! }))
      const inner = new Body(placement, body, bound)
      return body.results.map((result) => inner.stacked(result))
    }
    const hold = (ys: readonly Operand[], local: (i: number) => Node): void => {
      this.#several.set(
        node,
        ys.map(({ layout, soft, weight }, i) => held(local(i), stacked(layout), soft, weight)),
      )
    }
    if (turns === 1) {
      const ys = inLoop(
        given.map((x, i) => (i < numConstants ? x : reshape(x, x.shape.slice(1), x.axes.slice(1)))),
      )
      return hold(ys, (i) => {
        const { node } = ys[i]!
        return reshape(node, [1, ...node.shape], [attrs.axis, ...node.axes])
      })
    }
    const params = this.#parameters(body, known)
    const ys = inLoop(params)
    const local = scan(given, {
      ...attrs,
      length: turns,
      body: currentGraph().func(
        body.name,
        params,
        ys.map(({ node }) => node),
      ),
    })
    hold(ys, (i) => get(local, i))
  }

  #body(
    func: Func,
    operands: readonly (Operand | null)[],
  ): { readonly inner: Body; readonly params: readonly Node[] } {
    const params = this.#parameters(func, operands)
    const bound = operands.map((operand, i): Bound => operand && { ...operand, node: params[i]! })
    return { inner: new Body(this.#placement, func, bound), params }
  }

  #parameters(func: Func, operands: readonly (Operand | null)[]): readonly Node[] {
    const scope = currentGraph().scope()
    return func.params.map((param, i) => {
      const layout = operands[i]?.layout
      return input(
        scope,
        String(param.attrs['name']),
        layout ? localType(this.#mesh, param.type, layout) : param.type,
      )
    })
  }

  /** A result of one step of a loop, to be stacked: combined within the loop where the placement says so. */
  stacked(node: Node): Operand & { readonly node: Node } {
    const operand = this.operand(node) ?? { layout: whole(node.shape.length), soft: none, weight: false }
    const axes = Object.keys(operand.layout.partial).filter((axis) => this.#placement.inLoop(axis))
    let { layout } = operand
    const soft = new Set(operand.soft)
    for (const axis of axes) {
      const dim = this.#placement.settle(node.type, layout, axis)
      const partial = Object.fromEntries(Object.entries(layout.partial).filter(([name]) => name !== axis))
      const combined = { dims: layout.dims, partial }
      layout = dim === null ? combined : alsoCut(combined, dim, axis)
      if (dim !== null) soft.add(axis)
    }
    return { layout, soft, weight: operand.weight, node: this.as(node, layout), apart: operand.apart ?? {} }
  }
}

const held = (
  node: Node,
  layout: Layout,
  soft: ReadonlySet<string>,
  weight: boolean,
  apart: Apart = {},
): Value => ({
  held: [{ node, layout }],
  layout,
  soft,
  weight,
  apart,
})

const isRepetition = (node: Node): boolean => node.op.name === 'broadcast'

const resolvedOperand = <T extends Operand | null>(operand: T): T =>
  operand && { ...operand, layout: resolved(operand.layout) }

/** How one slice of a stack lies. The stack itself must be whole along the loop. */
const slice = (operand: Operand, apart: Apart): Operand => ({
  ...operand,
  layout: { dims: operand.layout.dims.slice(1), partial: onlyOver(apart, operand.layout.partial) },
  apart,
})

const onlyOver = (apart: Apart, partial: Layout['partial']): Layout['partial'] =>
  Object.fromEntries(Object.entries(partial).filter(([axis]) => axis in apart))

/** Of a stack that a loop reads: the numbers that its rows are apart by, as a turn sees them. */
function apartWithin(loop: Node, { apart = {} }: Operand): Apart {
  const { body, numConstants, numCarries } = scanAttrs(loop)
  return Object.fromEntries(
    Object.entries(apart).flatMap(([axis, key]) => {
      const at = loop.inputs.findIndex((x, i) => i >= numConstants + numCarries && keyOf(x) === key)
      return at < 0 ? [] : [[axis, keyOf(body.params[at]!)]]
    }),
  )
}

/** Of what a loop stacks: the numbers, if it stacks those too. */
function apartOutside(loop: Node, apart: Apart = {}): Apart {
  const { body, numCarries } = scanAttrs(loop)
  return Object.fromEntries(
    Object.entries(apart).flatMap(([axis, key]) => {
      const at = body.results.findIndex((y, i) => i >= numCarries && keyOf(y) === key)
      return at < 0 ? [] : [[axis, `${loop.id}.${at}`]]
    }),
  )
}

/** What a carry should be, having been `before` and come out as `after`. Null: may lie anywhere. */
function join(before: Operand | null, after: Operand | null): Operand | null {
  if (!before || !after) return before ?? after
  const open = Object.keys(before.layout.partial).every((axis) => axis in after.layout.partial)
  // Never from whole to partial: a value that goes in whole cannot become a sum.
  const layout = isWhole(before.layout) || !open ? resolved(after.layout) : before.layout
  return { ...before, layout, weight: before.weight && after.weight }
}

/** A layout with the dimensions cut that the rules name and that are whole in it. */
export function namedCuts({ mesh, named }: Placement, type: ValueType, layout: Layout): Layout {
  const used = new Set([...layout.dims.flat(), ...Object.keys(layout.partial)])
  const dims = layout.dims.map((axes, i) => {
    const wanted = named[type.axes[i] ?? ''] ?? []
    const fresh = wanted.length > 0 && axes.length === 0 && wanted.every((axis) => !used.has(axis))
    if (!fresh || !divides(mesh, wanted, type.shape[i]!)) return axes
    wanted.forEach((axis) => used.add(axis))
    return [...wanted]
  })
  return { ...layout, dims }
}
