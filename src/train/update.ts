/** The end of a training step: from gradients to the next state. */
import { full, inPhase, leaves, mapTree, type Tensor, type Tensors } from '../compiler/index.ts'
import type { LanguageConfig } from '../models/language/config.ts'
import { imbalance, movedBias } from '../models/language/experts.ts'
import { allFinite, keepIf, nextLossScale } from '../optim/loss-scale.ts'
import { groupedUpdate } from '../optim/optimizers.ts'
import { scheduleTensor } from '../optim/schedule.ts'
import { chooser, type StepState } from './state.ts'

/** What a step found out before it moves anything. */
export interface StepResults {
  readonly loss: Tensor
  /** Of the parameters that an optimizer moves. */
  readonly grads: Tensors
  readonly norm: Tensor
  /** Of a mixture: choices that fell on each expert, [layer, expert]. */
  readonly load?: Tensor
  /** Where only some of the layers are held: their rows of it. */
  readonly ownLoad?: Tensor
}

/** From gradients to what a step returns: clipped, updated, or skipped where a half-precision gradient overflowed. */
export const nextState = (
  config: LanguageConfig,
  vocab: number,
  state: StepState,
  results: StepResults,
): Tensors => inPhase('optimizer', () => updated(config, vocab, state, results))

function updated(
  config: LanguageConfig,
  vocab: number,
  state: StepState,
  { loss: value, grads, norm, load, ownLoad = load }: StepResults,
): Tensors {
  const { step, params, optim, lossScale } = state
  const { beta1, beta2, momentum, weightDecay, clip, relativeStep } = config.optim
  const choose = chooser(config, { ...config.model, vocab })
  const schedule = { steps: config.steps, warmup: config.optim.warmup, cooldown: config.optim.cooldown }
  const flat = leaves<Tensor>(grads)
  const scaled = clip > 0 ? flat.map(([path, g]) => [path, g.mul(clipFactor(norm, clip))] as const) : flat
  const gradients = new Map<string, Tensor>(scaled)
  const now = step.cast('f32')
  const factor = scheduleTensor(schedule, now)
  const moves = groupedUpdate(
    leaves<Tensor>(params).filter(([path]) => gradients.has(path)),
    gradients,
    optim,
    now.add(1),
    (path) => ({ optimizer: choose(path).optimizer, lr: factor.mul(choose(path).rate) }),
    { beta1, beta2, eps: 1e-10, momentum, weightDecay, relativeStep },
  )
  const next = {
    step: step.add(1),
    params: mapTree<Tensor, Tensor>(params, (old, path) => {
      const moved = moves.parameters.get(path)
      return moved ?? movedBias(old, ownLoad!, config.model.balanceRate)
    }),
    optim: moves.state,
  }
  const measured = {
    loss: value,
    gradNorm: norm,
    lr: factor.mul(config.optim.lr),
    ...(load ? { imbalance: imbalance(load) } : {}),
  }
  if (!lossScale) return { state: next, ...measured }
  const finite = allFinite(grads)
  const scaling = { goodSteps: config.optim.lossScaleSteps }
  return {
    state: {
      ...keepIf(finite, next, { step, params, optim }),
      lossScale: nextLossScale(lossScale, finite, scaling),
    },
    ...measured,
    lossScale: lossScale.scale,
    skipped: finite.cast('i32').neg().add(1),
  }
}

/** The length of a tree of gradients. */
export const normOf = (grads: Tensors): Tensor => inPhase('optimizer', () => squares(grads).sqrt())

/** Sum of squares of all elements of a tree. */
export const squares = (grads: Tensors): Tensor =>
  inPhase('optimizer', () =>
    leaves<Tensor>(grads)
      .map(([, g]) => g.square().sum())
      .reduce((a, b) => a.add(b)),
  )

const clipFactor = (norm: Tensor, clip: number): Tensor => full(clip, norm.type).div(norm.max(clip))
