/**
 * What model code holds while it is traced: a `Tensor` is a thin handle on a graph node, with the arithmetic, reductions
 * and products a model needs. It adds the two conveniences the primitives leave out: implicit broadcasting (by axis
 * name where names tell, else aligned at the last axis) and axes given by name.
 */
import type { Node } from '../graph/node.ts'
import {
  formatType,
  isFloat,
  sameShape,
  typeError,
  type AxisName,
  type DType,
  type ValueType,
} from '../graph/types.ts'
import { add } from '../ops/add.ts'
import { broadcast } from '../ops/broadcast.ts'
import { cast } from '../ops/cast.ts'
import { concat as concatNodes } from '../ops/concat.ts'
import { constant, fill } from '../ops/constant.ts'
import { cos } from '../ops/cos.ts'
import { div } from '../ops/div.ts'
import { dot } from '../ops/dot.ts'
import { equal } from '../ops/equal.ts'
import { erf } from '../ops/erf.ts'
import { exp } from '../ops/exp.ts'
import { floor } from '../ops/floor.ts'
import { gather } from '../ops/gather.ts'
import { iota as iotaNode } from '../ops/iota.ts'
import { less } from '../ops/less.ts'
import { log } from '../ops/log.ts'
import { max } from '../ops/max.ts'
import { mod } from '../ops/mod.ts'
import { mul } from '../ops/mul.ts'
import { neg } from '../ops/neg.ts'
import { pad } from '../ops/pad.ts'
import { random as randomNode } from '../ops/random.ts'
import { reduceMax } from '../ops/reduce-max.ts'
import { reshape } from '../ops/reshape.ts'
import { scatter } from '../ops/scatter.ts'
import { sin } from '../ops/sin.ts'
import { slice } from '../ops/slice.ts'
import { sqrt } from '../ops/sqrt.ts'
import { sum } from '../ops/sum.ts'
import { tanh } from '../ops/tanh.ts'
import { transpose } from '../ops/transpose.ts'
import { where as whereNode } from '../ops/where.ts'

export type Axis = string | number
export type Operand = Tensor | number

export class Tensor {
  readonly node: Node

  constructor(node: Node) {
    this.node = node
  }

  get dtype(): DType {
    return this.node.dtype
  }
  get shape(): readonly number[] {
    return this.node.shape
  }
  get axes(): readonly AxisName[] {
    return this.node.axes
  }
  get type(): ValueType {
    return this.node.type
  }
  get rank(): number {
    return this.shape.length
  }
  toString(): string {
    return formatType(this.type)
  }

  /** Position of an axis given by name or by (possibly negative) number. */
  axis(axis: Axis): number {
    const at = typeof axis === 'number' ? (axis < 0 ? axis + this.rank : axis) : this.axes.indexOf(axis)
    if (at < 0 || at >= this.rank) {
      throw typeError(
        'axis',
        `'${axis}' of ${this}`,
        `one of ${this.axes.map((name, i) => name ?? i).join(', ')}`,
        'check the name',
      )
    }
    return at
  }
  /** Extent of an axis. */
  size(axis: Axis): number {
    return this.shape[this.axis(axis)]!
  }

  add(other: Operand): Tensor {
    return binary('add', add, this, other)
  }
  sub(other: Operand): Tensor {
    return binary('sub', (a, b) => add(a, neg(b)), this, other)
  }
  mul(other: Operand): Tensor {
    return binary('mul', mul, this, other)
  }
  div(other: Operand): Tensor {
    return typeof other === 'number' && isFloat(this.dtype)
      ? this.mul(1 / other)
      : binary('div', div, this, other)
  }
  mod(other: Operand): Tensor {
    return binary('mod', mod, this, other)
  }
  max(other: Operand): Tensor {
    return binary('max', max, this, other)
  }
  min(other: Operand): Tensor {
    return this.neg().max(lift(other, this.dtype).neg()).neg()
  }
  less(other: Operand): Tensor {
    return binary('less', less, this, other)
  }
  greater(other: Operand): Tensor {
    return binary('greater', (a, b) => less(b, a), this, other)
  }
  equal(other: Operand): Tensor {
    return binary('equal', equal, this, other)
  }

  neg(): Tensor {
    return new Tensor(neg(this.node))
  }
  exp(): Tensor {
    return new Tensor(exp(this.node))
  }
  log(): Tensor {
    return new Tensor(log(this.node))
  }
  sin(): Tensor {
    return new Tensor(sin(this.node))
  }
  cos(): Tensor {
    return new Tensor(cos(this.node))
  }
  sqrt(): Tensor {
    return new Tensor(sqrt(this.node))
  }
  rsqrt(): Tensor {
    return new Tensor(div(fill(1, this.type), sqrt(this.node)))
  }
  tanh(): Tensor {
    return new Tensor(tanh(this.node))
  }
  erf(): Tensor {
    return new Tensor(erf(this.node))
  }
  floor(): Tensor {
    return new Tensor(floor(this.node))
  }
  square(): Tensor {
    return this.mul(this)
  }
  cast(to: DType): Tensor {
    return new Tensor(cast(this.node, to))
  }

