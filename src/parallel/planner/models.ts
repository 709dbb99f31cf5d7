/**
 * What the planner can plan: the language recipe at any setting, and published models by name, whose graphs are those of
 * models/language and models/public at their real sizes. Tracing needs no memory for values, so any size is planned.
 */
import {
  crossEntropy,
  mapTree,
  type Tensor,
  type Tensors,
  type Tree,
  type ValueType,
} from '../../compiler/index.ts'
import { badUsage, didYouMean } from '../../errors.ts'
import type { LanguageConfig } from '../../models/language/config.ts'
import {
  parameterTypes,
  tokenLosses,
  type ModelConfig,
  type ModelWeights,
} from '../../models/language/model.ts'
import { llama } from '../../models/public/llama.ts'
import type { ProductType } from '../hardware/index.ts'
import type { StateBytes } from '../simulate/index.ts'

export interface PlannedModel {
  readonly name: string
  readonly layers: number
  readonly heads: number
  readonly kvHeads: number
  readonly context: number
  readonly vocab: number
  /** Weights of layers are stacked under `layers.`. */
  readonly weights: Tree<ValueType>
  /** Mean loss of tokens [batch, context + 1]. */
  readonly loss: (weights: Tensors, tokens: Tensor) => Tensor
  /** What the operands of the products in layers are; those of the head are bf16 at least. */
  readonly products: ProductType
  /** Bytes of an activation's element, in memory and on links. */
  readonly activationBytes: 2 | 4
  readonly state: StateBytes
}

/** bf16 weights, gradients summed in f32, and Adam's f32 master weights and moments: 18 bytes, as Megatron-LM keeps. */
export const mixedState: StateBytes = { parameter: 2, gradient: 4, optimizer: 12 }

const stateFloats: Readonly<Record<LanguageConfig['optim']['name'], number>> = {
  sgd: 0,
  momentum: 1,
  muon: 1,
  adamw: 2,
  // Bytes instead of floats; a number a row and a column.
  adamw8bit: 0.5,
  adafactor: 0,
}

/** The language recipe as a run would be. */
export function plannedLanguage(config: LanguageConfig, vocab: number): PlannedModel {
  const model: ModelConfig = { ...config.model, vocab, dropout: 0 }
  return {
    name: `language, ${model.layers} layers of ${model.width}`,
    ...shape(model),
    weights: parameterTypes(model),
    loss: (weights, tokens) => tokenLosses(weights as unknown as ModelWeights, tokens, model).mean(),
    products: config.precision === 'f32' ? 'f32' : 'bf16',
    activationBytes: 4,
    state: { parameter: 4, gradient: 4, optimizer: 4 * stateFloats[config.optim.name] },
  }
}

const shape = ({ layers, heads, kvHeads, context, vocab }: ModelConfig) => ({
  layers,
  heads,
  kvHeads,
  context,
  vocab,
})

interface Size {
  readonly layers: number
  readonly width: number
  readonly heads: number
}

function gpt(name: string, { layers, width, heads }: Size, vocab: number, context: number): PlannedModel {
  const model: ModelConfig = {
    size: 'gpt2',
    block: 'gpt2',
    layers,
    width,
    heads,
    kvHeads: heads,
    context,
    vocab,
    dropout: 0,
    experts: 0,
    topK: 1,
    sharedExperts: 0,
    expertHidden: 0,
    routing: 'softmax',
    balance: 'bias',
    balanceRate: 0,
    capacity: 0,
  }
  return {
    name,
    ...shape(model),
    weights: parameterTypes(model),
    loss: (weights, tokens) => tokenLosses(weights as unknown as ModelWeights, tokens, model).mean(),
    products: 'bf16',
    activationBytes: 2,
    state: mixedState,
  }
}

export function llama3(name: string, { layers, width, heads }: Size, inner: number): PlannedModel {
  const config = {
    modelType: 'llama',
    family: 'llama',
    layers,
    width,
    heads,
    inner,
    kvHeads: 8,
    headSize: width / heads,
    vocab: 128_256,
    context: 8192,
    epsilon: 1e-5,
    theta: 500_000,
    tied: false,
    bias: { qkv: false, out: false, mlp: false },
  } as const
  const { weights, forward } = llama(config)
  return {
    name,
    layers,
    heads,
    kvHeads: config.kvHeads,
    context: config.context,
    vocab: config.vocab,
    weights,
    loss(parameters, tokens) {
      const time = tokens.size('time') - 1
      const { logits } = forward(parameters, tokens.slice('time', 0, time))
      return crossEntropy(logits, tokens.slice('time', 1, time)).mean()
    },
    products: 'bf16',
    activationBytes: 2,
    state: mixedState,
  }
}

/** Sizes as published: Brown et al., Language Models are Few-Shot Learners; Grattafiori et al., The Llama 3 Herd of Models. */
const published = {
  'gpt3-175b': () => gpt('gpt3-175b', { layers: 96, width: 12_288, heads: 96 }, 51_200, 2048),
  'llama3-8b': () => llama3('llama3-8b', { layers: 32, width: 4096, heads: 32 }, 14_336),
  'llama3-70b': () => llama3('llama3-70b', { layers: 80, width: 8192, heads: 64 }, 28_672),
  'llama3-405b': () => llama3('llama3-405b', { layers: 126, width: 16_384, heads: 128 }, 53_248),
} as const satisfies Readonly<Record<string, () => PlannedModel>>

export const publishedModels: readonly string[] = Object.keys(published)

/**
 * A published model by name.
 *
 * @throws UserError when there is none.
 */
export function modelByName(name: string): PlannedModel {
  if (Object.hasOwn(published, name)) return published[name as keyof typeof published]()
  const known = ['language', ...publishedModels]
  const near = didYouMean(name, known)
  throw badUsage({
    where: 'model',
    got: `'${name}'`,
    expected: `one of ${known.join(', ')}`,
    fix: near ? `did you mean ${near}?` : 'choose one of them',
  })
}

/** The same model with longer windows. */
export const withContext = (model: PlannedModel, context: number): PlannedModel => ({ ...model, context })

export const parameterCount = ({ weights }: PlannedModel): number => {
  let count = 0
  mapTree<ValueType, number>(weights, ({ shape }) => {
    const size = shape.reduce((product, extent) => product * extent, 1)
    count += size
    return size
  })
  return count
}
