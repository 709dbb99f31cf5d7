/**
 * The native programs of a language run: one training step (forward, backward, clipping, optimizer, metrics) and one
 * evaluation batch. Both are traced from the same model; the training state lives inside the step program.
 */
import {
  compile,
  full,
  grad,
  iota,
  leaves,
  mapTree,
  philoxBlock,
  scan,
  sizeOf,
  Tensor,
  valueType,
  wordToUniform,
  zerosLike,
  type CompileOptions,
  type Program,
  type Tensorised,
  type Tensors,
  type Tree,
  type ValueType,
} from '../compiler/index.ts'
import type { LanguageConfig } from '../models/language/config.ts'
import { imbalance, movedBias } from '../models/language/experts.ts'
import {
  objective,
  parameterSpecs,
  parameterTypes,
  weightedLoss,
  type ModelConfig,
  type ModelWeights,
  type ParameterSpec,
} from '../models/language/model.ts'
import {
  allFinite,
  keepIf,
  lossScaleTypes,
  nextLossScale,
  unscaled,
  type LossScale,
} from '../optim/loss-scale.ts'
import { groupedUpdate, optimizerState, optimizers, type Optimizer } from '../optim/optimizers.ts'
import { scheduleTensor } from '../optim/schedule.ts'

const scalar = (dtype: 'f32' | 'i32'): ValueType => valueType(dtype, [])

/** Path and specification of every parameter, in order. */
export const specsOf = (model: ModelConfig): [string, ParameterSpec][] =>
  leaves<ParameterSpec>(parameterSpecs(model))

function chooser(
  config: LanguageConfig,
  model: ModelConfig,
): (path: string) => { optimizer: Optimizer; rate: number } {
  const hidden = new Set(specsOf(model).flatMap(([path, spec]) => (spec.hidden ? [path] : [])))
  const { name, lr, adamLr } = config.optim
  return (path) =>
    name !== 'muon'
      ? { optimizer: optimizers[name], rate: lr }
      : hidden.has(path)
        ? { optimizer: optimizers.muon, rate: lr }
        : { optimizer: optimizers.adamw, rate: adamLr }
}

export const compileOptions = (config: LanguageConfig, options: CompileOptions): CompileOptions => ({
  threads: config.threads,
  precision: config.precision,
  fp8Scaling: config.fp8Scaling,
  leaves: config.leaves,
  ...options,
})

/** What of a training step is computed again, and what of its state lies in a file. */
export const memoryOptions = ({
  recompute,
  memory,
  offload,
}: LanguageConfig): Pick<CompileOptions, 'recompute' | 'offload'> => ({
  recompute: recompute === 'auto' ? { memoryBytes: memory } : recompute === 'full' ? 'full' : false,
  ...(offload === 'optimizer' ? { offload: (path: string) => path.startsWith('state.optim.') } : {}),
})

/** A program before it is compiled. */
export interface Source {
  readonly name: string
  readonly inputs: Tree<ValueType>
  readonly body: (inputs: Tensors) => Tensors
}

/**
 * One training step. Inputs: `tokens` [accumulate, batch, context + 1] i32 and `seed`; outputs: loss, gradNorm, lr; with
 * experts their imbalance, with fp16 the loss scale and whether the step was skipped.
 */
export function stepSource(config: LanguageConfig, vocab: number): Source {
  const { accumulate } = config
  const model: ModelConfig = { ...config.model, vocab }
  const inputs = stepInputs(config, vocab)
  const body = ({ state, tokens, seed }: Tensorised<typeof inputs>): Tensors => {
    const { step, params, lossScale } = state
    const trained = trainedOf(model, params)
    const micro = (tokens: Tensor, index: Tensor): Micro => {
      const { loss, total, load } = objective(params, tokens, model, dropoutKey(seed, step, index))
      const grads = grad(lossScale ? total.mul(lossScale.scale) : total, trained)
      return { loss, grads, ...(load ? { load } : {}) }
    }
    const { grads: raw, ...rest } =
      accumulate === 1 ? micro(firstOf(tokens), step.mul(0)) : accumulated(tokens, trained, model, micro)
    const grads = lossScale ? unscaled(raw, lossScale) : raw
    // A sum over the whole batch, divided once: its bits do not depend on how the batch is spread.
    const mean = rest.loss.mul(1 / (config.batch * config.model.context))
    return nextState(config, vocab, state, { ...rest, loss: mean, grads, norm: squares(grads).sqrt() })
  }
  return { name: 'train-step', inputs, body: body as unknown as Source['body'] }
}

/** Types of the inputs of a training step on one device. */
export function stepInputs(config: LanguageConfig, vocab: number) {
  const model: ModelConfig = { ...config.model, vocab }
  const { accumulate, batch } = config
  const choose = chooser(config, model)
  return {
    state: {
      step: scalar('i32'),
      params: parameterTypes(model),
      optim: optimizerState(
        specsOf(model).filter(([, spec]) => !spec.ruled),
        (path) => choose(path).optimizer,
      ),
      ...(config.precision === 'fp16' ? { lossScale: lossScaleTypes } : {}),
    },
    tokens: valueType(
      'i32',
      [accumulate, batch / accumulate, config.model.context + 1],
      ['micro', 'batch', 'time'],
    ),
    seed: scalar('i32'),
  }
}

