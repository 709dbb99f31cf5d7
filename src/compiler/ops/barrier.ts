/**
 * The value of the first input, available only after the second. Two uses: to keep recomputed values apart from the
 * originals (hash-consing would merge them), and to order work that has no data dependence.
 *
 * A late barrier has a name. Work that is needed for nothing but the late barriers of one name is itself done after
 * them, not before (passes/sink.ts).
 */
import type { Node } from '../graph/node.ts'
import type { Op } from '../graph/op.ts'
import { valueType } from '../graph/types.ts'
import { apply } from './elementwise.ts'

export const barrierOp: Op = {
  name: 'barrier',
  doc: 'a value, but not before another is computed',
  kind: 'movement',
  infer: ([x]) => [x!],
  gradient: (_, [g]) => [g!, null],
  factors(node) {
    const labels = node.shape.map((_, i) => `d${i}`)
    return { inputs: [labels, node.inputs[1]!.shape.map(() => null)], results: [labels] }
  },
  flops: () => 0,
  reference: (_, [x]) => x!.slice(),
  samples: () => [{ inputs: [valueType('f64', [2, 3]), valueType('f64', [4])] }],
}

export const barrier = (x: Node, after: Node, late?: string): Node =>
  apply(barrierOp, [x, after], late === undefined ? {} : { late })

/** The name of a late barrier; undefined for every other node. */
export const lateName = (node: Node): string | undefined =>
  node.op === barrierOp ? (node.attrs['late'] as string | undefined) : undefined
