/**
 * What a piece of a graph costs whatever the device: its products by size, its attention by operations, the bytes that
 * everything else moves, and its collectives. Elementwise work is counted as a fusing compiler runs it: operations without
 * a product or a collective between them make one pass over memory, which reads what comes from outside and writes what
 * is needed outside. Moves that only rename (reshape, transpose, get) are free.
 */
import type { Node } from '../../compiler/graph/node.ts'
import { dtypeBytes, sizeOf, type ValueType } from '../../compiler/graph/types.ts'
import { callOp, compositeName } from '../../compiler/ops/call.ts'
import { dotAxes, dotOp, freeAxes } from '../../compiler/ops/dot.ts'
import { trafficOfNode, type TrafficKind } from '../traffic.ts'

/** A product of [m, k] and [k, n], `count` times. */
export interface Product {
  readonly m: number
  readonly n: number
  readonly k: number
  readonly count: number
}

export interface SizedCollective {
  readonly kind: Exclude<TrafficKind, 'send'>
  readonly axes: readonly string[]
  readonly bytes: number
  /** How many of them follow one another. */
  readonly calls: number
}

export interface Work {
  readonly products: readonly Product[]
  readonly attention: { readonly forward: number; readonly backward: number }
  /** Read and written by everything else. */
  readonly bytes: number
  readonly collectives: readonly SizedCollective[]
}

export const noWork: Work = {
  products: [],
  attention: { forward: 0, backward: 0 },
  bytes: 0,
  collectives: [],
}

export const workSum = (a: Work, b: Work): Work => ({
  products: [...a.products, ...b.products],
  attention: {
    forward: a.attention.forward + b.attention.forward,
    backward: a.attention.backward + b.attention.backward,
  },
  bytes: a.bytes + b.bytes,
  collectives: merged([...a.collectives, ...b.collectives]),
})

/** Bytes of a value as the device keeps it: what is f32 in the graph may be kept as bf16. */
export const storedBytes = (type: ValueType, float: 2 | 4): number =>
  sizeOf(type.shape) * (type.dtype === 'f32' ? float : dtypeBytes[type.dtype])

const renames = new Set(['get', 'reshape', 'transpose', 'barrier', 'broadcast'])

/** The value that a chain of renaming moves shows. */
export function rootOf(node: Node): Node {
  let root = node
  while (renames.has(root.op.name) && root.inputs.length > 0) root = root.inputs[0]!
  return root
}

const isFree = (node: Node): boolean =>
  renames.has(node.op.name) || node.op.kind === 'leaf' || node.op.name === 'meshIndex'
const isPass = (node: Node): boolean =>
  ['elementwise', 'reduce', 'movement'].includes(node.op.kind) || node.op.name === 'shard'

/** What some nodes of a graph cost; `results`: those that others need. Nodes of loops are counted apart, by their bodies. */
export function workOf(nodes: readonly Node[], results: Iterable<Node>, float: 2 | 4): Work {
  const within = new Set(nodes)
  const needed = new Set([...results].map(rootOf))
  const products: Product[] = []
  const attention = { forward: 0, backward: 0 }
  const collectives: SizedCollective[] = []
  let bytes = 0
  const groups = passesOf(nodes)
  for (const node of nodes) {
    if (node.op === dotOp) products.push(productOf(node))
    else if (node.op === callOp) {
      attention[compositeName(node) === 'attention' ? 'forward' : 'backward'] += node.op.flops(node)
    } else if (node.op.kind === 'index') {
      // Rows are picked from a table, which is not read as a whole.
      const touched = node.op.name === 'gather' ? [node] : [node, ...node.inputs]
      bytes += touched.reduce((sum, { type }) => sum + storedBytes(type, float), 0)
    } else if (node.op.kind === 'collective') {
      const entry = trafficOfNode(node, 1)
      if (entry && entry.kind !== 'send') {
        const whole = (entry.bytes / dtypeBytes[node.inputs[0]!.dtype]) * elementBytes(node, float)
        collectives.push({ kind: entry.kind, axes: entry.axes, bytes: whole, calls: 1 })
      }
    }
  }
  // Each pass reads what it does not make, and writes what others read.
  const moved = new Set<string>()
  const move = (pass: number, value: Node, how: string): void => {
    const key = `${how} ${pass} ${value.id}`
    if (moved.has(key)) return
    moved.add(key)
    bytes += storedBytes(value.types[0]!, float)
  }
  for (const node of nodes) {
    if (isFree(node)) continue
    const pass = groups.get(node)
    for (const input of node.inputs.map(rootOf)) {
      if (input.op.kind === 'leaf' && input.op.name !== 'input') continue
      const from = within.has(input) ? groups.get(input) : undefined
      if (from === pass && from !== undefined) continue
      if (pass !== undefined) move(pass, input, 'read')
      if (from !== undefined) move(from, input, 'write')
    }
    if (pass !== undefined && needed.has(node)) move(pass, node, 'write')
  }
  return { products, attention, bytes, collectives: merged(collectives) }
}

