/**
 * Trains a small model of characters for the study: any model of models/, any optimizer of the project, on the bundled text.
 *
 * Rates come into the step as numbers, so that trials of one recipe differ in no line of the program and share one
 * compilation; the few operations of a schedule are done outside and not counted. One thread: independent runs fill the
 * cores better than one tiny run does, and the bits are the same either way.
 *
 * The last tenth of the text is held out. Windows spread over its first half are the validation set; its second half is
 * the test set, read once at the end.
 */
import { readFileSync } from 'node:fs'
import { z } from 'zod'
import {
  compile,
  full,
  grad,
  leaves,
  mapTree,
  sizeOf,
  valueType,
  where,
  type CompileOptions,
  type Program,
  type Tensor,
  type Tensors,
  type Tree,
  type ValueType,
} from '../../compiler/index.ts'
import { batchStarts, evaluationWindows } from '../../data/order.ts'
import { charsTokenizer, distinctCharacters } from '../../data/tokenizers/chars.ts'
import { failure } from '../../errors.ts'
import { checkConfig } from '../../models/check.ts'
import { dataPath } from '../../models/language/config.ts'
import type { ParameterSpec } from '../../models/language/model.ts'
import { groupedUpdate, optimizers, optimizerState, type Optimizer } from '../../optim/optimizers.ts'
import { initialValues } from '../../train/programs.ts'
import { textModels } from './models/index.ts'
import type { TextModel } from './models/text-model.ts'
import { addPhases, noPhases, type Ending, type Job, type Measurement, type PhaseCounts } from './task.ts'

const count = z.int().min(1)
const rate = z.number().gt(0)
const share = z.number().min(0).lt(1)

export const textRecipeSchema = z.strictObject({
  steps: count.describe('where the run ends'),
  batch: count.describe('windows a step'),
  context: z.int().min(2).describe('characters a window'),
  model: z.strictObject({
    kind: z.enum(Object.keys(textModels)),
    width: count,
    layers: count,
    heads: count,
  }),
  optimizer: z.strictObject({
    name: z.enum(['sgd', 'momentum', 'adamw', 'muon']),
    rate,
    adamRate: rate.describe('with muon: rate of embeddings, head and norms'),
    momentum: share,
    beta1: share,
    beta2: share,
    weightDecay: z.number().min(0),
    clip: z.number().min(0).describe('largest norm of the gradient; 0 = off'),
  }),
  schedule: z.strictObject({
    kind: z.enum(['constant', 'inverse-sqrt', 'linear', 'cosine']),
    warmup: z.int().min(0).describe('steps of linear warm-up'),
    cooldown: z.number().min(0).max(1).describe('with linear: part of the steps that decays to 0'),
  }),
})
export type TextRecipe = z.output<typeof textRecipeSchema>

/** Characters of the validation set that are predicted. */
const validationCharacters = 4096

export const bundledText = {
  file: 'data/text/tinyshakespeare.txt',
  sha256: '86c4e6aa9db7c042ec79f339dcb96d42b0075e16b8fc2e86bf0ca57e2dc565ed',
}

export async function* trainText({
  recipe,
  seed,
  evalEvery,
}: Job): AsyncGenerator<Measurement, Ending, void> {
  const settings = checkConfig(textRecipeSchema, recipe)
  const { steps, batch, context } = settings
  const text = readText()
  const model = modelOf(settings, text.vocab)
  const stepPhases = await countStep(settings, model)
  const step = await compileStep(settings, model)
  let evaluation: Program | undefined
  try {
    evaluation = await compileEvaluation(settings, model)
    const evaluate = evaluator(evaluation, step, model, context)
    let counts = noPhases
    initialise(step, model, seed)
    for (let done = 1; done <= steps; done++) {
      const starts = batchStarts({ tokens: text.train.length, context, batch, seed, step: done - 1 })
      const factor = scheduled(settings, done - 1)
      await step.run({
        tokens: windowsAt(text.train, starts, context),
        rate: [factor * settings.optimizer.rate],
        adamRate: [factor * settings.optimizer.adamRate],
        count: [done],
      })
      counts = addPhases(counts, stepPhases)
      if (done % evalEvery !== 0 && done !== steps) continue
      const { nats, flop } = await evaluate(validationWindows(text.validation, context))
      counts = addPhases(counts, { ...noPhases, evaluation: flop })
      yield { phases: counts, step: done, samples: done * batch * context, metric: nats }
    }
    return { test: (await evaluate(testWindows(text.test, context))).nats }
  } finally {
    evaluation?.close()
    step.close()
  }
}

