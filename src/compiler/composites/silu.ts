/** SiLU, x times the logistic function; the gate of SwiGLU (Shazeer, GLU Variants Improve Transformer). */
import { valueType } from '../graph/types.ts'
import { full, Tensor } from '../trace/tensor.ts'
import { invoke, type Composite } from './composite.ts'

export const siluComposite: Composite = {
  name: 'silu',
  doc: 'x / (1 + e^-x)',
  body: ([x]) => [x!.mul(sigmoid(x!))],
  // One factor that needs no cotangent: a loop keeps it and nothing else.
  gradient(node, [g]) {
    const x = new Tensor(node.inputs[0]!)
    const s = sigmoid(x)
    return [g ? new Tensor(g).mul(s.add(x.mul(s.sub(s.mul(s))))).node : null]
  },
  samples: () => [{ inputs: [valueType('f64', [7])] }, { inputs: [valueType('f64', [3, 5])] }],
}

const sigmoid = (x: Tensor): Tensor => full(1, x.type).div(x.neg().exp().add(1))

export const silu = (x: Tensor): Tensor => invoke(siluComposite, [x])[0]!
