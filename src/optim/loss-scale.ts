/**
 * Dynamic loss scaling (Micikevicius et al., Mixed Precision Training). Half precision ends at 65,504 below and at 2^-24
 * above zero, where gradients of activations live; so the loss is multiplied by a large power of two before it is
 * differentiated, which shifts every gradient without changing a digit, and the gradients are divided by it afterwards.
 *
 * The scale is part of the training state: it doubles after a number of good steps, and halves when a gradient is not
 * finite. Such a step must leave no trace: `keepIf` puts back parameters, optimizer state and the step number.
 */
import { full, leaves, mapTree, Tensor, valueType, where, type Tensors } from '../compiler/index.ts'

export interface LossScaleOptions {
  /** Good steps in a row before the scale doubles. */
  readonly goodSteps: number
}

/** The scale, a power of two, and how many good steps it has seen. */
export const lossScaleTypes = { scale: valueType('f32', []), good: valueType('i32', []) }

export interface LossScale {
  readonly scale: Tensor
  readonly good: Tensor
}

/** A power of two between the bounds; the smallest f32 gradient still counts when it is unscaled. */
const [smallest, largest] = [1, 2 ** 24]

/** Gradients as if the loss had never been scaled: exact, since only the exponent changes. */
export function unscaled<T extends Tensors>(gradients: T, { scale }: LossScale): T {
  const inverse = full(1, scale.type).div(scale)
  return mapTree<Tensor, Tensor>(gradients, (gradient) => gradient.mul(inverse.cast(gradient.dtype))) as T
}

/** Whether every element of every tensor is finite: 0 x is 0 only then. */
export function allFinite(tensors: Tensors): Tensor {
  const zeros = leaves<Tensor>(tensors).map(([, x]) => x.mul(0).sum())
  return zeros.reduce((a, b) => a.add(b)).equal(0)
}

/** `next` where the condition holds, else `before`: two trees of one shape. */
export function keepIf<T extends Tensors>(condition: Tensor, next: T, before: T): T {
  const old = new Map(leaves<Tensor>(before))
  return mapTree<Tensor, Tensor>(next, (x, path) => where(condition, x, old.get(path)!)) as T
}

/** The scale of the next step. */
export function nextLossScale(
  { scale, good }: LossScale,
  finite: Tensor,
  { goodSteps }: LossScaleOptions,
): { readonly scale: Tensor; readonly good: Tensor } {
  const counted = good.add(1)
  const due = counted.less(goodSteps)
  const grown = where(due, scale, scale.mul(2).min(largest))
  const rest = where(due, counted, 0)
  return { scale: where(finite, grown, scale.mul(0.5).max(smallest)), good: where(finite, rest, 0) }
}