  /** Sum over the given axes (default: all). `keep` leaves them with extent 1. */
  sum(axes: Axis | readonly Axis[] = this.shape.map((_, i) => i), keep = false): Tensor {
    return this.#reduce(sum, axes, keep)
  }
  /** Largest element over the given axes (default: all). */
  maxOver(axes: Axis | readonly Axis[] = this.shape.map((_, i) => i), keep = false): Tensor {
    return this.#reduce(reduceMax, axes, keep)
  }
  mean(axes: Axis | readonly Axis[] = this.shape.map((_, i) => i), keep = false): Tensor {
    let count = 1
    for (const axis of [axes].flat() as Axis[]) count *= this.size(axis)
    return this.sum(axes, keep).mul(1 / count)
  }
  #reduce(
    op: (x: Node, axes: readonly number[]) => Node,
    axes: Axis | readonly Axis[],
    keep: boolean,
  ): Tensor {
    const which = ([axes].flat() as Axis[]).map((axis) => this.axis(axis))
    const reduced = op(this.node, which)
    if (!keep) return new Tensor(reduced)
    const shape = this.shape.map((extent, i) => (which.includes(i) ? 1 : extent))
    return new Tensor(
      reshape(
        reduced,
        shape,
        this.axes.map((name, i) => (which.includes(i) ? null : name)),
      ),
    )
  }

  reshape(shape: readonly number[], axes: readonly AxisName[] = shape.map(() => null)): Tensor {
    return new Tensor(reshape(this.node, shape, axes))
  }
  /** Splits one axis into several, row-major: `x.split('embed', { heads: 4, dim: 32 })`. */
  split(axis: Axis, into: Readonly<Record<string, number>>): Tensor {
    const at = this.axis(axis)
    return this.reshape(
      this.shape.toSpliced(at, 1, ...Object.values(into)),
      this.axes.toSpliced(at, 1, ...Object.keys(into)),
    )
  }
  /** Merges adjacent axes into one: `x.merge(['heads', 'dim'], 'embed')`. */
  merge(axes: readonly Axis[], name: AxisName): Tensor {
    const at = this.axis(axes[0]!)
    axes.forEach((axis, i) => {
      if (this.axis(axis) !== at + i)
        throw typeError('merge', `${axes.join(', ')} of ${this}`, 'adjacent axes in order', 'transpose first')
    })
    let size = 1
    for (const axis of axes) size *= this.size(axis)
    return this.reshape(
      this.shape.toSpliced(at, axes.length, size),
      this.axes.toSpliced(at, axes.length, name),
    )
  }
  /** Gives axes other names: `{ time: 'source' }`. */
  rename(names: Readonly<Record<string, AxisName>>): Tensor {
    Object.keys(names).forEach((name) => this.axis(name))
    return this.named(this.axes.map((name) => (name !== null && name in names ? names[name]! : name)))
  }
  /** Names every axis anew. */
  named(axes: readonly AxisName[]): Tensor {
    return new Tensor(reshape(this.node, this.shape, axes))
  }
  transpose(order: readonly Axis[] = this.shape.map((_, i) => this.rank - 1 - i)): Tensor {
    return new Tensor(
      transpose(
        this.node,
        order.map((axis) => this.axis(axis)),
      ),
    )
  }
  broadcastTo(type: { readonly shape: readonly number[]; readonly axes: readonly AxisName[] }): Tensor {
    return new Tensor(align(this.node, type.shape, type.axes, 'broadcast'))
  }
  /** `count` elements of one axis from `start`. */
  slice(axis: Axis, start: number, count: number): Tensor {
    const at = this.axis(axis)
    return new Tensor(
      slice(
        this.node,
        this.shape.map((_, i) => (i === at ? start : 0)),
        this.shape.map((extent, i) => (i === at ? count : extent)),
      ),
    )
  }
  /** Zeros before and after along one axis. */
  pad(axis: Axis, before: number, after: number): Tensor {
    const at = this.axis(axis)
    return new Tensor(
      pad(
        this.node,
        this.shape.map((_, i) => (i === at ? before : 0)),
        this.shape.map((_, i) => (i === at ? after : 0)),
      ),
    )
  }
  /** Rows of this table by an i32 index of any shape: [R, …] by [I…] gives [I…, …]. */
  take(index: Tensor): Tensor {
    return new Tensor(gather(this.node, index.node))
  }
  /** This table with rows replaced: the inverse of `take`. The last of equal indices wins; those outside are ignored. */
  put(index: Tensor, rows: Tensor): Tensor {
    return new Tensor(scatter(this.node, index.node, rows.node))
  }

  /** Product by axis names: `contract` names disappear, other names found on both sides are batch axes. */
  dot(other: Tensor, contract: string | readonly string[]): Tensor {
    const names = [contract].flat() as string[]
    const shared = this.axes.filter(
      (name): name is string => name !== null && other.axes.includes(name) && !names.includes(name),
    )
    return new Tensor(
      dot(this.node, other.node, {
        aBatch: shared.map((name) => this.axis(name)),
        bBatch: shared.map((name) => other.axis(name)),
        aContract: names.map((name) => this.axis(name)),
        bContract: names.map((name) => other.axis(name)),
      }),
    )
  }
  /** Matrix product by position: […, m, k] times [k, n], or times […, k, n] with equal leading axes. */
  matmul(other: Tensor): Tensor {
    const batch = other.rank > 2 ? this.shape.slice(0, -2).map((_, i) => i) : []
    return new Tensor(
      dot(this.node, other.node, {
        aBatch: batch,
        bBatch: batch,
        aContract: [this.rank - 1],
        bContract: [other.rank - 2],
      }),
    )
  }
}

