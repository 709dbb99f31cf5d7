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
  type Recompute,
  type Tensorised,
  type Tensors,
  type ValueType,
} from '../compiler/index.ts'
import type { LanguageConfig } from '../models/language/config.ts'
import {
  loss,
  parameterSpecs,
  parameterTypes,
  weightedLoss,
  type ModelConfig,
  type ModelWeights,
  type ParameterSpec,
} from '../models/language/model.ts'
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

const compileOptions = (config: LanguageConfig, options: CompileOptions): CompileOptions => ({
  threads: config.threads,
  precision: config.precision,
  ...options,
})

const recomputeOf = ({ recompute, memory }: LanguageConfig): Recompute =>
  recompute === 'auto' ? { memoryBytes: memory } : recompute === 'full' ? 'full' : false

/** Compiles one training step. Inputs: `tokens` [accumulate, batch, context + 1] i32 and `seed`; outputs: loss, gradNorm, lr. */
export function compileStep(
  config: LanguageConfig,
  vocab: number,
  options: CompileOptions = {},
): Promise<Program> {
  const model: ModelConfig = { ...config.model, vocab }
  const specs = specsOf(model)
  const choose = chooser(config, model)
  const { accumulate, batch } = config
  const inputs = {
    state: {
      step: scalar('i32'),
      params: parameterTypes(model),
      optim: optimizerState(specs, (path) => choose(path).optimizer),
    },
    tokens: valueType(
      'i32',
      [accumulate, batch / accumulate, config.model.context + 1],
      ['micro', 'batch', 'time'],
    ),
    seed: scalar('i32'),
  }
  const { beta1, beta2, momentum, weightDecay, clip } = config.optim
  const schedule = { steps: config.steps, warmup: config.optim.warmup, cooldown: config.optim.cooldown }

  const body = ({ state, tokens, seed }: Tensorised<typeof inputs>): Tensors => {
    const { step, params, optim } = state
    const micro = (tokens: Tensor, index: Tensor): { loss: Tensor; grads: ModelWeights } => {
      // Each microbatch draws its own dropout masks: the salt of a draw is the layer, so the number goes into the seed.
      const key = { seed: seed.add(index.mul(0x3504f3)), step }
      const value = loss(params, tokens, model, key)
      return { loss: value, grads: grad(value, params) }
    }
    const { loss: value, grads } =
      accumulate === 1 ? micro(firstOf(tokens), step.mul(0)) : accumulated(tokens, params, micro)
    const flat = leaves<Tensor>(grads)
    const norm = flat
      .map(([, g]) => g.square().sum())
      .reduce((a, b) => a.add(b))
      .sqrt()
    const scaled = clip > 0 ? flat.map(([path, g]) => [path, g.mul(clipFactor(norm, clip))] as const) : flat
    const now = step.cast('f32')
    const factor = scheduleTensor(schedule, now)
    const updated = groupedUpdate(
      leaves<Tensor>(params),
      new Map(scaled),
      optim,
      now.add(1),
      (path) => ({ optimizer: choose(path).optimizer, lr: factor.mul(choose(path).rate) }),
      { beta1, beta2, eps: 1e-10, momentum, weightDecay },
    )
    return {
      state: {
        step: step.add(1),
        params: mapTree<Tensor, Tensor>(params, (_, path) => updated.parameters.get(path)!),
        optim: updated.state,
      },
      loss: value,
      gradNorm: norm,
      lr: factor.mul(config.optim.lr),
    }
  }
  const policies = {
    recompute: recomputeOf(config),
    ...(config.offload === 'optimizer' ? { offload: (path: string) => path.startsWith('state.optim.') } : {}),
  }
  return compile(body, inputs, compileOptions(config, { name: 'train-step', ...policies, ...options }))
}

/** Mean loss and gradients over microbatches, one at a time: memory of one, result of all. */
function accumulated(
  tokens: Tensor,
  params: ModelWeights,
  micro: (tokens: Tensor, index: Tensor) => { loss: Tensor; grads: ModelWeights },
): { loss: Tensor; grads: ModelWeights } {
  const count = tokens.size('micro')
  const start = {
    loss: full(0, scalar('f32')),
    grads: mapTree<Tensor, Tensor>(params, zerosLike) as ModelWeights,
  }
  const add = (a: typeof start, b: typeof start): typeof start => {
    const other = new Map(leaves<Tensor>(b))
    return mapTree<Tensor, Tensor>(a, (x, path) => x.add(other.get(path)!)) as typeof start
  }
  const [sum] = scan(
    start,
    { tokens, index: iota(count, 'micro') },
    (carry, x) => [add(carry, micro(x.tokens, x.index)), {}],
    {
      name: 'microbatches',
    },
  )
  return mapTree<Tensor, Tensor>(sum, (x) => x.mul(1 / count)) as typeof start
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

/** Fills the step program's parameters with their initial values: a pure function of the seed. */
export function initialise(program: Program, model: ModelConfig, seed: number): void {
  specsOf(model).forEach(([path, spec], stream) => {
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
