/**
 * Learns to swing up the Acrobot by policy gradients (models/policy.ts): rounds of acting in all worlds and of updates from
 * what happened.
 *
 * What is charged is the learner: each forward pass in acting (as `data`, for so it gets its data) and each update, counted
 * of the compiled programs times how often they ran. The world's physics are the same for all and not charged. Steps, here,
 * are those of the environment, over all worlds.
 */
import { philoxUniform, type Program } from '../../compiler/index.ts'
import { permuteIndex } from '../../data/order.ts'
import { badUsage } from '../../errors.ts'
import { checkConfig } from '../../models/check.ts'
import { Acrobots, observationSize, torques } from '../../worlds/acrobot.ts'
import { advantagesOf, type Advantages, type Rewards } from './advantages.ts'
import { compileActing, drawn, swingObjective, swingRecipeSchema, type SwingRecipe } from './models/policy.ts'
import { compileStep, initialise, specsOf } from './supervised.ts'
import {
  addPhases,
  noPhases,
  phasesOf,
  timesPhases,
  type Ending,
  type Job,
  type Measurement,
} from './task.ts'

/** Episodes of an evaluation, the same each time. */
const episodes = 20

/** Numbers that depend on seed, purpose and how many were drawn. */
function randomOf(seed: number, stream: number): () => number {
  let next = 0
  return () => philoxUniform({ seed, step: 0, stream, salt: 0x5717 }, next++)
}

/** What happened in a round, [horizon, worlds], and what led to it. */
interface Round extends Rewards {
  readonly observed: Float32Array
  readonly action: Int32Array
  /** Log-probabilities of the actions when they were taken. */
  readonly before: Float32Array
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
      counts = addPhases(counts, timesPhases(phasesOf(learner), update.epochs * update.parts))
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

function rowsOf(made: Round & Advantages, chosen: readonly number[]) {
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
      round.before[from + world] = logs[world * torques.length + action]!
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
