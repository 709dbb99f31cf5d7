/**
 * Values as C text: loads, stores, literals, and the expressions of elementwise nodes at a loop position. One `Values`
 * object serves one kernel: it also collects which stored nodes the kernel reads and writes, in parameter order.
 */
import type { Node } from '../../graph/node.ts'
import { isFloat, isHalf, sizeOf, type DType } from '../../graph/types.ts'
import { constantOf, constantValue } from '../../ops/constant.ts'
import { startOf } from '../../ops/slice.ts'
import { permutationOf } from '../../ops/transpose.ts'
import type { Fusion } from './fuse.ts'
import { indices, offset, offsetAt, type Position } from './index.ts'

export const cType: Readonly<Record<DType, string>> = {
  f32: 'float',
  f64: 'double',
  bf16: 'bf16',
  f16: 'f16',
  i32: 'int32_t',
  u8: 'uint8_t',
  bool: 'uint8_t',
}

/** Type of a local variable: halves are computed in float, truth values as int. */
export const localType = (dtype: DType): string =>
  isHalf(dtype) ? 'float' : dtype === 'bool' ? 'int' : cType[dtype]

export function literal(value: number, dtype: DType): string {
  if (!isFloat(dtype)) return String(value)
  const suffix = dtype === 'f64' ? '' : 'f'
  if (Number.isNaN(value)) return 'NAN'
  if (!Number.isFinite(value)) return value > 0 ? 'INFINITY' : '(-INFINITY)'
  const rounded = dtype === 'f64' ? value : Math.fround(value)
  const text = String(rounded)
  const decimal = /[.e]/.test(text) ? text : `${text}.0`
  return rounded < 0 || Object.is(rounded, -0)
    ? `(${Object.is(rounded, -0) ? '-0.0' : decimal}${suffix})`
    : `${decimal}${suffix}`
}

export interface Parameter {
  readonly node: Node
  readonly name: string
  readonly written: boolean
}

export class Values {
  readonly #fusion: Fusion
  readonly #parameters = new Map<Node, Parameter>()
  /** Nodes already in a local variable of the loop being written. */
  readonly locals = new Map<Node, string>()

  readonly #names = new Map<Node, string>()

  constructor(fusion: Fusion) {
    this.#fusion = fusion
  }

  /** Local variable of a node: numbered within the kernel, so that equal kernels have equal text. */
  nameOf(node: Node): string {
    const known = this.#names.get(node) ?? `v${this.#names.size}`
    this.#names.set(node, known)
    return known
  }

  get parameters(): readonly Parameter[] {
    return [...this.#parameters.values()]
  }

  /** Pointer to a stored node. */
  pointer(node: Node, written = false): string {
    const known = this.#parameters.get(node)
    if (known) {
      if (written && !known.written) this.#parameters.set(node, { ...known, written })
      return known.name
    }
    const name = `${written ? 'out' : 'in'}${this.#parameters.size}`
    this.#parameters.set(node, { node, name, written })
    return name
  }

  /** Text of an operand's value at a position: a local, an expression without data, or a load. */
  operand(node: Node, position: Position): string {
    const value = constantOf(node)
    if (value !== undefined) return literal(value, node.dtype)
    if (this.#fusion.isClosed(node)) return closedValue(node, indices(node.shape, position))
    const { base, view } = this.#fusion.source(node)
    return this.locals.get(base) ?? this.load(base, offset(view, position))
  }

  load(base: Node, at: string): string {
    const cell = `${this.pointer(base)}[${at}]`
    return isHalf(base.dtype) ? `${base.dtype}_to_f32(${cell})` : cell
  }

  store(node: Node, at: string, value: string): string {
    const cell = `${this.pointer(node, true)}[${at}]`
    if (!isHalf(node.dtype)) return `${cell} = ${value};`
    // Elementwise values are rounded when they are computed; sums are not.
    return `${cell} = ${node.op.kind === 'elementwise' ? `${node.dtype}_of_rounded` : `f32_to_${node.dtype}`}(${value});`
  }

  /** The expression of an elementwise, gather or random node from its operands. */
  expression(node: Node, position: Position): string {
    if (this.#fusion.isClosed(node)) return this.operand(node, position)
    if (node.op.name === 'gather') return this.#gather(node, position)
    if (node.op.name === 'random') return this.#random(node, position)
    if (!node.op.c) return this.operand(node.inputs[0]!, position) // a stored view: a copy
    const args = node.inputs.map((x) => this.operand(x, position))
    const text = node.op.c(args, node.inputs.at(-1)!.dtype, node)
    return isHalf(node.dtype) && node.op.name !== 'cast' ? `round_${node.dtype}(${text})` : text
  }

  #gather(node: Node, position: Position): string {
    const [table, index] = node.inputs as [Node, Node]
    const at = indices(node.shape, position)
    const rank = index.shape.length
    const rows = this.#fusion.source(index)
    const row = this.#fusion.isClosed(index)
      ? closedValue(index, at.slice(0, rank))
      : this.load(rows.base, offsetAt(rows.view, at.slice(0, rank)))
    const clamped = `clamp_index(${row}, ${table.shape[0]})`
    const source = this.#fusion.source(table)
    return this.load(source.base, offsetAt(source.view, [clamped, ...at.slice(rank)]))
  }

  #random(node: Node, position: Position): string {
    const scalar: Position = { columns: 1, level: 'row' }
    const [seed, step, salt] = node.inputs.map((x) => this.operand(x, { ...scalar }))
    const element = position.level === 'row' || position.columns === 1 ? 'r' : `r * ${position.columns} + c`
    return `uniform_f32(${seed}, ${step}, ${String(node.attrs['stream'])}u, ${salt}, (uint64_t)(${element}))`
  }
}

/** A value without inputs (mask, position, constant) at explicit axis indices. */
function closedValue(node: Node, index: readonly string[]): string {
  const [x] = node.inputs as [Node]
  switch (node.op.name) {
    case 'constant':
      return literal(constantValue(node), node.dtype)
    case 'iota':
      return `((${cType[node.dtype]})${index[node.attrs['axis'] as number]!})`
    case 'barrier':
      return closedValue(x, index)
    case 'broadcast': {
      const dims = node.attrs['dims'] as number[]
      return closedValue(
        x,
        dims.map((axis, i) => (x.shape[i] === 1 ? '0' : index[axis]!)),
      )
    }
    case 'transpose': {
      const at: string[] = []
      permutationOf(node).forEach((axis, i) => (at[axis] = index[i]!))
      return closedValue(x, at)
    }
    case 'slice':
      return closedValue(
        x,
        index.map((i, axis) => (startOf(node)[axis] === 0 ? i : `(${i} + ${startOf(node)[axis]})`)),
      )
    case 'reshape': {
      let element = '0'
      index.forEach((i, axis) => (element = axis === 0 ? i : `(${element} * ${node.shape[axis]} + ${i})`))
      const at: string[] = []
      let below = sizeOf(x.shape)
      x.shape.forEach((size, axis) => {
        below /= size
        const quotient = below === 1 ? element : `${element} / ${below}`
        at.push(size === 1 ? '0' : axis === 0 ? `(${quotient})` : `(${quotient} % ${size})`)
      })
      return closedValue(x, at)
    }
    default:
      return node.op.c!(
        node.inputs.map((input) => closedValue(input, index)),
        node.inputs.at(-1)!.dtype,
        node,
      )
  }
}