/** A number as a scalar tensor of the given element type. */
export function lift(value: Operand, dtype: DType): Tensor {
  return value instanceof Tensor ? value : new Tensor(constant(value, dtype))
}

function binary(name: string, op: (a: Node, b: Node) => Node, left: Tensor, right: Operand): Tensor {
  const [a, b] = [left.node, lift(right, left.dtype).node]
  if (sameShape(a.shape, b.shape)) return new Tensor(op(a, b))
  const [big, small] = a.shape.length >= b.shape.length ? [a, b] : [b, a]
  const named = small.axes.every((axis) => axis !== null && big.axes.includes(axis))
  if (named) {
    return new Tensor(op(align(a, big.shape, big.axes, name), align(b, big.shape, big.axes, name)))
  }
  const shape = big.shape.map((extent, i) => {
    const other = small.shape[i - (big.shape.length - small.shape.length)] ?? 1
    if (extent !== other && extent !== 1 && other !== 1) {
      throw typeError(
        name,
        `${formatType(a.type)} and ${formatType(b.type)}`,
        'shapes that broadcast',
        'reshape or name the axes',
      )
    }
    return extent === 1 ? other : extent
  })
  const axes = shape.map(
    (_, i) => big.axes[i] ?? small.axes[i - (big.shape.length - small.shape.length)] ?? null,
  )
  return new Tensor(op(align(a, shape, axes, name), align(b, shape, axes, name)))
}

/** Broadcasts to a shape: by axis names when all of x's are there in order, else aligned at the last axis. */
function align(x: Node, shape: readonly number[], axes: readonly AxisName[], name: string): Node {
  if (sameShape(x.shape, shape)) return x
  const byName = x.axes.map((axis) => (axis === null ? -1 : axes.indexOf(axis)))
  const ordered = byName.every((at, i) => at >= 0 && (i === 0 || at > byName[i - 1]!))
  const dims = ordered ? byName : x.shape.map((_, i) => shape.length - x.shape.length + i)
  const fits = dims.every((at, i) => at >= 0 && (x.shape[i] === 1 || x.shape[i] === shape[at]))
  if (!fits) {
    throw typeError(
      name,
      `${formatType(x.type)} to [${shape.join(', ')}]`,
      'shapes that broadcast',
      'reshape or name the axes',
    )
  }
  return broadcast(
    x,
    shape,
    dims,
    shape.map((_, i) => axes[i] ?? null),
  )
}

export const where = (condition: Tensor, a: Operand, b: Operand): Tensor => {
  const dtype = a instanceof Tensor ? a.dtype : b instanceof Tensor ? b.dtype : 'f32'
  const [x, y] = [lift(a, dtype), lift(b, dtype)]
  const rank = Math.max(condition.rank, x.rank, y.rank)
  const widest = [condition, x, y].filter((t) => t.rank === rank)
  const shape = widest[0]!.shape.map((_, i) => Math.max(...widest.map((t) => t.shape[i]!)))
  const axes = shape.map((_, i) => widest.map((t) => t.axes[i]!).find((name) => name !== null) ?? null)
  const to = (t: Tensor): Node => align(t.node, shape, axes, 'where')
  return new Tensor(whereNode(to(condition), to(x), to(y)))
}

export const concat = (parts: readonly Tensor[], axis: Axis): Tensor => {
  const [first] = parts
  if (!first) throw typeError('concat', 'no tensors', 'at least one', 'check the list')
  return new Tensor(
    concatNodes(
      parts.map((part) => part.node),
      first.axis(axis),
    ),
  )
}

/** 0, 1, … n-1 along one named axis. */
export const iota = (n: number, axis: AxisName = null, dtype: DType = 'i32'): Tensor =>
  new Tensor(iotaNode({ dtype, shape: [n], axes: [axis] }, 0))

/** A tensor filled with one value. */
export const full = (value: number, type: ValueType): Tensor => new Tensor(fill(value, type))

export const zerosLike = (x: Tensor): Tensor => full(0, x.type)

/** Scalars (i32) that address the random numbers: run seed, step, and a salt such as the layer number. */
export interface RandomKey {
  readonly seed: Tensor
  readonly step: Tensor
  readonly salt: Tensor
}

/** Uniform [0, 1) numbers; `stream` must differ between uses that share a key. */
export const uniform = (key: RandomKey, stream: number, type: ValueType): Tensor =>
  new Tensor(randomNode([key.seed.node, key.step.node, key.salt.node], stream, type))
