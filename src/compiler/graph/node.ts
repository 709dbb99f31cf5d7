/**
 * The one node type of the compiler, from user code down to the kernel list: an operation, its inputs, attributes and
 * result types. Nodes are immutable and hash-consed: asking a graph twice for the same expression gives the same
 * object, so common subexpressions are found by construction and equality is identity.
 *
 * A `Graph` is only the interning table; a `Func` (parameters and results) is what passes transform. Node ids grow in
 * creation order, and inputs always exist before their users, so ascending ids are a topological order.
 */
import { InternalError } from '../../errors.ts'
import type { Op } from './op.ts'
import type { Phase } from './phase.ts'
import { formatType, type AxisName, type DType, type ValueType } from './types.ts'

/** Attribute values: JSON data, or a function for operations that carry a body. */
export type AttrValue =
  | string
  | number
  | boolean
  | null
  | readonly AttrValue[]
  | { readonly [key: string]: AttrValue }
  | Func
export type Attrs = Readonly<Record<string, AttrValue>>

export class Node {
  readonly id: number
  readonly op: Op
  readonly inputs: readonly Node[]
  readonly attrs: Attrs
  /** One type per result; operations with several results are read through `get` nodes. */
  readonly types: readonly ValueType[]
  /** Where user code made this node; formatted lazily because stack text is expensive. */
  readonly origin: Error | undefined
  /** Which part of training it belongs to; says nothing about what it computes. */
  readonly phase: Phase

  constructor(
    id: number,
    op: Op,
    inputs: readonly Node[],
    attrs: Attrs,
    types: readonly ValueType[],
    origin: Error | undefined,
    phase: Phase = 'forward',
  ) {
    this.id = id
    this.op = op
    this.inputs = inputs
    this.attrs = attrs
    this.types = types
    this.origin = origin
    this.phase = phase
  }

  get type(): ValueType {
    const type = this.types[0]
    if (type === undefined || this.types.length !== 1) {
      throw new InternalError(
        `node %${this.id} (${this.op.name}) has ${this.types.length} results, one was asked for`,
      )
    }
    return type
  }
  get dtype(): DType {
    return this.type.dtype
  }
  get shape(): readonly number[] {
    return this.type.shape
  }
  get axes(): readonly AxisName[] {
    return this.type.axes
  }
}

/** A closed piece of program: results depend on the parameters and on nothing else. */
export class Func {
  readonly id: number
  readonly name: string
  readonly params: readonly Node[]
  readonly results: readonly Node[]

  constructor(id: number, name: string, params: readonly Node[], results: readonly Node[]) {
    this.id = id
    this.name = name
    this.params = params
    this.results = results
  }
}

export class Graph {
  readonly #nodes = new Map<string, Node>()
  readonly #memo = new Map<string, Func>()
  #nextNode = 0
  #nextFunc = 0
  /** Passes create nodes on behalf of a user's node, whose source line errors and profiles keep, and whose phase, */
  cause: Node | undefined
  /** unless what is made now is of another. */
  relabel: ((cause: Node | undefined) => Phase) | undefined

  get size(): number {
    return this.#nextNode
  }

  intern(op: Op, inputs: readonly Node[], attrs: Attrs): Node {
    const key = `${op.name}(${inputs.map((input) => input.id).join(',')})${attrKey(attrs)}`
    const known = this.#nodes.get(key)
    if (known !== undefined) return known
    const types = op.infer(
      inputs.map((input) => input.types[0]!),
      attrs,
      inputs,
    )
    const phase = this.relabel?.(this.cause) ?? this.cause?.phase
    const origin = this.cause?.origin ?? captureOrigin()
    const node = new Node(this.#nextNode++, op, inputs, attrs, types, origin, phase)
    this.#nodes.set(key, node)
    return node
  }

  func(name: string, params: readonly Node[], results: readonly Node[]): Func {
    return new Func(this.#nextFunc++, name, params, results)
  }

  /** A fresh number that keeps the parameters of different functions apart. */
  scope(): number {
    return this.#nextFunc++
  }

  /** Builds a function once per key: equal composites share one body, and so hash-cons to one node. */
  memoFunc(key: string, build: () => Func): Func {
    let func = this.#memo.get(key)
    if (func === undefined) {
      func = build()
      this.#memo.set(key, func)
    }
    return func
  }
}

/** Bodies count by identity; everything else is JSON (numbers that JSON cannot hold travel as text, see `constant`). */
function attrKey(attrs: Attrs): string {
  const { body } = attrs
  return JSON.stringify(body instanceof Func ? { ...attrs, body: `@${body.id}` } : attrs)
}

function captureOrigin(): Error {
  const limit = Error.stackTraceLimit
  Error.stackTraceLimit = 16
  const origin = new Error()
  Error.stackTraceLimit = limit
  return origin
}

// Tracing is synchronous, so a dynamically scoped "current graph" is safe and keeps graphs out of every signature.
let current: Graph | undefined

/** The graph being traced into; an error outside of `compile`, `trace` or a pass. */
export function currentGraph(): Graph {
  if (current === undefined) {
    throw new InternalError(
      'tensor operations only work while a function is being traced (inside compile or trace)',
    )
  }
  return current
}

export function inGraph<T>(graph: Graph, body: () => T): T {
  const outer = current
  current = graph
  try {
    return body()
  } finally {
    current = outer
  }
}

/** Runs `body` with new nodes attributed to the source line and the phase of `node`. */
export function onBehalfOf<T>(node: Node, body: () => T): T {
  const graph = currentGraph()
  const outer = graph.cause
  graph.cause = node
  try {
    return body()
  } finally {
    graph.cause = outer
  }
}

/** Runs `body` with new nodes of one phase, or of one that follows from the node on whose behalf they are made. */
export function inPhase<T>(phase: Phase | ((cause: Node | undefined) => Phase), body: () => T): T {
  const graph = currentGraph()
  const outer = graph.relabel
  graph.relabel = typeof phase === 'function' ? phase : () => phase
  try {
    return body()
  } finally {
    graph.relabel = outer
  }
}

/** Nodes reachable from `roots`, inputs before users. */
export function reachable(roots: readonly Node[]): Node[] {
  const seen = new Set<Node>()
  const stack = [...roots]
  while (stack.length > 0) {
    const node = stack.pop()!
    if (seen.has(node)) continue
    seen.add(node)
    stack.push(...node.inputs)
  }
  return [...seen].toSorted((a, b) => a.id - b.id)
}

/** Functions carried by a node's attributes (the body of a scan or a composite). */
export function bodyOf(node: Node): Func | undefined {
  const body = node.attrs['body']
  return body instanceof Func ? body : undefined
}

/** `file.ts:12:3` of the first frame outside the compiler and the layer library, for errors and profiles. */
export function sourceOf(node: Node): string | undefined {
  const frames = node.origin?.stack?.split('\n').slice(1) ?? []
  for (const frame of frames) {
    if (/[/\\](compiler|nn|optim)[/\\]|node:|^\s*at new /.test(frame)) continue
    const place = /\(?((?:file:\/\/)?[^\s()]+:\d+:\d+)\)?$/.exec(frame)?.[1]
    if (place !== undefined) return place.replace('file://', '')
  }
  return undefined
}

export const describe = (node: Node): string => `${node.op.name} -> ${node.types.map(formatType).join(', ')}`