interface Text {
  readonly vocab: number
  readonly train: Int32Array
  readonly validation: Int32Array
  readonly test: Int32Array
}

let known: Text | undefined

/** The bundled text as characters; read once. */
function readText(): Text {
  if (known) return known
  const text = readFileSync(dataPath({ data: 'shakespeare' }), 'utf8')
  const tokenizer = charsTokenizer(distinctCharacters([text]))
  const all = Int32Array.from(tokenizer.encode(text))
  const [held, last] = [Math.floor(0.9 * all.length), Math.floor(0.95 * all.length)]
  known = {
    vocab: tokenizer.vocabSize,
    train: all.subarray(0, held),
    validation: all.subarray(held, last),
    test: all.subarray(last),
  }
  return known
}

function windowsAt(from: Int32Array, starts: readonly number[], context: number): Int32Array {
  const tokens = new Int32Array(starts.length * (context + 1))
  starts.forEach((start, row) => tokens.set(from.subarray(start, start + context + 1), row * (context + 1)))
  return tokens
}

interface Windows {
  readonly tokens: Int32Array
  readonly counted: ArrayLike<number>
}

const evaluationRows = 64

/** Evenly spread over the validation part. */
function* validationWindows(from: Int32Array, context: number): Generator<Windows> {
  const windows = Math.ceil(validationCharacters / context / evaluationRows) * evaluationRows
  const counted = new Float32Array(evaluationRows * context).fill(1)
  for (let first = 0; first < windows; first += evaluationRows) {
    const starts = Array.from({ length: evaluationRows }, (_, row) =>
      Math.floor(((first + row) * (from.length - context - 1)) / (windows - 1)),
    )
    yield { tokens: windowsAt(from, starts, context), counted }
  }
}

/** Every character of the test part after the first, once. */
function* testWindows(from: Int32Array, context: number): Generator<Windows> {
  for (const { starts, weights } of evaluationWindows({
    tokens: from.length,
    context,
    batch: evaluationRows,
  }))
    yield { tokens: windowsAt(from, starts, context), counted: weights }
}

