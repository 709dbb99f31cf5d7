/**
 * Learns to swing up the Acrobot by policy gradients: a policy and, but for REINFORCE, a value of states, each a net with one
 * hidden layer. Rounds of acting in all worlds and of updates from what happened; REINFORCE, actor-critic, A2C, generalised
 * advantages and PPO differ in settings only.
 *
 * What is charged is the learner: each forward pass in acting (as `data`, for so it gets its data) and each update, counted
 * of the compiled programs times how often they ran. The world's physics are the same for all and not charged. Steps, here,
 * are those of the environment, over all worlds.
 */
import { z } from 'zod'
import {
  compile,
  crossEntropy,
  philoxUniform,
  valueType,
  type Program,
  type Tensor,
} from '../../compiler/index.ts'
import type { Tensors, Tree, ValueType } from '../../compiler/index.ts'
import { permuteIndex } from '../../data/order.ts'
import { badUsage } from '../../errors.ts'
import { checkConfig } from '../../models/check.ts'
import { linear } from '../../nn/layers.ts'
import { Acrobots, observationSize, torques } from '../../worlds/acrobot.ts'
import type { ParameterSpecs } from './models/parameters.ts'
import {
  compileStep,
  count,
  countStep,
  initialise,
  optimizerSchema,
  parameterTypes,
  specsOf,
  type Objective,
} from './supervised.ts'
import { addPhases, noPhases, timesPhases, type Ending, type Job, type Measurement } from './task.ts'

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
/** Episodes of an evaluation; the worlds of the last one begin elsewhere. */
const episodes = 20

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
function compileActing(objective: Objective, rows: number, threads: number): Promise<Program> {
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
function drawn(logs: ArrayLike<number>, row: number, u: number): number {
  let left = u
  for (let action = 0; action < actions - 1; action++) {
    left -= Math.exp(logs[row * actions + action]!)
    if (left < 0) return action
  }
  return actions - 1
}

/** Numbers that depend on seed, purpose and how many were drawn. */
function randomOf(seed: number, stream: number): () => number {
  let next = 0
  return () => philoxUniform({ seed, step: 0, stream, salt: 0x5717 }, next++)
}

/** What happened in a round, [horizon, worlds]; `next` is the value of what came after a step, 0 where it arrived. */
interface Round {
  readonly observed: Float32Array
  readonly action: Int32Array
  readonly before: Float32Array
  readonly reward: Float32Array
  readonly value: Float32Array
  readonly next: Float32Array
  /** Whether the episode ended there, arrived or cut off. */
  readonly ended: Uint8Array
}

export type Rewards = Pick<Round, 'reward' | 'value' | 'next' | 'ended'>

/**
 * Advantages and targets of values of a round, and which rows count. By a value: generalised advantages (Schulman et al.,
 * 2015). By returns: an episode that the round did not see to its end does not count.
 */
export function advantagesOf(
  { reward, value, next, ended }: Rewards,
  worlds: number,
  { kind, discount, lambda, standardised }: SwingRecipe['advantage'],
): Readonly<Record<'advantage' | 'target' | 'counted', Float32Array>> {
  const [advantage, target] = [new Float32Array(reward.length), new Float32Array(reward.length)]
  const counted = new Float32Array(reward.length).fill(1)
  for (let world = 0; world < worlds; world++) {
    let [later, whole] = [0, kind === 'value']
    for (let at = reward.length - worlds + world; at >= 0; at -= worlds) {
      if (ended[at]! > 0) [later, whole] = [0, true]
      later =
        kind === 'value'
          ? reward[at]! + discount * next[at]! - value[at]! + discount * lambda * later
          : reward[at]! + discount * later
      advantage[at] = later
      target[at] = kind === 'value' ? later + value[at]! : 0
      if (!whole) counted[at] = 0
    }
  }
  if (kind === 'return' || standardised) centre(advantage, counted, standardised)
  return { advantage, target, counted }
}

function centre(values: Float32Array, counted: Float32Array, standardise: boolean): void {
  let [n, sum, squares] = [0, 0, 0]
  values.forEach((value, i) => {
    n += counted[i]!
    sum += counted[i]! * value
    squares += counted[i]! * value * value
  })
  if (n === 0) return
  const mean = sum / n
  const scale = standardise ? 1 / (Math.sqrt(Math.max(0, squares / n - mean * mean)) + 1e-8) : 1
  values.forEach((value, i) => (values[i] = scale * (value - mean)))
}

export async function* trainSwing(
  { recipe, seed, evalEvery }: Job,
  threads = 1,
): AsyncGenerator<Measurement, Ending, void> {
  const settings = checkConfig(swingRecipeSchema, recipe)
  const { steps, worlds: many, horizon, update } = settings
  const size = many * horizon
  if (size % update.parts !== 0)
    throw badUsage({
      where: 'update.parts',
      got: String(update.parts),
      expected: `a divisor of ${size}, the steps of a round`,
      fix: 'change parts, worlds or horizon',
    })
  const rows = size / update.parts
  const objective = swingObjective(settings, rows)
  const updatePhases = await countStep(settings, objective)
  const programs: Program[] = []
  try {
    const learner = await compileStep(settings, objective, { threads })
    programs.push(learner)
    const acting = await compileActing(objective, many, threads)
    programs.push(acting)
    const judging = await compileActing(objective, episodes, threads)
    programs.push(judging)
    initialise(learner, objective, seed)
    const follow = (program: Program): void => {
      for (const [path] of specsOf(objective))
        program.write(`params.${path}`, learner.view(`state.params.${path}`))
    }
    const worlds = new Acrobots(many, randomOf(seed, 1))
    const random = randomOf(seed, 2)
    let [counts, done, updates] = [noPhases, 0, 0]
    while (done < steps) {
      follow(acting)
      const { round, calls } = await play(worlds, acting, random, settings)
      done += size
      const made = { ...round, ...advantagesOf(round, many, settings.advantage) }
      for (let epoch = 0; epoch < update.epochs; epoch++)
        for (let part = 0; part < update.parts; part++) {
          const chosen = Array.from({ length: rows }, (_, row) =>
            permuteIndex(part * rows + row, size, seed, updates - part),
          )
          await learner.run({
            ...rowsOf(made, chosen),
            rate: [settings.optimizer.rate],
            adamRate: [settings.optimizer.adamRate],
            count: [++updates],
          })
        }
      counts = addPhases(counts, { ...noPhases, data: calls * acting.flops })
      counts = addPhases(counts, timesPhases(updatePhases, update.epochs * update.parts))
      const due = Math.floor(done / evalEvery) > Math.floor((done - size) / evalEvery)
      if (!due && done < steps) continue
      follow(judging)
      const judged = await judge(judging)
      counts = addPhases(counts, { ...noPhases, evaluation: judged.calls * judging.flops })
      const wrong = !learner.view('loss').every((loss) => Number.isFinite(loss))
      yield { phases: counts, step: done, samples: done, metric: wrong ? Number.NaN : judged.mean }
    }
    return {}
  } finally {
    for (const program of programs) program.close()
  }
}

function rowsOf(
  made: Round & Readonly<Record<'advantage' | 'target' | 'counted', Float32Array>>,
  chosen: readonly number[],
) {
  const of = (from: Float32Array): Float32Array => Float32Array.from(chosen, (row) => from[row]!)
  const observed = new Float32Array(chosen.length * observationSize)
  chosen.forEach((row, i) =>
    observed.set(
      made.observed.subarray(row * observationSize, (row + 1) * observationSize),
      i * observationSize,
    ),
  )
  return {
    observed,
    action: Int32Array.from(chosen, (row) => made.action[row]!),
    advantage: of(made.advantage),
    target: of(made.target),
    before: of(made.before),
    counted: of(made.counted),
  }
}

/** Acts for a round. The value of what came after a step costs a pass of its own where an episode was cut off. */
async function play(
  worlds: Acrobots,
  acting: Program,
  random: () => number,
  { worlds: many, horizon, advantage: { kind } }: SwingRecipe,
): Promise<{ round: Round; calls: number }> {
  const size = many * horizon
  const round: Round = {
    observed: new Float32Array(size * observationSize),
    action: new Int32Array(size),
    before: new Float32Array(size),
    reward: new Float32Array(size),
    value: new Float32Array(size),
    next: new Float32Array(size),
    ended: new Uint8Array(size),
  }
  const learned = kind === 'value'
  const observed = new Float32Array(many * observationSize)
  let calls = 0
  const look = async (): Promise<void> => {
    worlds.observe(observed)
    await acting.run({ observed })
    calls++
  }
  for (let time = 0; time < horizon; time++) {
    const from = time * many
    // oxlint-disable-next-line no-await-in-loop -- what comes next depends on it
    await look()
    const logs = acting.view('logs')
    round.observed.set(observed, from * observationSize)
    for (let world = 0; world < many; world++) {
      const action = drawn(logs, world, random())
      round.action[from + world] = action
      round.before[from + world] = logs[world * actions + action]!
    }
    if (learned) {
      const values = acting.view('value')
      for (let world = 0; world < many; world++) {
        round.value[from + world] = values[world]!
        if (time > 0 && round.ended[from - many + world] === 0)
          round.next[from - many + world] = values[world]!
      }
    }
    const happened = worlds.step(round.action.subarray(from, from + many))
    // oxlint-disable-next-line no-await-in-loop -- as said
    if (learned && (time === horizon - 1 || happened.includes('cut off'))) await look()
    happened.forEach((what, world) => {
      round.reward[from + world] = what === 'arrived' ? 0 : -1
      if (what !== 'goes on') round.ended[from + world] = 1
      const bootstrap = what === 'cut off' || (what === 'goes on' && time === horizon - 1)
      if (learned && bootstrap) round.next[from + world] = acting.view('value')[world]!
      if (what !== 'goes on') worlds.restart(world)
    })
  }
  return { round, calls }
}

/** Mean return over episodes that are the same in every evaluation, of actions drawn from the policy. */
async function judge(program: Program): Promise<{ mean: number; calls: number }> {
  const [worlds, random] = [new Acrobots(episodes, randomOf(0, 3)), randomOf(0, 4)]
  const observed = new Float32Array(episodes * observationSize)
  const returns = new Float64Array(episodes)
  const open = new Set(returns.keys())
  let calls = 0
  while (open.size > 0) {
    worlds.observe(observed)
    // oxlint-disable-next-line no-await-in-loop -- what comes next depends on it
    await program.run({ observed })
    calls++
    const logs = program.view('logs')
    const taken = Array.from({ length: episodes }, (_, world) => drawn(logs, world, random()))
    worlds.step(taken).forEach((what, world) => {
      if (!open.has(world)) return
      if (what !== 'arrived') returns[world]! -= 1
      if (what !== 'goes on') open.delete(world)
    })
  }
  return { mean: returns.reduce((a, b) => a + b) / episodes, calls }
}
