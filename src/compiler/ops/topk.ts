/**
 * Where the k largest elements along the last axis are, largest first; of equal ones the lower index comes first, so the
 * choice is the same everywhere. Which elements were chosen is not a smooth function of them: indices have no gradient.
 * The elements themselves, which have one, are picked by the indices (trace/grouped.ts).
 */
import type { Node } from '../graph/node.ts'
import type { Op } from '../graph/op.ts'
import { formatType, isFloat, sizeOf, typeError, valueType } from '../graph/types.ts'
import { apply } from './elementwise.ts'

export const topkCount = (node: Node): number => node.attrs['k'] as number

export const topkOp: Op = {
  name: 'topk',
  doc: 'indices of the k largest elements along the last axis, ties to the lower index',
  kind: 'index',
  infer([x], attrs) {
    const k = attrs['k'] as number
    const n = x!.shape.at(-1) ?? 0
    if (!isFloat(x!.dtype) || !Number.isInteger(k) || k < 1 || k > n) {
      throw typeError(
        'topk',
        `${k} of ${formatType(x!)}`,
        'floats, and at least 1 and at most all elements of the last axis',
        'choose another k',
      )
    }
    return [valueType('i32', [...x!.shape.slice(0, -1), k], [...x!.axes.slice(0, -1), null])]
  },
  gradient: () => [null],
  factors(node) {
    const rows = node.shape.slice(0, -1).map((_, i) => `d${i}`)
    return { inputs: [[...rows, null]], results: [[...rows, null]] }
  },
  // The largest of n, k times over.
  flops: (node) => sizeOf(node.inputs[0]!.shape) * topkCount(node),
  reference(node, [x]) {
    const [n, k] = [node.inputs[0]!.shape.at(-1)!, topkCount(node)]
    const out = new Float64Array(sizeOf(node.shape))
    for (let row = 0; row < out.length / k; row++) {
      const taken = new Set<number>()
      for (let j = 0; j < k; j++) {
        let best = -1
        for (let i = 0; i < n; i++) {
          if (!taken.has(i) && (best < 0 || x![row * n + i]! > x![row * n + best]!)) best = i
        }
        taken.add(best)
        out[row * k + j] = best
      }
    }
    return out
  },
  samples: () => [
    { inputs: [valueType('f64', [7])], attrs: { k: 3 } },
    { inputs: [valueType('f64', [3, 5])], attrs: { k: 1 } },
    { inputs: [valueType('f64', [2, 3, 4])], attrs: { k: 4 } },
    { inputs: [valueType('f64', [300, 8])], attrs: { k: 2 } },
  ],
}

export const topk = (x: Node, k: number): Node => apply(topkOp, [x], { k })
