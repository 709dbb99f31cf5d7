/**
 * How an op lies on the mesh, given how its operands lie: which of its labels (see `Factors`) each mesh axis cuts. Axes
 * that operands bring along are kept where they can be; where two operands bring one axis for different labels, the rule
 * of the axis decides: `data` and `context` follow activations (weights are gathered), `tensor` and `expert` follow
 * weights (activations are). A label that is cut and reduced leaves partial results.
 */
import type { Node } from '../graph/node.ts'
import type { Combine, Layout, Mesh } from '../graph/mesh.ts'
import type { Factors } from '../graph/op.ts'
import { bytesOf, type ValueType } from '../graph/types.ts'
import { constantOf } from '../ops/constant.ts'
import { isGrouped, keyOf, matrices, rowsApart, type Apart } from './apart.ts'
import { divides } from './reshard.ts'

/** What the partition is told about the mesh beyond its shape. */
export interface Placement {
  readonly mesh: Mesh
  /** Mesh axes that follow weights where an operand of each kind wants them; the others follow activations. */
  readonly weightAxes: readonly string[]
  /** Named dimensions that are cut wherever they first appear whole, and over which axes. */
  readonly named: Readonly<Record<string, readonly string[]>>
  /** Where a partial result goes when nothing asks for a layout: the dimension over which it is cut; null: nowhere. */
  readonly settle: (type: ValueType, layout: Layout, axis: string) => number | null
  /** Results of a loop's steps that are partial over this axis are combined within the loop. */
  readonly inLoop: (axis: string) => boolean
  /** How a value lies that goes from one pipeline stage to another. */
  readonly boundary: (type: ValueType) => Layout
  /**
   * Results are to have the bits of one device however the batch is spread (passes/leaves.ts): what is partial over an
   * axis that cuts the batch is combined before any arithmetic but a loop's own sum: (a + b) + (c + d) is not
   * (a + c) + (b + d).
   */
  readonly exact?: boolean
  /** How attention sees the keys of other ranks when its positions are cut. */
  readonly context: 'gather' | 'ring' | 'heads'
}

/** An operand as its reader sees it. */
export interface Operand {
  readonly layout: Layout
  /** Mesh axes that cut it only because nothing better was known: they give way. */
  readonly soft: ReadonlySet<string>
  /** Made from parameters alone. */
  readonly weight: boolean
  /** Of mesh axes over which it is partial: where each row is zero but on one rank (apart.ts). */
  readonly apart?: Apart
}

export interface Decision {
  readonly inputs: readonly Layout[]
  readonly results: readonly Layout[]
  readonly soft: ReadonlySet<string>
  readonly apart: Apart
}

/** Ops that are linear, so that partial sums may pass through them and be combined later, in fewer or smaller messages. */
const passesPartial = (
  node: Node,
  operands: readonly (Operand | null)[],
  axis: string,
  { exact, named }: Placement,
): boolean => {
  const moves = node.op.kind === 'movement' || node.op.name === 'neg'
  // What a loop adds up in its carry meets its own kind only.
  const carries = node.op.name === 'add' && node.inputs.some(mayBeZeros)
  if (exact && !moves && !carries && named['batch']?.includes(axis)) return false
  // A mean over replicas has many readers: combined once, before the first.
  if (!moves && named['replica']?.includes(axis)) return false
  const partial = operands.map((operand) => operand?.layout.partial[axis] === 'sum')
  switch (node.op.name) {
    case 'add':
    case 'concat':
      return partial.every((open, i) => open || (operands[i] === null && mayBeZeros(node.inputs[i]!)))
    case 'neg':
    case 'sum':
    case 'transpose':
    case 'reshape':
    case 'slice':
      return partial[0]!
    case 'cast':
      return partial[0]! && node.dtype !== 'bf16'
    case 'mul':
    case 'div':
      // Only by what is one number everywhere: otherwise two products might both have to be combined.
      return (
        (partial[0]! && isScalar(node.inputs[1]!)) ||
        (node.op.name === 'mul' && partial[1]! && isScalar(node.inputs[0]!))
      )
    default:
      return false
  }
}

/** Zeros, or a carry of a loop whose layout is yet to be found: those start as zeros. */
const mayBeZeros = (node: Node): boolean => node.op.name === 'input' || constantOf(node) === 0

const isScalar = (node: Node): boolean =>
  node.shape.length === 0 || (node.op.name === 'broadcast' && node.inputs[0]!.shape.length === 0)

