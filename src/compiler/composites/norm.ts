/**
 * Normalisation over the last axis: layer norm (Ba et al.) with weight and optional bias, and RMS norm (Zhang &
 * Sennrich) with optional weight. Statistics are taken in the input's element type.
 */
import { valueType } from '../graph/types.ts'
import type { Tensor } from '../trace/tensor.ts'
import { invoke, type Composite } from './composite.ts'

export const layerNormComposite: Composite = {
  name: 'layerNorm',
  doc: '(x - mean) / sqrt(variance + eps), scaled and shifted',
  body([x, weight, bias], options) {
    const centred = x!.sub(x!.mean(-1, true))
    const variance = centred.square().mean(-1, true)
    const normal = centred.mul(variance.add(options['eps'] as number).rsqrt())
    const scaled = weight ? normal.mul(weight) : normal
    return [bias ? scaled.add(bias) : scaled]
  },
  samples: () => [
    {
      inputs: [valueType('f64', [3, 8]), valueType('f64', [8]), valueType('f64', [8])],
      options: { eps: 1e-5 },
    },
    { inputs: [valueType('f64', [2, 3, 5]), valueType('f64', [5])], options: { eps: 1e-5 } },
  ],
}

export const rmsNormComposite: Composite = {
  name: 'rmsNorm',
  doc: 'x / sqrt(mean(x²) + eps), scaled',
  body([x, weight], options) {
    const normal = x!.mul(
      x!
        .square()
        .mean(-1, true)
        .add(options['eps'] as number)
        .rsqrt(),
    )
    return [weight ? normal.mul(weight) : normal]
  },
  samples: () => [
    { inputs: [valueType('f64', [3, 8])], options: { eps: 1e-6 } },
    { inputs: [valueType('f64', [2, 3, 5]), valueType('f64', [5])], options: { eps: 1e-5 } },
  ],
}

const present = (tensors: readonly (Tensor | undefined)[]): Tensor[] => tensors.filter((t) => t !== undefined)

/** x: […, C]; weight, bias: [C]. */
export const layerNorm = (x: Tensor, weight?: Tensor, bias?: Tensor, eps = 1e-5): Tensor =>
  invoke(layerNormComposite, present([x, weight, bias]), { eps })[0]!

/** x: […, C]; weight: [C]. */
export const rmsNorm = (x: Tensor, weight?: Tensor, eps = 1e-6): Tensor =>
  invoke(rmsNormComposite, present([x, weight]), { eps })[0]!
