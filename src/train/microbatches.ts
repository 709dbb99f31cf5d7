/** The beginning of a training step: loss and gradients of a batch that is taken in microbatches, one after the other. */
import {
  full,
  grad,
  inPhase,
  iota,
  leaves,
  mapTree,
  scan,
  valueType,
  zerosLike,
  type Tensor,
  type Tensors,
} from '../compiler/index.ts'
import { objective, type ModelConfig, type ModelWeights } from '../models/language/model.ts'
import { scalar, specsOf, type StepState } from './state.ts'

/** What one microbatch gives; all of it is averaged over them. */
export type Micro = {
  readonly loss: Tensor
  readonly grads: Readonly<Record<string, Tensor>>
  readonly load?: Tensor
}

/**
 * Summed loss and mean gradients of tokens [micro, batch, time + 1]. `first`: the number of the first microbatch, where
 * others count before it.
 */
export function gradientsOf(
  model: ModelConfig,
  { step, params, lossScale }: Pick<StepState, 'step' | 'params' | 'lossScale'>,
  tokens: Tensor,
  seed: Tensor,
  first?: Tensor,
): Micro {
  const trained = trainedOf(model, params)
  const micro = (tokens: Tensor, index: Tensor): Micro => {
    const key = dropoutKey(seed, step, first ? index.add(first) : index)
    const { loss, total, load } = objective(params as ModelWeights, tokens, model, key)
    const grads = grad(lossScale ? total.mul(lossScale.scale) : total, trained)
    return { loss, grads, ...(load ? { load } : {}) }
  }
  return tokens.size('micro') === 1
    ? micro(firstOf(tokens), step.mul(0))
    : accumulated(tokens, trained, model, micro)
}

/** Parameters that the optimizer moves, by path. */
export function trainedOf(model: ModelConfig, params: Tensors): Record<string, Tensor> {
  const ruled = new Set(specsOf(model).flatMap(([path, spec]) => (spec.ruled ? [path] : [])))
  return Object.fromEntries(leaves<Tensor>(params).filter(([path]) => !ruled.has(path)))
}

/**
 * Summed loss and mean gradients over microbatches, one at a time: memory of one for each halving, result of all. Halves are
 * added pairwise, as leaves of a batch are (compiler/ops/leaves.ts), so that their number changes no bit.
 */
function accumulated(
  tokens: Tensor,
  trained: Readonly<Record<string, Tensor>>,
  { layers, experts }: ModelConfig,
  micro: (tokens: Tensor, index: Tensor) => Micro,
): Micro {
  const start: Micro = {
    loss: full(0, scalar('f32')),
    grads: mapTree<Tensor, Tensor>(trained, zerosLike) as Micro['grads'],
    ...(experts > 0 ? { load: full(0, valueType('f32', [layers, experts], ['layer', 'expert'])) } : {}),
  }
  const add = (a: Micro, b: Micro): Micro => {
    const other = new Map(leaves<Tensor>(b))
    const sum = (x: Tensor, path: string): Tensor => x.add(other.get(path)!)
    return mapTree<Tensor, Tensor>(a, (x, path) =>
      path.startsWith('grads.') ? inPhase('backward', () => sum(x, path)) : sum(x, path),
    ) as Micro
  }
  const sumOf = (tokens: Tensor, index: Tensor): typeof start => {
    const count = tokens.size('micro')
    if (count === 1) return micro(firstOf(tokens), index.reshape([]))
    const part = count % 2 === 0 ? 2 : count
    const parts = (x: Tensor): Tensor => x.split('micro', { part, micro: count / part })
    const [sum] = scan(
      start,
      { tokens: parts(tokens), index: parts(index) },
      (carry, x) => [add(carry, sumOf(x.tokens, x.index)), {}],
      { name: 'microbatches' },
    )
    return sum
  }
  const count = tokens.size('micro')
  const sum = sumOf(tokens, iota(count, 'micro'))
  const mean = (x: Tensor): Tensor => x.mul(1 / count)
  const grads = Object.fromEntries(
    Object.entries(sum.grads).map(([path, g]) => [path, inPhase('backward', () => mean(g))]),
  )
  return { loss: sum.loss, grads, ...(sum.load ? { load: mean(sum.load) } : {}) }
}

const firstOf = (tokens: Tensor): Tensor => tokens.reshape(tokens.shape.slice(1), tokens.axes.slice(1))

/** Each microbatch draws its own dropout masks: the salt of a draw is the layer, so the number goes into the seed. */
export const dropoutKey = (
  seed: Tensor,
  step: Tensor,
  microbatch: Tensor,
): { seed: Tensor; step: Tensor } => ({
  seed: seed.add(microbatch.mul(0x3504f3)),
  step,
})
