/**
 * One AdamW update (Loshchilov & Hutter, Decoupled Weight Decay Regularization): moments, bias correction, decay. The
 * bias corrections come in as scalars because they are the same for every parameter.
 */
import { valueType } from '../graph/types.ts'
import type { Tensor } from '../trace/tensor.ts'
import { invoke, type Composite } from './composite.ts'

export const adamwComposite: Composite = {
  name: 'adamw',
  doc: 'AdamW update: (parameter, gradient, m, v, lr, 1/(1-β1ᵗ), 1/(1-β2ᵗ)) to (parameter, m, v)',
  body([parameter, gradient, m, v, lr, correction1, correction2], options) {
    const { beta1, beta2, eps, weightDecay } = options as {
      beta1: number
      beta2: number
      eps: number
      weightDecay: number
    }
    const nextM = m!.mul(beta1).add(gradient!.mul(1 - beta1))
    const nextV = v!.mul(beta2).add(gradient!.square().mul(1 - beta2))
    const step = nextM.mul(correction1!).div(nextV.mul(correction2!).sqrt().add(eps))
    const decayed = weightDecay === 0 ? parameter! : parameter!.sub(parameter!.mul(lr!.mul(weightDecay)))
    return [decayed.sub(step.mul(lr!)), nextM, nextV]
  },
  samples: () => {
    const tensor = valueType('f64', [3, 4])
    const scalar = valueType('f64', [])
    return [
      {
        inputs: [tensor, tensor, tensor, tensor, scalar, scalar, scalar],
        options: { beta1: 0.9, beta2: 0.99, eps: 1e-8, weightDecay: 0.1 },
        ranges: [
          [-1, 1],
          [-1, 1],
          [-1, 1],
          [0.1, 1],
          [0.01, 0.1],
          [1, 2],
          [1, 2],
        ],
      },
    ]
  },
}

export interface AdamWOptions {
  readonly beta1: number
  readonly beta2: number
  readonly eps: number
  readonly weightDecay: number
}

export function adamw(inputs: readonly Tensor[], options: AdamWOptions): [Tensor, Tensor, Tensor] {
  return invoke(adamwComposite, inputs, { ...options }) as [Tensor, Tensor, Tensor]
}
