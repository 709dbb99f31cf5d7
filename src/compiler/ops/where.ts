/** Selection: a where the condition holds, else b. A move: it costs no FLOP, and both sides are computed. */
import type { Node } from '../graph/node.ts'
import { formatType, isHalf, valueType } from '../graph/types.ts'
import { typeError } from '../graph/types.ts'
import { fill } from './constant.ts'
import { apply, elementwise } from './elementwise.ts'

const base = elementwise({
  name: 'where',
  doc: 'condition ? a : b',
  arity: 3,
  accepts: 'any',
  valuesFrom: 1,
  counted: false,
  apply: (condition, a, b) => (condition !== 0 ? a : b),
  gradient: (node, [g]) => {
    const zero = fill(0, g!.type)
    return [null, where(node.inputs[0]!, g!, zero), where(node.inputs[0]!, zero, g!)]
  },
  // A function, so that both sides are read whatever the condition: see `select` in targets/c/emit.ts.
  c: ([condition, a, b], dtype) => `select_${isHalf(dtype) ? 'f32' : dtype}(${condition}, ${a}, ${b})`,
  samples: () => [
    { inputs: [valueType('bool', [6]), valueType('f64', [6]), valueType('f64', [6])] },
    { inputs: [valueType('bool', [2, 3]), valueType('f64', [2, 3]), valueType('f64', [2, 3])] },
  ],
})

export const whereOp: typeof base = {
  ...base,
  infer(inputs, attrs, nodes) {
    if (inputs[0]!.dtype !== 'bool') {
      throw typeError('where', inputs.map(formatType).join(', '), 'a bool condition first', 'compare first')
    }
    return base.infer(inputs, attrs, nodes)
  },
}

export const where = (condition: Node, a: Node, b: Node): Node => apply(whereOp, [condition, a, b])
