/**
 * Local SGD with an outer optimizer (Douillard et al., DiLoCo: Distributed Low-Communication Training of Language
 * Models). Every replica trains by itself for H steps; then the mean of how far they moved is taken for a gradient, and an
 * outer Nesterov step goes from where they last agreed. Between two such rounds nothing is sent: H times fewer bytes.
 *
 * Written for one replica. `mean` is the collective: it returns the mean of its argument over the replicas.
 */
import {
  bytesOf,
  leaves,
  mapTree,
  zerosLike,
  type Tensor,
  type Tensors,
  type ValueType,
} from '../compiler/index.ts'

export type Mean = (x: Tensor) => Tensor

export interface OuterOptions {
  readonly lr: number
  /** Nesterov momentum; 0 is plain SGD. */
  readonly momentum: number
}

export type OuterState<T> = {
  /** Where all replicas last agreed. */
  readonly anchor: T
  readonly velocity: T
}

/** The state before the first round: all replicas agree on their initial parameters. */
export const outerStart = <T extends Tensors>(parameters: T): OuterState<T> => ({
  anchor: parameters,
  velocity: mapTree<Tensor, Tensor>(parameters, zerosLike) as T,
})

/** One round: from a replica's own parameters to those that all go on with, which are the new anchor as well. */
export function outerUpdate<T extends Tensors>(
  parameters: T,
  { anchor, velocity }: OuterState<T>,
  mean: Mean,
  { lr, momentum }: OuterOptions,
): OuterState<T> {
  const [own, old] = [byPath(parameters), byPath(velocity)]
  const moved = byPath(mapTree<Tensor, Tensor>(anchor, (from, path) => mean(from.sub(own.get(path)!))))
  const next = mapTree<Tensor, Tensor>(anchor, (_, path) =>
    old.get(path)!.mul(momentum).add(moved.get(path)!),
  )
  const speed = byPath(next)
  const ahead = mapTree<Tensor, Tensor>(anchor, (from, path) =>
    from.sub(moved.get(path)!.add(speed.get(path)!.mul(momentum)).mul(lr)),
  )
  return { anchor: ahead as T, velocity: next as T }
}

const byPath = (tree: Tensors): Map<string, Tensor> => new Map(leaves<Tensor>(tree))

/** Bytes a replica hands to the collective in one round, and a step on average when a round is due every `every` steps. */
export function outerBytes(
  parameters: readonly ValueType[],
  every: number,
): { readonly round: number; readonly step: number } {
  const round = parameters.reduce((total, type) => total + bytesOf(type), 0)
  return { round, step: round / every }
}
