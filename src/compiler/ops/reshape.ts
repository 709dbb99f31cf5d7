/** The same elements in the same row-major order under another shape. */
import type { Node } from '../graph/node.ts'
import type { Op } from '../graph/op.ts'
import {
  formatType,
  sameShape,
  isShape,
  sizeOf,
  typeError,
  valueType,
  type AxisName,
} from '../graph/types.ts'
import { apply } from './elementwise.ts'

export const reshapeOp: Op = {
  name: 'reshape',
  doc: 'same elements, other shape or axis names',
  kind: 'movement',
  infer([x], attrs) {
    const shape = attrs['shape'] as number[]
    const axes = attrs['axes'] as AxisName[]
    if (axes.length !== shape.length || !isShape(shape)) {
      throw typeError(
        'reshape',
        `shape [${shape.join(', ')}] with axes [${axes.map((name) => name ?? 'null').join(', ')}]`,
        'whole extents and one name or null for each',
        'check shape and names',
      )
    }
    if (sizeOf(shape) !== sizeOf(x!.shape)) {
      throw typeError(
        'reshape',
        `${formatType(x!)} to [${shape.join(', ')}]`,
        `${sizeOf(x!.shape)} elements, not ${sizeOf(shape)}`,
        'check the extents',
      )
    }
    return [valueType(x!.dtype, shape, axes)]
  },
  gradient: (node, [g]) => [reshape(g!, node.inputs[0]!.shape, node.inputs[0]!.axes)],
  // Extents that pass through unchanged from the left or from the right keep their label; the middle stays whole.
  factors(node) {
    const from = node.inputs[0]!.shape
    const to = node.shape
    const a: (string | null)[] = from.map(() => null)
    const b: (string | null)[] = to.map(() => null)
    let left = 0
    while (left < from.length && left < to.length && from[left] === to[left]) {
      a[left] = b[left] = `l${left}`
      left++
    }
    for (let i = 1; from.length - i >= left && to.length - i >= left; i++) {
      if (from[from.length - i] !== to[to.length - i]) break
      a[from.length - i] = b[to.length - i] = `r${i}`
    }
    return { inputs: [a], results: [b] }
  },
  flops: () => 0,
  reference: (_, [x]) => x!.slice(),
  samples: () => [
    { inputs: [valueType('f64', [6])], attrs: { shape: [2, 3], axes: [null, null] } },
    { inputs: [valueType('f64', [2, 3, 4])], attrs: { shape: [2, 12], axes: [null, null] } },
    { inputs: [valueType('f64', [4, 6])], attrs: { shape: [4, 2, 3], axes: [null, null, null] } },
    { inputs: [valueType('f64', [1])], attrs: { shape: [], axes: [] } },
  ],
}

/** Changes shape, or only axis names. */
export function reshape(
  x: Node,
  shape: readonly number[],
  axes: readonly AxisName[] = shape.map(() => null),
): Node {
  if (sameShape(x.shape, shape) && axes.every((name, i) => name === x.axes[i])) return x
  return apply(reshapeOp, [x], { shape: [...shape], axes: [...axes] })
}