/** Each microbatch draws its own dropout masks: the salt of a draw is the layer, so the number goes into the seed. */
export const dropoutKey = (
  seed: Tensor,
  step: Tensor,
  microbatch: Tensor,
): { seed: Tensor; step: Tensor } => ({
  seed: seed.add(microbatch.mul(0x3504f3)),
  step,
})

/** Sum of squares of all elements of a tree. */
export const squares = (grads: Tensors): Tensor =>
  leaves<Tensor>(grads)
    .map(([, g]) => g.square().sum())
    .reduce((a, b) => a.add(b))

/** State, or the part of it that a pipeline stage holds, as tensors. */
export interface StepState {
  readonly step: Tensor
  readonly params: Tensors
  readonly optim: Readonly<Record<string, Readonly<Record<string, Tensor>>>>
  readonly lossScale?: LossScale
}

/** What a step found out before it moves anything. */
export interface StepResults {
  readonly loss: Tensor
  /** Of the parameters that an optimizer moves. */
  readonly grads: Tensors
  readonly norm: Tensor
  /** Of a mixture: choices that fell on each expert, [layer, expert]. */
  readonly load?: Tensor
}

/** From gradients to what a step returns: clipped, updated, or skipped where a half-precision gradient overflowed. */
export function nextState(
  config: LanguageConfig,
  vocab: number,
  state: StepState,
  { loss: value, grads, norm, load }: StepResults,
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
  const updated = groupedUpdate(
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
      const moved = updated.parameters.get(path)
      return moved ?? movedBias(old, load!, config.model.balanceRate)
    }),
    optim: updated.state,
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

/** What one microbatch gives; all of it is averaged over them. */
type Micro = {
  readonly loss: Tensor
  readonly grads: Readonly<Record<string, Tensor>>
  readonly load?: Tensor
}

/** Parameters that the optimizer moves, by path. */
function trainedOf(model: ModelConfig, params: ModelWeights): Record<string, Tensor> {
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
    return mapTree<Tensor, Tensor>(a, (x, path) => x.add(other.get(path)!)) as Micro
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
  const grads = Object.fromEntries(Object.entries(sum.grads).map(([path, g]) => [path, mean(g)]))
  return { loss: sum.loss, grads, ...(sum.load ? { load: mean(sum.load) } : {}) }
}

const firstOf = (tokens: Tensor): Tensor => tokens.reshape(tokens.shape.slice(1), tokens.axes.slice(1))

const clipFactor = (norm: Tensor, clip: number): Tensor => full(clip, norm.type).div(norm.max(clip))

/** Compiles one evaluation batch. Inputs: params, tokens [batch, context + 1], counted [batch, context]; output: nats. */
export function compileEvaluation(
  config: LanguageConfig,
  vocab: number,
  options: CompileOptions = {},
): Promise<Program> {
  const model: ModelConfig = { ...config.model, vocab, dropout: 0 }
  const batch = evaluationBatch(config)
  const { context } = config.model
  const inputs = {
    params: parameterTypes(model),
    tokens: valueType('i32', [batch, context + 1], ['batch', 'time']),
    counted: valueType('f32', [batch, context], ['batch', 'time']),
  }
  const body = ({ params, tokens, counted }: Tensorised<typeof inputs>): Tensors => ({
    nats: weightedLoss(params, tokens, counted, model),
  })
  return compile(body, inputs, compileOptions(config, { name: 'evaluation', ...options }))
}

export const evaluationBatch = (config: LanguageConfig): number => config.batch / config.accumulate

/** Fills the step program's state with its initial values, where those are not zero: a pure function of the settings. */
export function initialise(program: Program, config: LanguageConfig, vocab: number): void {
  const { seed } = config
  if (config.precision === 'fp16') program.write('state.lossScale.scale', [config.optim.lossScale])
  specsOf({ ...config.model, vocab }).forEach(([path, spec], stream) => {
    const values = new Float32Array(sizeOf(spec.shape))
    if (spec.std === 'ones') values.fill(1)
    else if (spec.std > 0) fillNormal(values, spec.std, seed, stream)
    program.write(`state.params.${path}`, values)
  })
}

/** Box-Muller on counter-based uniforms: element i depends only on (seed, stream, i). */
function fillNormal(values: Float32Array, std: number, seed: number, stream: number): void {
  const use = { seed, step: 0, stream, salt: 0x1717 }
  for (let i = 0; i < values.length; i += 4) {
    const [a, b, c, d] = philoxBlock(use, i / 4)
    fillPair(values, i, std, a, b)
    fillPair(values, i + 2, std, c, d)
  }
}

/** Two normal values from two words. A write beyond the end of an array does nothing. */
function fillPair(values: Float32Array, i: number, std: number, first: number, second: number): void {
  const radius = std * Math.sqrt(-2 * Math.log(1 - wordToUniform(first)))
  const angle = 2 * Math.PI * wordToUniform(second)
  values[i] = radius * Math.cos(angle)
  values[i + 1] = radius * Math.sin(angle)
}
