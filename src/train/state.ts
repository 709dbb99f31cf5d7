/** The training state of a language run: parameters and what their optimizers keep, as types and as tensors. */
import { leaves, valueType, type Tensor, type Tensors, type ValueType } from '../compiler/index.ts'
import type { LanguageConfig } from '../models/language/config.ts'
import {
  parameterSpecs,
  parameterTypes,
  type ModelConfig,
  type ParameterSpec,
} from '../models/language/model.ts'
import { lossScaleTypes, type LossScale } from '../optim/loss-scale.ts'
import { optimizers, optimizerState, type Optimizer } from '../optim/optimizers.ts'

export const scalar = (dtype: 'f32' | 'i32'): ValueType => valueType(dtype, [])

/** Path and specification of every parameter, in order. */
export const specsOf = (model: ModelConfig): [string, ParameterSpec][] =>
  leaves<ParameterSpec>(parameterSpecs(model))

/** Types of the parameters that an optimizer moves, by path. */
export const trainedTypes = (model: ModelConfig): Record<string, ValueType> =>
  Object.fromEntries(
    specsOf(model).flatMap(([path, { dtype, shape, axes, ruled }]) =>
      ruled ? [] : [[path, valueType(dtype, shape, axes)]],
    ),
  )

/** The optimizer of each parameter, and its peak learning rate. */
export function chooser(
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

/** State, or the part of it that a pipeline stage holds, as tensors. */
export interface StepState {
  readonly step: Tensor
  readonly params: Tensors
  readonly optim: Readonly<Record<string, Readonly<Record<string, Tensor>>>>
  readonly lossScale?: LossScale
}
