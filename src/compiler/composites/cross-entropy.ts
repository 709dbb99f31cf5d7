/**
 * Softmax cross-entropy with integer targets: loss = log Σ exp(z) - z[target], per row, in nats. Its gradient,
 * softmax(z) - onehot, is written out: that is one exponential per logit from the saved log-sum-exp and no division.
 */
import type { Node } from '../graph/node.ts'
import { sameShape, typeError, valueType } from '../graph/types.ts'
import { get } from '../ops/get.ts'
import { iota, Tensor, where } from '../trace/tensor.ts'
import { invoke, type Composite } from './composite.ts'

export const crossEntropyComposite: Composite = {
  name: 'crossEntropy',
  doc: 'softmax cross-entropy with integer targets, per row, and its log-sum-exp',
  body([logits, targets]) {
    const top = logits!.maxOver(-1, true)
    const shifted = logits!.sub(top)
    const logSum = shifted.exp().sum(-1, true).log().add(top)
    const picked = where(isTarget(logits!, targets!), logits!, 0).sum(-1)
    return [
      logSum.reshape(targets!.shape, targets!.axes).sub(picked),
      logSum.reshape(targets!.shape, targets!.axes),
    ]
  },
  // The log-sum-exp is an auxiliary result; its own cotangent (softmax times g) is supported as well.
  gradient(node, [g, gLogSum]) {
    const [logits, targets] = node.inputs.map((x) => new Tensor(x)) as [Tensor, Tensor]
    const logSum = new Tensor(get(node, 1))
    const up = (x: Tensor): Tensor => x.reshape([...x.shape, 1], [...x.axes, null])
    const probabilities = logits.sub(up(logSum)).exp()
    let total: Tensor | null = null
    if (g) {
      const scale = up(new Tensor(g))
      const hit = isTarget(logits, targets)
      total = where(hit, probabilities.sub(1), probabilities).mul(scale)
    }
    if (gLogSum) {
      const part = probabilities.mul(up(new Tensor(gLogSum)))
      total = total ? total.add(part) : part
    }
    return [total?.node ?? null, null] satisfies (Node | null)[]
  },
  samples: () => [
    {
      inputs: [valueType('f64', [4, 7]), valueType('i32', [4])],
      ranges: [
        [-2, 2],
        [0, 7],
      ],
    },
    {
      inputs: [valueType('f64', [2, 3, 5]), valueType('i32', [2, 3])],
      ranges: [
        [-2, 2],
        [0, 5],
      ],
    },
  ],
}

const isTarget = (logits: Tensor, targets: Tensor): Tensor => {
  const classes = iota(logits.size(-1)).broadcastTo({ shape: logits.shape, axes: logits.axes })
  return classes.equal(targets.reshape([...targets.shape, 1], [...targets.axes, null]))
}

/** logits: [R…, V] float; targets: [R…] i32. Result: [R…] nats. */
export function crossEntropy(logits: Tensor, targets: Tensor): Tensor {
  if (targets.dtype !== 'i32' || !sameShape(targets.shape, logits.shape.slice(0, -1))) {
    throw typeError(
      'crossEntropy',
      `logits ${logits}, targets ${targets}`,
      'i32 targets of the shape of the logits without its last axis',
      'reshape or cast the targets',
    )
  }
  return invoke(crossEntropyComposite, [logits, targets])[0]!
}
