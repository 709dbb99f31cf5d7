/**
 * Rotary position embedding (Su et al., RoFormer) in the half-split form: halves (x1, x2) of each head turn by an angle
 * per position and frequency. The gradient is the rotation by the opposite angle, so nothing is saved.
 */
import type { Node } from '../graph/node.ts'
import { sameShape, typeError, valueType } from '../graph/types.ts'
import { concat, Tensor } from '../trace/tensor.ts'
import { invoke, type Composite } from './composite.ts'

export const ropeComposite: Composite = {
  name: 'rope',
  doc: 'rotary position embedding of [B, T, H, D] by tables cos, sin [T, D/2]',
  body([x, cos, sin]) {
    const half = x!.size(-1) / 2
    const [x1, x2] = [x!.slice(-1, 0, half), x!.slice(-1, half, half)]
    const table = (t: Tensor): Tensor => t.reshape([1, t.shape[0]!, 1, half])
    const [c, s] = [table(cos!), table(sin!)]
    return [concat([x1.mul(c).sub(x2.mul(s)), x2.mul(c).add(x1.mul(s))], -1)]
  },
  gradient(node, [g]) {
    const [, cos, sin] = node.inputs.map((x) => new Tensor(x))
    if (!g) return [null, null, null]
    return [rope(new Tensor(g), cos!, sin!.neg()).node, null, null] satisfies (Node | null)[]
  },
  samples: () => [
    { inputs: [valueType('f64', [2, 3, 2, 4]), valueType('f64', [3, 2]), valueType('f64', [3, 2])] },
    { inputs: [valueType('f64', [1, 5, 1, 8]), valueType('f64', [5, 4]), valueType('f64', [5, 4])] },
  ],
}

/** x: [B, T, H, D]; cos, sin: [T, D/2]. Tables are constants: no gradient flows to them. */
export function rope(x: Tensor, cos: Tensor, sin: Tensor): Tensor {
  const table = [x.shape[1]!, x.size(-1) / 2]
  if (x.rank !== 4 || !sameShape(cos.shape, table) || !sameShape(sin.shape, table)) {
    throw typeError(
      'rope',
      `x ${x}, cos ${cos}, sin ${sin}`,
      'x [B, T, H, D] and tables [T, D/2]',
      'slice the tables to the context',
    )
  }
  return invoke(ropeComposite, [x, cos, sin])[0]!
}
