/**
 * Policies for the Acrobot and how they are improved: two nets with one hidden layer, one for the chances of actions and, where
 * it is learned, one for the value of a state; and the loss of an update. REINFORCE, actor-critic, A2C, generalised advantages
 * and PPO are settings of the recipe.
 */
import { z } from 'zod'
import {
  compile,
  crossEntropy,
  valueType,
  type Program,
  type Tensor,
  type Tensors,
  type Tree,
  type ValueType,
} from '../../../compiler/index.ts'
import { linear } from '../../../nn/layers.ts'
import { observationSize, torques } from '../../../worlds/acrobot.ts'
import { count, optimizerSchema, parameterTypes, type Objective } from '../supervised.ts'
import type { ParameterSpecs } from './parameters.ts'

const share = z.number().min(0).max(1)

export const swingRecipeSchema = z.strictObject({
  steps: count.describe('of the environment, over all worlds'),
  worlds: count,
  horizon: count.describe('steps of each world in a round'),
  width: count.describe('hidden units of each net'),
  advantage: z.strictObject({
    kind: z
      .enum(['return', 'value'])
      .describe('return: sum of rewards to the end of the episode less the mean; value: by a learned value'),
    discount: share,
    lambda: share.describe('with value: 0 looks one step ahead, 1 to the end of the round'),
    standardised: z.boolean().describe('mean 0 and deviation 1 over the round'),
  }),
  update: z.strictObject({
    epochs: count.describe('passes over a round'),
    parts: count.describe('updates a pass'),
    clipRatio: z.number().min(0).describe('PPO: how far a probability may move; 0 = off'),
    entropy: z.number().min(0),
    value: z.number().min(0).describe('weight of the error of values'),
  }),
  optimizer: optimizerSchema,
})
export type SwingRecipe = z.output<typeof swingRecipeSchema>

const actions = torques.length

function netSpecs(width: number): ParameterSpecs {
  const net = (outputs: number, last: number): ParameterSpecs => ({
    into: {
      ...valueType('f32', [observationSize, width], ['observed', 'hidden']),
      std: 1 / Math.sqrt(observationSize),
      hidden: true,
    },
    intoBias: { ...valueType('f32', [width], ['hidden']), std: 0, hidden: false },
    out: {
      ...valueType('f32', [width, outputs], ['hidden', 'outputs']),
      std: last / Math.sqrt(width),
      hidden: false,
    },
    outBias: { ...valueType('f32', [outputs], ['outputs']), std: 0, hidden: false },
  })
  return { policy: net(actions, 0.1), value: net(1, 1) }
}

type Net = Readonly<Record<'into' | 'intoBias' | 'out' | 'outBias', Tensor>>
type Nets = Readonly<Record<'policy' | 'value', Net>>

const forward = (net: Net, observed: Tensor): Tensor =>
  linear(linear(observed, net.into, net.intoBias).tanh(), net.out, net.outBias)

const flat = (x: Tensor): Tensor => x.reshape([x.size(0)], ['batch'])

/** What an update sees of each step: a row of the round. */
export const swingObjective = (recipe: SwingRecipe, rows: number): Objective => {
  const row = valueType('f32', [rows], ['batch'])
  const { clipRatio, entropy, value } = recipe.update
  const learned = recipe.advantage.kind === 'value'
  const { policy, value: valueNet } = netSpecs(recipe.width)
  return {
    specs: learned ? { policy: policy!, value: valueNet! } : { policy: policy! },
    inputs: {
      observed: valueType('f32', [rows, observationSize], ['batch', 'observed']),
      action: valueType('i32', [rows], ['batch']),
      advantage: row,
      target: row,
      before: row,
      counted: row,
    },
    loss(params, { observed, action, advantage, target, before, counted }) {
      const nets = params as unknown as Nets
      const logits = forward(nets.policy, observed!)
      const logProbability = crossEntropy(logits, action!).neg()
      const counting = counted!.sum().max(1)
      const mean = (x: Tensor): Tensor => x.mul(counted!).sum().div(counting)
      const gain =
        clipRatio > 0
          ? clippedGain(logProbability, before!, advantage!, clipRatio)
          : logProbability.mul(advantage!)
      let loss = mean(gain).neg()
      if (entropy > 0) loss = loss.sub(mean(entropyOf(logits)).mul(entropy))
      if (!learned) return loss
      const error = flat(forward(nets.value, observed!)).sub(target!)
      return loss.add(mean(error.square()).mul(0.5 * value))
    },
  }
}

/** PPO (Schulman et al., 2017): no gain from moving a probability further than the ratio allows. */
function clippedGain(logProbability: Tensor, before: Tensor, advantage: Tensor, clip: number): Tensor {
  const ratio = logProbability.sub(before).exp()
  return ratio.mul(advantage).min(
    ratio
      .max(1 - clip)
      .min(1 + clip)
      .mul(advantage),
  )
}

function entropyOf(logits: Tensor): Tensor {
  const shifted = logits.sub(logits.maxOver(-1, true))
  const logs = shifted.sub(shifted.exp().sum(-1, true).log())
  return logs.exp().mul(logs).sum(-1).neg()
}

/** Log-probabilities and, where it is learned, the value of observations of `rows` worlds. */
export function compileActing(objective: Objective, rows: number, threads: number): Promise<Program> {
  const body = ({ params, observed }: { params: Tensors; observed: Tensor }): Tensors => {
    const nets = params as unknown as Nets
    const logits = forward(nets.policy, observed)
    const shifted = logits.sub(logits.maxOver(-1, true))
    const logs = shifted.sub(shifted.exp().sum(-1, true).log())
    return 'value' in nets ? { logs, value: flat(forward(nets.value, observed)) } : { logs }
  }
  return compile(
    body as unknown as (inputs: Tensors) => Tensors,
    {
      params: parameterTypes(objective),
      observed: valueType('f32', [rows, observationSize], ['batch', 'observed']),
    } as Tree<ValueType>,
    { threads, name: 'efficiency-acting' },
  )
}

/** An action by its probability; `u` in [0, 1). */
export function drawn(logs: ArrayLike<number>, row: number, u: number): number {
  let left = u
  for (let action = 0; action < actions - 1; action++) {
    left -= Math.exp(logs[row * actions + action]!)
    if (left < 0) return action
  }
  return actions - 1
}
