/**
 * Trains a small model by gradient descent for the study: any problem that can say what a step sees, what its loss is and
 * how it is judged; any optimizer of the project. A task on text or on images is a problem and a schema of its recipes.
 *
 * Rates come into the step as numbers, so that trials of one recipe differ in no line of the program and share one
 * compilation; the few operations of a schedule are done outside and not counted. One thread: independent runs fill the
 * cores better than one tiny run does, and the bits are the same either way.
 */
import { z } from 'zod'
import {
  compile,
  full,
  grad,
  inPhase,
  leaves,
  mapTree,
  sizeOf,
  valueType,
  type CompileOptions,
  type Program,
  type Tensor,
  type Tensors,
  type Tree,
  type Values,
  type ValueType,
} from '../../compiler/index.ts'
import type { ParameterSpec } from '../../models/language/model.ts'
import { groupedUpdate, optimizers, optimizerState, type Optimizer } from '../../optim/optimizers.ts'
import { initialValues } from '../../train/programs.ts'
import type { ParameterSpecs } from './models/parameters.ts'
import { addPhases, noPhases, phasesOf, type Ending, type Job, type Measurement } from './task.ts'

export const count = z.int().min(1)
const rate = z.number().gt(0)
const share = z.number().min(0).lt(1)

export const optimizerSchema = z.strictObject({
  name: z.enum(['sgd', 'momentum', 'adamw', 'muon']),
  rate,
  adamRate: rate.describe('with muon: rate of embeddings, head and norms'),
  momentum: share,
  beta1: share,
  beta2: share,
  weightDecay: z.number().min(0),
  clip: z.number().min(0).describe('largest norm of the gradient; 0 = off'),
})

export const scheduleSchema = z.strictObject({
  kind: z.enum(['constant', 'inverse-sqrt', 'linear', 'cosine']),
  warmup: z.int().min(0).describe('steps of linear warm-up'),
  cooldown: z.number().min(0).max(1).describe('with linear: part of the steps that decays to 0'),
})

/** What the recipes of all supervised tasks have. */
export interface SupervisedRecipe {
  /** Where the run ends. */
  readonly steps: number
  readonly optimizer: z.output<typeof optimizerSchema>
  readonly schedule: z.output<typeof scheduleSchema>
}

/** One run of an evaluation program. */
export interface EvaluationBatch {
  readonly values: Readonly<Record<string, Values>>
  /** Predictions in it that count. */
  readonly predictions: number
}

type Inputs = Readonly<Record<string, ValueType>>
type Given = Readonly<Record<string, Tensor>>

/** What a step of an optimizer needs to know. */
export interface Objective {
  readonly specs: ParameterSpecs
  /** What a step sees besides parameters. */
  readonly inputs: Inputs
  loss(params: Tensors, inputs: Given): Tensor
}

export interface Problem extends Objective {
  /** Characters or images a step. */
  readonly samples: number
  /** What step number `step` sees, from 0. */
  at(step: number): Readonly<Record<string, Values>>
  readonly evaluation: {
    readonly inputs: Inputs
    /** Scalars that are added up over batches. */
    sums(params: Tensors, inputs: Given): Given
    metric(sums: Readonly<Record<string, number>>, predictions: number): number
    validation(): Iterable<EvaluationBatch>
    test(): Iterable<EvaluationBatch>
  }
}

export async function* trainSupervised(
  recipe: SupervisedRecipe,
  problem: Problem,
  { seed, evalEvery }: Pick<Job, 'seed' | 'evalEvery'>,
  threads = 1,
): AsyncGenerator<Measurement, Ending, void> {
  const step = await compileStep(recipe, problem, { threads })
  let evaluation: Program | undefined
  try {
    evaluation = await compileEvaluation(problem, { threads })
    const evaluate = evaluator(evaluation, step, problem)
    let counts = noPhases
    initialise(step, problem, seed)
    for (let done = 1; done <= recipe.steps; done++) {
      const factor = scheduled(recipe, done - 1)
      await step.run({
        ...problem.at(done - 1),
        rate: [factor * recipe.optimizer.rate],
        adamRate: [factor * recipe.optimizer.adamRate],
        count: [done],
      })
      counts = addPhases(counts, phasesOf(step))
      if (done % evalEvery !== 0 && done !== recipe.steps) continue
      const { metric, flop } = await evaluate(problem.evaluation.validation())
      counts = addPhases(counts, { ...noPhases, evaluation: flop })
      yield { phases: counts, step: done, samples: done * problem.samples, metric }
    }
    return { test: (await evaluate(problem.evaluation.test())).metric }
  } finally {
    evaluation?.close()
    step.close()
  }
}

/** The factor on the rates of step number `step`, from 0. */
export function scheduled(
  { steps, schedule }: Pick<SupervisedRecipe, 'steps' | 'schedule'>,
  step: number,
): number {
  const { kind, warmup, cooldown } = schedule
  const rise = warmup > 0 ? Math.min(1, (step + 1) / warmup) : 1
  const after = Math.max(0, step + 1 - warmup) / Math.max(1, steps - warmup)
  switch (kind) {
    case 'constant':
      return rise
    case 'inverse-sqrt':
      return rise * Math.sqrt(Math.max(1, warmup) / Math.max(1, warmup, step + 1))
    case 'cosine':
      return rise * (0.5 + 0.5 * Math.cos(Math.PI * after))
    case 'linear':
      return rise * Math.min(1, (steps - step) / Math.max(1, Math.round(steps * cooldown)))
  }
}

