/** GELU (Hendrycks & Gimpel, Gaussian Error Linear Units): exact by erf, or GPT-2's tanh form. */
import { valueType } from '../graph/types.ts'
import type { Tensor } from '../trace/tensor.ts'
import { invoke, type Composite } from './composite.ts'

export const geluComposite: Composite = {
  name: 'gelu',
  doc: 'x Φ(x), exact or by tanh',
  body([x], options) {
    if (options['form'] === 'erf') return [x!.mul(0.5).mul(x!.mul(Math.SQRT1_2).erf().add(1))]
    const inner = x!.add(x!.mul(x!).mul(x!).mul(0.044715)).mul(Math.sqrt(2 / Math.PI))
    return [x!.mul(0.5).mul(inner.tanh().add(1))]
  },
  samples: () => [
    { inputs: [valueType('f64', [7])], options: { form: 'tanh' } },
    { inputs: [valueType('f64', [3, 5])], options: { form: 'erf' } },
  ],
}

export const gelu = (x: Tensor, form: 'tanh' | 'erf' = 'tanh'): Tensor =>
  invoke(geluComposite, [x], { form })[0]!