const elementBytes = (node: Node, float: 2 | 4): number => {
  const { dtype } = node.inputs[0]!
  return dtype === 'f32' ? float : dtypeBytes[dtype]
}

/** Numbers of passes over memory: nodes with as many products and collectives before them, connected to one another. */
function passesOf(nodes: readonly Node[]): Map<Node, number> {
  const level = new Map<Node, number>()
  const parent = new Map<Node, Node>()
  const find = (node: Node): Node => {
    let top = node
    while (parent.get(top) !== top) top = parent.get(top)!
    return top
  }
  for (const node of nodes) {
    const before = node.inputs.map((x) => {
      const root = rootOf(x)
      return (level.get(root) ?? 0) + (isPass(root) || isFree(root) ? 0 : 1)
    })
    level.set(node, Math.max(0, ...before))
    if (!isPass(node) || isFree(node)) continue
    parent.set(node, node)
    for (const input of node.inputs.map(rootOf)) {
      if (parent.has(input) && level.get(input) === level.get(node)) parent.set(find(input), node)
    }
  }
  return new Map([...parent.keys()].map((node) => [node, find(node).id]))
}

function productOf(node: Node): Product {
  const [a, b] = node.inputs as [Node, Node]
  const { aBatch, bBatch, aContract, bContract } = dotAxes(node)
  const extent = (x: Node, axes: readonly number[]): number => sizeOf(axes.map((axis) => x.shape[axis]!))
  return {
    m: extent(a, freeAxes(a.shape, aBatch, aContract)),
    n: extent(b, freeAxes(b.shape, bBatch, bContract)),
    k: extent(a, aContract),
    count: extent(a, aBatch),
  }
}

/** Collectives of one kind over the same axes as one entry: as many bytes on the whole, as many calls. */
function merged(collectives: readonly SizedCollective[]): SizedCollective[] {
  const byKind = new Map<string, SizedCollective>()
  for (const one of collectives) {
    const key = `${one.kind} ${one.axes.join('+')}`
    const known = byKind.get(key)
    byKind.set(key, known ? { ...one, bytes: known.bytes + one.bytes, calls: known.calls + one.calls } : one)
  }
  return [...byKind.values()]
}

/**
 * The most bytes at once of what a body makes and keeps until its last reader, in the order of the graph; what goes into
 * it or stays in a pass does not count.
 */
export function peakBytes(nodes: readonly Node[], results: readonly Node[], float: 2 | 4): number {
  const groups = passesOf(nodes)
  const last = new Map<Node, number>()
  const crosses = new Set<Node>(results.map(rootOf))
  nodes.forEach((node, at) => {
    for (const input of node.inputs.map(rootOf)) {
      last.set(input, at)
      if (groups.get(input) === undefined || groups.get(input) !== groups.get(node)) crosses.add(input)
    }
  })
  for (const result of results) last.set(rootOf(result), nodes.length)
  let now = 0
  let most = 0
  const ending = new Map<number, number>()
  nodes.forEach((node, at) => {
    if (!isFree(node) && node.op.name !== 'input' && crosses.has(node)) {
      const bytes = node.types.reduce((sum, type) => sum + storedBytes(type, float), 0)
      now += bytes
      const end = last.get(node) ?? at
      ending.set(end, (ending.get(end) ?? 0) + bytes)
    }
    most = Math.max(most, now)
    now -= ending.get(at) ?? 0
  })
  return most
}