export const specsOf = ({ specs }: Pick<Objective, 'specs'>): [string, ParameterSpec][] =>
  leaves<ParameterSpec>(specs as Tree<ParameterSpec>)

export const parameterTypes = ({ specs }: Pick<Objective, 'specs'>): Tree<ValueType> =>
  mapTree<ParameterSpec, ValueType>(specs as Tree<ParameterSpec>, ({ dtype, shape, axes }) => ({
    dtype,
    shape,
    axes,
  }))

const scalar = valueType('f32', [])

type WithOptimizer = Pick<SupervisedRecipe, 'optimizer'>

/** Hidden matrices go to Muon, the rest to Adam; every other optimizer takes all. */
function chooser(
  { optimizer }: WithOptimizer,
  objective: Objective,
): (path: string) => { optimizer: Optimizer; adam: boolean } {
  const hidden = new Set(specsOf(objective).flatMap(([path, spec]) => (spec.hidden ? [path] : [])))
  return (path) =>
    optimizer.name === 'muon' && !hidden.has(path)
      ? { optimizer: optimizers.adamw, adam: true }
      : { optimizer: optimizers[optimizer.name], adam: false }
}

type StepInputs = Given & {
  readonly rate: Tensor
  readonly adamRate: Tensor
  readonly count: Tensor
  readonly state: {
    readonly params: Tensors
    readonly optim: Readonly<Record<string, Readonly<Record<string, Tensor>>>>
  }
}

export function compileStep(
  recipe: WithOptimizer,
  objective: Objective,
  options: CompileOptions,
): Promise<Program> {
  const choose = chooser(recipe, objective)
  const inputs = {
    state: {
      params: parameterTypes(objective),
      optim: optimizerState(specsOf(objective), (path) => choose(path).optimizer),
    },
    ...objective.inputs,
    rate: scalar,
    adamRate: scalar,
    count: scalar,
  }
  const body = ({ state, rate: main, adamRate, count: update, ...given }: StepInputs): Tensors => {
    const loss = objective.loss(state.params, given)
    const grads = leaves<Tensor>(grad(loss, state.params))
    const { beta1, beta2, momentum, weightDecay, clip } = recipe.optimizer
    const next = inPhase('optimizer', () =>
      groupedUpdate(
        leaves<Tensor>(state.params),
        new Map(clip > 0 ? clipped(grads, clip) : grads),
        state.optim,
        update,
        (path) => ({ optimizer: choose(path).optimizer, lr: choose(path).adam ? adamRate : main }),
        { beta1, beta2, eps: 1e-8, momentum, weightDecay },
      ),
    )
    const params = mapTree<Tensor, Tensor>(state.params, (_, path) => next.parameters.get(path)!)
    return { state: { params, optim: next.state }, loss }
  }
  return compile(body as unknown as (inputs: Tensors) => Tensors, inputs as Tree<ValueType>, {
    name: 'efficiency-step',
    ...options,
  })
}

function clipped(grads: [string, Tensor][], largest: number): [string, Tensor][] {
  const norm = grads
    .map(([, g]) => g.square().sum())
    .reduce((a, b) => a.add(b))
    .sqrt()
  const factor = full(largest, norm.type).div(norm.max(largest))
  return grads.map(([path, g]) => [path, g.mul(factor)])
}

type Traced = { readonly params: Tensors } & Given

function compileEvaluation(problem: Problem, options: CompileOptions): Promise<Program> {
  const { inputs, sums } = problem.evaluation
  const body = ({ params, ...given }: Traced): Tensors => sums(params, given)
  return compile(
    body as unknown as (inputs: Tensors) => Tensors,
    { params: parameterTypes(problem), ...inputs } as Tree<ValueType>,
    { name: 'efficiency-evaluation', ...options },
  )
}

/** The metric over batches with the parameters of the step program, and what that took. */
const evaluator =
  (program: Program, step: Program, problem: Problem) =>
  async (batches: Iterable<EvaluationBatch>): Promise<{ metric: number; flop: number }> => {
    for (const [path] of specsOf(problem)) program.write(`params.${path}`, step.view(`state.params.${path}`))
    const sums: Record<string, number> = {}
    let [predictions, flop] = [0, 0]
    for (const batch of batches) {
      await program.run(batch.values)
      for (const name of program.outputs.keys()) sums[name] = (sums[name] ?? 0) + program.view(name)[0]!
      flop += program.flops
      predictions += batch.predictions
    }
    return { metric: problem.evaluation.metric(sums, predictions), flop }
  }

export function initialise(program: Program, objective: Objective, seed: number): void {
  for (const [path, { shape }] of program.inputs)
    if (path.startsWith('state.')) program.write(path, new Float32Array(sizeOf(shape)))
  specsOf(objective).forEach(([path, spec], stream) =>
    program.write(`state.params.${path}`, initialValues(spec, seed, stream)),
  )
}