/** The factor on the rates of step number `step`, from 0. */
export function scheduled({ steps, schedule }: Pick<TextRecipe, 'steps' | 'schedule'>, step: number): number {
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

const modelOf = ({ model, context }: TextRecipe, vocab: number): TextModel =>
  textModels[model.kind]!({ ...model, context, vocab })

const specsOf = ({ specs }: TextModel): [string, ParameterSpec][] =>
  leaves<ParameterSpec>(specs as Tree<ParameterSpec>)

const parameterTypes = ({ specs }: TextModel): Tree<ValueType> =>
  mapTree<ParameterSpec, ValueType>(specs as Tree<ParameterSpec>, ({ dtype, shape, axes }) => ({
    dtype,
    shape,
    axes,
  }))

const scalar = valueType('f32', [])
const oneThread: CompileOptions = { threads: 1 }

const tokensType = (rows: number, context: number): ValueType =>
  valueType('i32', [rows, context + 1], ['batch', 'time'])

/** Hidden matrices go to Muon, the rest to Adam; every other optimizer takes all. */
function chooser(
  { optimizer }: TextRecipe,
  model: TextModel,
): (path: string) => { optimizer: Optimizer; adam: boolean } {
  const hidden = new Set(specsOf(model).flatMap(([path, spec]) => (spec.hidden ? [path] : [])))
  return (path) =>
    optimizer.name === 'muon' && !hidden.has(path)
      ? { optimizer: optimizers.adamw, adam: true }
      : { optimizer: optimizers[optimizer.name], adam: false }
}

type StepInputs = Readonly<Record<'tokens' | 'rate' | 'adamRate' | 'count', Tensor>> & {
  readonly state: {
    readonly params: Tensors
    readonly optim: Readonly<Record<string, Readonly<Record<string, Tensor>>>>
  }
}

function compileStep(recipe: TextRecipe, model: TextModel, options: CompileOptions = {}): Promise<Program> {
  const { batch, context, optimizer } = recipe
  const choose = chooser(recipe, model)
  const inputs = {
    state: {
      params: parameterTypes(model),
      optim: optimizerState(specsOf(model), (path) => choose(path).optimizer),
    },
    tokens: tokensType(batch, context),
    rate: scalar,
    adamRate: scalar,
    count: scalar,
  }
  const body = ({ state, tokens, rate: main, adamRate, count: update }: StepInputs): Tensors => {
    const loss = model.losses(state.params, tokens).mean()
    const grads = leaves<Tensor>(grad(loss, state.params))
    const clipped = optimizer.clip > 0 ? clip(grads, optimizer.clip) : grads
    const { beta1, beta2, momentum, weightDecay } = optimizer
    const next = groupedUpdate(
      leaves<Tensor>(state.params),
      new Map(clipped),
      state.optim,
      update,
      (path) => ({ optimizer: choose(path).optimizer, lr: choose(path).adam ? adamRate : main }),
      { beta1, beta2, eps: 1e-8, momentum, weightDecay },
    )
    const params = mapTree<Tensor, Tensor>(state.params, (_, path) => next.parameters.get(path)!)
    return { state: { params, optim: next.state }, loss }
  }
  return compile(body as unknown as (inputs: Tensors) => Tensors, inputs as Tree<ValueType>, {
    ...oneThread,
    name: 'efficiency-step',
    ...options,
  })
}

function clip(grads: [string, Tensor][], largest: number): [string, Tensor][] {
  const norm = grads
    .map(([, g]) => g.square().sum())
    .reduce((a, b) => a.add(b))
    .sqrt()
  const factor = full(largest, norm.type).div(norm.max(largest))
  return grads.map(([path, g]) => [path, g.mul(factor)])
}

function compileEvaluation({ context }: TextRecipe, model: TextModel): Promise<Program> {
  const inputs = {
    params: parameterTypes(model),
    tokens: tokensType(evaluationRows, context),
    counted: valueType('f32', [evaluationRows, context], ['batch', 'time']),
  }
  const body = ({
    params,
    tokens,
    counted,
  }: {
    params: Tensors
    tokens: Tensor
    counted: Tensor
  }): Tensors => ({
    nats: where(counted.greater(0), model.losses(params, tokens), 0).sum(),
  })
  return compile(body as unknown as (inputs: Tensors) => Tensors, inputs as Tree<ValueType>, {
    ...oneThread,
    name: 'efficiency-evaluation',
  })
}

/** Mean nats of the windows with the parameters of the step program, and what that took. */
const evaluator =
  (program: Program, step: Program, model: TextModel, context: number) =>
  async (windows: Iterable<Windows>): Promise<{ nats: number; flop: number }> => {
    for (const [path] of specsOf(model)) program.write(`params.${path}`, step.view(`state.params.${path}`))
    let [nats, predictions, flop] = [0, 0, 0]
    for (const { tokens, counted } of windows) {
      await program.run({ tokens, counted })
      nats += program.view('nats')[0]!
      flop += program.flops
      for (let i = 0; i < evaluationRows * context; i++) predictions += counted[i]!
    }
    return { nats: nats / predictions, flop }
  }

function initialise(program: Program, model: TextModel, seed: number): void {
  for (const [path, { shape }] of program.inputs)
    if (path.startsWith('state.')) program.write(path, new Float32Array(sizeOf(shape)))
  specsOf(model).forEach(([path, spec], stream) =>
    program.write(`state.params.${path}`, initialValues(spec, seed, stream)),
  )
}

/**
 * Operations of one step by phase. The total is what the step program does; forward alone and forward with backward are
 * counted of programs that do only that, and the rest is the optimizer with its clipping.
 */
async function countStep(recipe: TextRecipe, model: TextModel): Promise<PhaseCounts> {
  const { batch, context } = recipe
  const inputs = { params: parameterTypes(model), tokens: tokensType(batch, context) }
  const flops = async (body: (loss: Tensor, params: Tensors) => Tensors): Promise<number> => {
    const traced = ({ params, tokens }: { params: Tensors; tokens: Tensor }): Tensors =>
      body(model.losses(params, tokens).mean(), params)
    const program = await compile(
      traced as unknown as (inputs: Tensors) => Tensors,
      inputs as Tree<ValueType>,
      { ...oneThread, name: 'efficiency-count', target: 'reference' },
    )
    return program.flops
  }
  const forward = await flops((loss) => ({ loss }))
  const both = await flops((loss, params) => ({ loss, grads: grad(loss, params) }))
  const whole = await compileStep(recipe, model, { target: 'reference' })
  if (whole.flops < both)
    throw failure({
      where: 'counts of a step',
      got: `${whole.flops} in all`,
      expected: `at least ${both}, forward and backward`,
      fix: 'report this model',
    })
  return { ...noPhases, forward, backward: both - forward, optimizer: whole.flops - both }
}
