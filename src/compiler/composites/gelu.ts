/**
 * GELU (Hendrycks & Gimpel, Gaussian Error Linear Units): exact by erf, or GPT-2's tanh form. The derivative is written as
 * one factor that needs no cotangent, so a loop keeps that factor and nothing else for its backward pass.
 */
import type { Attrs } from '../graph/node.ts'
import { valueType } from '../graph/types.ts'
import { optionsOf } from '../ops/call.ts'
import { Tensor } from '../trace/tensor.ts'
import { invoke, type Composite } from './composite.ts'

export const geluComposite: Composite = {
  name: 'gelu',
  doc: 'x Φ(x), exact or by tanh',
  body([x], options) {
    return [x!.mul(half(x!, options))]
  },
  gradient(node, [g]) {
    const [x, options] = [new Tensor(node.inputs[0]!), optionsOf(node)]
    if (!g) return [null]
    return [new Tensor(g).mul(derivative(x, options)).node]
  },
  samples: () => [
    { inputs: [valueType('f64', [7])], options: { form: 'tanh' } },
    { inputs: [valueType('f64', [3, 5])], options: { form: 'erf' } },
  ],
}

/** The factor of x: half of 1 + erf(x / √2), or of 1 + tanh(√(2/π) (x + 0.044715 x³)). */
function half(x: Tensor, options: Attrs): Tensor {
  if (options['form'] === 'erf') return x.mul(Math.SQRT1_2).erf().add(1).mul(0.5)
  const inner = x
    .mul(x)
    .mul(slope)
    .add(Math.sqrt(2 / Math.PI))
    .mul(x)
  return inner.tanh().add(1).mul(0.5)
}

const slope = 0.044715 * Math.sqrt(2 / Math.PI)

/** half + x half': half' is the normal density, or 2 half (1 - half) times the derivative of the tanh's argument. */
function derivative(x: Tensor, options: Attrs): Tensor {
  const h = half(x, options)
  if (options['form'] === 'erf') {
    const density = x
      .mul(x)
      .mul(-0.5)
      .exp()
      .mul(1 / Math.sqrt(2 * Math.PI))
    return h.add(x.mul(density))
  }
  const inner = x
    .mul(x)
    .mul(6 * slope)
    .add(2 * Math.sqrt(2 / Math.PI))
  return h.add(x.mul(inner).mul(h.sub(h.mul(h))))
}

export const gelu = (x: Tensor, form: 'tanh' | 'erf' = 'tanh'): Tensor =>
  invoke(geluComposite, [x], { form })[0]!
