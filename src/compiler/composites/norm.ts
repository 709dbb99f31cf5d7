/**
 * Normalisation over the last axis: layer norm (Ba et al.) with weight and optional bias, and RMS norm (Zhang &
 * Sennrich) with optional weight. Statistics are taken in the input's element type. The gradients are written in terms
 * of the normalised values n and the factor f that made them: dx = f (d - mean(d) - n mean(d n)) with d the cotangent of
 * n, and without the mean(d) for RMS norm; so n and one f a row are all that is kept.
 */
import type { Attrs } from '../graph/node.ts'
import { valueType } from '../graph/types.ts'
import { optionsOf } from '../ops/call.ts'
import { Tensor } from '../trace/tensor.ts'
import { invoke, type Composite } from './composite.ts'

export const layerNormComposite: Composite = {
  name: 'layerNorm',
  doc: '(x - mean) / sqrt(variance + eps), scaled and shifted',
  body([x, weight, bias], options) {
    const { normal } = standardised(x!.sub(x!.mean(-1, true)), options)
    const scaled = weight ? normal.mul(weight) : normal
    return [bias ? scaled.add(bias) : scaled]
  },
  gradient(node, [g]) {
    const [x, weight, bias] = node.inputs.map((input) => new Tensor(input))
    if (!g) return node.inputs.map(() => null)
    const { normal, factor } = standardised(x!.sub(x!.mean(-1, true)), optionsOf(node))
    const d = weight ? new Tensor(g).mul(weight) : new Tensor(g)
    const along = normal.mul(d.mul(normal).mean(-1, true))
    return [
      factor.mul(d.sub(d.mean(-1, true)).sub(along)),
      ...(weight ? [overRows(new Tensor(g).mul(normal), weight)] : []),
      ...(bias ? [overRows(new Tensor(g), bias)] : []),
    ].map((tensor) => tensor.node)
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
    const { normal } = standardised(x!, options)
    return [weight ? normal.mul(weight) : normal]
  },
  gradient(node, [g]) {
    const [x, weight] = node.inputs.map((input) => new Tensor(input))
    if (!g) return node.inputs.map(() => null)
    const { normal, factor } = standardised(x!, optionsOf(node))
    const d = weight ? new Tensor(g).mul(weight) : new Tensor(g)
    const dx = factor.mul(d.sub(normal.mul(d.mul(normal).mean(-1, true))))
    return [dx, ...(weight ? [overRows(new Tensor(g).mul(normal), weight)] : [])].map((tensor) => tensor.node)
  },
  samples: () => [
    { inputs: [valueType('f64', [3, 8])], options: { eps: 1e-6 } },
    { inputs: [valueType('f64', [2, 3, 5]), valueType('f64', [5])], options: { eps: 1e-5 } },
  ],
}

/** x divided by the root of its mean square, and the factor that did it. */
function standardised(x: Tensor, options: Attrs): { readonly normal: Tensor; readonly factor: Tensor } {
  const factor = x
    .square()
    .mean(-1, true)
    .add(options['eps'] as number)
    .rsqrt()
  return { normal: x.mul(factor), factor }
}

/** The sum over all axes but the last, for a parameter [C]. */
const overRows = (x: Tensor, parameter: Tensor): Tensor =>
  x.sum(Array.from({ length: x.rank - 1 }, (_, axis) => axis)).named(parameter.axes)

const present = (tensors: readonly (Tensor | undefined)[]): Tensor[] => tensors.filter((t) => t !== undefined)

/** x: […, C]; weight, bias: [C]. */
export const layerNorm = (x: Tensor, weight?: Tensor, bias?: Tensor, eps = 1e-5): Tensor =>
  invoke(layerNormComposite, present([x, weight, bias]), { eps })[0]!

/** x: […, C]; weight: [C]. */
export const rmsNorm = (x: Tensor, weight?: Tensor, eps = 1e-6): Tensor =>
  invoke(rmsNormComposite, present([x, weight]), { eps })[0]!