/** `operands`: null for those that can be made in any layout. */
export function decide(
  node: Node,
  factors: Factors,
  operands: readonly (Operand | null)[],
  placement: Placement,
): Decision {
  const { mesh } = placement
  const cuts = new Map<string, string[]>()
  const soft = new Set<string>()
  const partial: Record<string, Combine> = {}
  const apart: Record<string, string> = {}
  // Partial operands that are read as they are though the result is not partial.
  const through: Record<string, Combine> = {}
  const extents = extentsOf(node, factors)
  const cut = (label: string, axis: string): boolean => {
    const list = cuts.get(label) ?? []
    const fits = (extents.get(label) ?? []).every((extent) => divides(mesh, [...list, axis], extent))
    if (fits) cuts.set(label, [...list, axis])
    return fits
  }
  for (const { name: axis } of mesh) {
    const rows = rowsApart(node, operands, axis)
    if (rows?.stay) {
      partial[axis] = 'sum'
      if (rows.key !== undefined) apart[axis] = rows.key
      continue
    }
    if (rows && !cuts.has(matrices) && cut(matrices, axis)) {
      through[axis] = 'sum'
      apart[axis] = rows.key!
      continue
    }
    const open = operands.some((operand) => operand?.layout.partial[axis] === 'sum')
    if (open && passesPartial(node, operands, axis, placement)) {
      partial[axis] = 'sum'
      continue
    }
    const candidates = candidatesFor(axis, factors, operands, node, placement)
    const placed = candidates.find(({ label }) => cut(label, axis))
    if (placed) {
      if (placed.soft) soft.add(axis)
      if (isGrouped(node) && placed.label === matrices && cuts.get(matrices)!.length === 1)
        apart[axis] = keyOf(node.inputs[1]!)
      continue
    }
    // Nobody brings the axis along: what is partial over it may settle on a dimension.
    operands.some((operand, i) => {
      if (operand?.layout.partial[axis] !== 'sum') return false
      const dim = placement.settle(node.inputs[i]!.type, operand.layout, axis)
      const label = dim === null ? null : factors.inputs[i]![dim]
      if (!label || !cut(label, axis)) return false
      soft.add(axis)
      return true
    })
  }
  const dimsOf = (labels: readonly (string | null)[]): string[][] =>
    labels.map((label) => (label === null ? [] : [...(cuts.get(label) ?? [])]))
  const inputs = factors.inputs.map((labels, i) => ({
    dims: dimsOf(labels),
    partial: passing(operands[i]?.layout.partial ?? {}, { ...partial, ...through }),
  }))
  const results = factors.results.map((labels) => {
    const reduced = [...cuts].filter(([label]) => !labels.includes(label)).flatMap(([, axes]) => axes)
    const combined = Object.fromEntries(reduced.map((axis) => [axis, factors.reduce ?? 'sum'] as const))
    return { dims: dimsOf(labels), partial: { ...partial, ...combined } }
  })
  return { inputs, results, soft, apart }
}

const passing = (own: Layout['partial'], through: Layout['partial']): Layout['partial'] =>
  Object.fromEntries(Object.entries(own).filter(([axis]) => axis in through))

/** Every extent that a label stands for. */
function extentsOf(node: Node, factors: Factors): Map<string, number[]> {
  const extents = new Map<string, number[]>()
  const see = (labels: readonly (string | null)[], shape: readonly number[]): void =>
    labels.forEach((label, i) => {
      if (label !== null) extents.set(label, [...(extents.get(label) ?? []), shape[i]!])
    })
  factors.inputs.forEach((labels, i) => see(labels, node.inputs[i]!.shape))
  factors.results.forEach((labels, i) => see(labels, node.types[i]!.shape))
  return extents
}

interface Candidate {
  readonly label: string
  readonly soft: boolean
  readonly score: number
}

/** Labels that the operands bring this axis for, the best first. */
function candidatesFor(
  axis: string,
  factors: Factors,
  operands: readonly (Operand | null)[],
  node: Node,
  { weightAxes }: Placement,
): Candidate[] {
  const followsWeights = weightAxes.includes(axis)
  const found: Candidate[] = []
  operands.forEach((operand, i) => {
    operand?.layout.dims.forEach((axes, dim) => {
      const label = factors.inputs[i]![dim]
      if (!axes.includes(axis) || label === null || label === undefined) return
      const soft = operand.soft.has(axis)
      // Firm before soft, then the kind the axis follows, then the larger operand.
      const score =
        (soft ? 0 : 4) + (operand.weight === followsWeights ? 2 : 0) + bytesOf(node.inputs[i]!.type) / 2 ** 60
      found.push({ label, soft, score })
    })
  })
  return found.toSorted((a, b) => b.score - a.score)
}
