/**
 * Gradients sent as a product of two thin matrices (Vogels et al., PowerSGD: Practical low-rank gradient compression for
 * distributed optimization). With M the gradient [m, n] plus what was not sent before, and Q the last right factor:
 * P = mean(M Q), made orthonormal; Q = mean(Mᵀ P); the gradient is P Qᵀ. One power iteration a step, since Q is kept.
 *
 * Error feedback: each replica keeps M minus what its own factors said, so that nothing is lost: what it has sent so far
 * and the residual add up to all its gradients. Written for one replica; `mean` is the collective, and every replica must
 * start from the same Q.
 */
import {
  bytesOf,
  concat,
  leaves,
  mapTree,
  philoxUniform,
  sizeOf,
  valueType,
  where,
  type Tensor,
  type Tensors,
  type ValueType,
} from '../compiler/index.ts'
import type { Mean } from './outer.ts'

/** A column that the ones before it leave less than this share of is taken to depend on them. */
const dependent = 1e-6

export type PowerState = {
  /** What was not sent yet, like the gradient. */
  readonly residual: Tensor
  /** The right factor [..., n, rank]. */
  readonly q: Tensor
}

/** Ranks beyond the smaller side say nothing more. */
const rankOf = ({ shape }: ValueType, rank: number): number => Math.min(rank, ...shape.slice(-2))

/** Whether two factors are smaller than the matrices themselves; what has fewer than two axes is sent as it is. */
export function isCompressed(type: ValueType, rank: number): boolean {
  const [m, n] = type.shape.slice(-2) as [number, number]
  return type.shape.length >= 2 && rankOf(type, rank) * (m + n) < m * n
}

/** State of a stack of matrices: residual and right factor. */
export function powerStateTypes(
  type: ValueType,
  rank: number,
): { readonly residual: ValueType; readonly q: ValueType } {
  const { dtype, shape, axes } = type
  return {
    residual: valueType(dtype, shape, axes),
    q: valueType(dtype, [...shape.slice(0, -2), shape.at(-1)!, rankOf(type, rank)]),
  }
}

/** The first right factor: a pure function of the seed, so that all replicas start from the same one. */
export const firstFactor = (type: ValueType, seed: number): Float64Array =>
  Float64Array.from(
    { length: sizeOf(type.shape) },
    (_, i) => philoxUniform({ seed, step: 0, stream: 0x70, salt: 0 }, i) - 0.5,
  )

/** One step for a stack of matrices: the mean gradient as it arrives, what this replica sent, and the next state. */
export function compress(
  gradient: Tensor,
  { residual, q }: PowerState,
  mean: Mean,
): { readonly gradient: Tensor; readonly sent: Tensor; readonly state: PowerState } {
  const matrix = gradient.add(residual)
  const p = orthonormal(mean(times(matrix, q)))
  const own = times(swapped(matrix), p)
  const shared = mean(own)
  const sent = times(p, swapped(own)).named(gradient.axes)
  return {
    gradient: times(p, swapped(shared)).named(gradient.axes),
    sent,
    state: { residual: matrix.sub(sent), q: shared },
  }
}

/** One step for a tree of gradients. `state` holds an entry for each path that is compressed; the rest is averaged. */
export function powerSgd<T extends Tensors>(
  gradients: T,
  state: Readonly<Record<string, PowerState>>,
  mean: Mean,
): { readonly gradients: T; readonly state: Record<string, PowerState> } {
  const next: Record<string, PowerState> = {}
  const averaged = mapTree<Tensor, Tensor>(gradients, (gradient, path) => {
    const known = state[path]
    if (!known) return mean(gradient)
    const compressed = compress(gradient, known, mean)
    next[path] = compressed.state
    return compressed.gradient
  })
  return { gradients: averaged as T, state: next }
}

/** State types of every parameter that is worth compressing, by path. */
export const powerSgdState = (
  parameters: Readonly<Record<string, ValueType>> | Tensors,
  rank: number,
): Record<string, { readonly residual: ValueType; readonly q: ValueType }> =>
  Object.fromEntries(
    leaves<ValueType>(parameters as Record<string, ValueType>).flatMap(([path, type]) =>
      isCompressed(type, rank) ? [[path, powerStateTypes(type, rank)]] : [],
    ),
  )

/** Bytes a replica hands to the collective in a step: both factors of what is compressed, the rest whole. */
export const powerSgdBytes = (parameters: readonly ValueType[], rank: number): number =>
  parameters.reduce((total, type) => {
    const [m, n] = type.shape.slice(-2) as [number, number]
    return (
      total +
      (isCompressed(type, rank) ? (bytesOf(type) / (m * n)) * (m + n) * rankOf(type, rank) : bytesOf(type))
    )
  }, 0)

const last = (x: Tensor): number => x.rank - 1

/** Product of stacks of matrices, without names. */
function times(a: Tensor, b: Tensor): Tensor {
  const stack = a.shape.slice(0, -2).map((extent, axis) => Math.max(extent, b.shape[axis]!))
  const whole = (x: Tensor): Tensor => {
    const shape = [...stack, ...x.shape.slice(-2)]
    return x.named(shape.map(() => null)).broadcastTo({ shape, axes: shape.map(() => null) })
  }
  return whole(a).matmul(whole(b))
}

const swapped = (x: Tensor): Tensor =>
  x.transpose(x.shape.map((_, axis) => (axis < last(x) - 1 ? axis : axis === last(x) ? axis - 1 : axis + 1)))

/** Columns made orthonormal one after another (modified Gram-Schmidt); dependent ones become 0. */
function orthonormal(matrix: Tensor): Tensor {
  const sizes = matrix.square().sum(-2, true).sqrt()
  const done: Tensor[] = []
  let rest = matrix
  for (let column = 0; column < matrix.size(-1); column++) {
    const first = rest.slice(-1, 0, 1)
    const size = first.square().sum(-2, true).sqrt()
    const least = sizes.slice(-1, column, 1).mul(dependent)
    const unit = where(least.less(size), first.div(size.max(1e-38)), 0)
    done.push(unit)
    if (rest.size(-1) === 1) break
    rest = rest.slice(-1, 1, rest.size(-1) - 1)
    rest = rest.sub(times(unit, times(swapped(unit), rest)))
  }
  return concat(done, last(matrix))
}
