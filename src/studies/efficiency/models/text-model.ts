/**
 * A model of characters as the study trains it: parameters with their initial distributions, and the nats of every
 * character as a plain function of them. The transformers of this folder and recurrent networks alike.
 */
import type { Tensor, Tensors } from '../../../compiler/index.ts'
import type { ParameterSpecs } from './parameters.ts'

export interface TextModelSettings {
  readonly vocab: number
  readonly context: number
  readonly width: number
  readonly layers: number
  readonly heads: number
}

export interface TextModel {
  readonly specs: ParameterSpecs
  /** Nats of each character [batch, time] of tokens [batch, time + 1] i32, each predicted from those before it. */
  losses(params: Tensors, tokens: Tensor): Tensor
}

export type TextModelKind = (settings: TextModelSettings) => TextModel
