/**
 * The native programs of a language run: one training step (forward, backward, clipping, optimizer, metrics) and one
 * evaluation batch. Both are traced from the same model; the training state lives inside the step program.
 */
import {
  compile,
  inPhase,
  philoxBlock,
  sizeOf,
  valueType,
  wordToUniform,
  type CompileOptions,
  type Program,
  type Tensorised,
  type Tensors,
  type Tree,
  type ValueType,
} from '../compiler/index.ts'
import type { LanguageConfig } from '../models/language/config.ts'
import {
  parameterTypes,
  weightedLoss,
  type ModelConfig,
  type ParameterSpec,
} from '../models/language/model.ts'
import { unscaled } from '../optim/loss-scale.ts'
import { gradientsOf } from './microbatches.ts'
import { firstFactors, isReplicated, replicatedSource } from './replicas.ts'
import { specsOf, stepInputs } from './state.ts'
import { nextState, normOf } from './update.ts'

export const compileOptions = (config: LanguageConfig, options: CompileOptions): CompileOptions => ({
  threads: config.threads,
  precision: config.precision,
  fp8Scaling: config.fp8Scaling,
  leaves: config.leaves,
  ...options,
})

/** What of a training step is computed again, and what of it lies in a file. */
export const memoryOptions = ({
  recompute,
  memory,
  offload,
}: LanguageConfig): Pick<CompileOptions, 'recompute' | 'offload' | 'offloadActivations'> => ({
  recompute: recompute === 'auto' ? { memoryBytes: memory } : recompute === 'full' ? 'full' : false,
  ...(offload === 'optimizer' || offload === 'all'
    ? { offload: (path: string) => path.startsWith('state.optim.') }
    : {}),
  ...(offload === 'activations' || offload === 'all' ? { offloadActivations: true } : {}),
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
  if (isReplicated(config)) return replicatedSource(config, vocab)
  const model: ModelConfig = { ...config.model, vocab }
  const inputs = stepInputs(config, vocab)
  const body = ({ state, tokens, seed }: Tensorised<typeof inputs>): Tensors => {
    const { grads: raw, ...rest } = gradientsOf(model, state, tokens, seed)
    const { lossScale } = state
    const grads = lossScale ? inPhase('optimizer', () => unscaled(raw, lossScale)) : raw
    // A sum over the whole batch, divided once: its bits do not depend on how the batch is spread.
    const mean = rest.loss.mul(1 / (config.batch * config.model.context))
    return nextState(config, vocab, state, { ...rest, loss: mean, grads, norm: normOf(grads) })
  }
  return { name: 'train-step', inputs, body: body as unknown as Source['body'] }
}

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

export const evaluationBatch = ({ batch, accumulate, parallel }: LanguageConfig): number =>
  batch / (accumulate * Math.max(1, parallel.local))

/** Fills the step program's state with its initial values, where those are not zero: a pure function of the settings. */
export function initialise(program: Program, config: LanguageConfig, vocab: number): void {
  const { seed } = config
  if (config.precision === 'fp16') program.write('state.lossScale.scale', [config.optim.lossScale])
  for (const [path, values] of firstFactors(config, vocab)) program.write(path, values)
  specsOf({ ...config.model, vocab }).forEach(([path, spec], stream) => {
    program.write(`state.params.${path}`, initialValues(spec, seed, stream))
  })
}

/** The first values of a parameter; `stream` tells it from the others. */
export function initialValues({ shape, std }: ParameterSpec, seed: number, stream: number): Float32Array {
  const values = new Float32Array(sizeOf(shape))
  if (std === 'ones') values.fill(1)
  else if (std > 0) fillNormal(values, std, seed, stream)
  return values
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
