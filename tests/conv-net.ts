/** A training step of a small convolutional network, written for one device: what parallel plans are tried on besides text. */
import {
  averagePool,
  crossEntropy,
  full,
  grad,
  layerNorm,
  leaves,
  mapTree,
  maxPool,
  scan,
  valueType,
  zerosLike,
  type AxisName,
  type Tensor,
  type Tensorised,
  type Tensors,
  type ValueType,
} from '../src/compiler/index.ts'
import { convolution, linear } from '../src/nn/layers.ts'
import { groupedUpdate, optimizers, optimizerState } from '../src/optim/optimizers.ts'
import type { Source } from '../src/train/programs.ts'

export const classes = 16

/** One step over `accumulate` microbatches of images and their labels. */
export function convNet({
  batch = 8,
  accumulate = 1,
  optimizer: name = 'adamw' as keyof typeof optimizers,
} = {}): Pick<Source, 'inputs' | 'body'> {
  const f32 = (shape: readonly number[], axes: readonly AxisName[]): ValueType =>
    valueType('f32', shape, axes)
  const types = {
    first: f32([3, 3, 2, 8], [null, null, 'channel', 'hidden']),
    firstBias: f32([8], ['hidden']),
    second: f32([3, 3, 8, 4], [null, null, 'hidden', 'embed']),
    norm: f32([4], ['embed']),
    classify: f32([4, classes], ['embed', 'vocab']),
  }
  const optimizer = optimizers[name]
  const inputs = {
    state: {
      step: valueType('i32', []),
      params: types,
      optim: optimizerState(Object.entries(types), () => optimizer),
    },
    images: valueType(
      'f32',
      [accumulate, batch / accumulate, 8, 8, 2],
      ['micro', 'batch', 'height', 'width', 'channel'],
    ),
    labels: valueType('i32', [accumulate, batch / accumulate], ['micro', 'batch']),
  }
  type Params = Tensorised<typeof types>
  const loss = (params: Params, images: Tensor, labels: Tensor): Tensor => {
    const features = convolution(images, params.first, params.firstBias, { padding: 'same' }).max(0)
    const pooled = maxPool(features, [2, 2])
    const mixed = convolution(pooled, params.second, undefined, { padding: 1, stride: 2 })
    const means = averagePool(mixed, [2, 2])
    const image = means.reshape([labels.shape[0]!, 4], ['batch', 'embed'])
    const normal = layerNorm(image, params.norm)
    return crossEntropy(linear(normal, params.classify), labels).mean()
  }
  const body = ({ state, images, labels }: Tensorised<typeof inputs>): Tensors => {
    const { step, params, optim } = state
    const start = { loss: full(0, valueType('f32', [])), grads: mapTree<Tensor, Tensor>(params, zerosLike) }
    const [sum] = scan(start, { images, labels }, ({ loss: total, grads }, one) => {
      const value = loss(params, one.images, one.labels)
      const own = new Map(leaves<Tensor>(grad(value, params)))
      return [
        {
          loss: total.add(value),
          grads: mapTree<Tensor, Tensor>(grads, (x, path) => x.add(own.get(path)!)),
        },
        {},
      ]
    })
    const gradients = leaves<Tensor>(sum.grads).map(([path, g]) => [path, g.mul(1 / accumulate)] as const)
    const updated = groupedUpdate(
      leaves<Tensor>(params),
      new Map(gradients),
      optim,
      step.cast('f32').add(1),
      () => ({ optimizer, lr: full(0.01, valueType('f32', [])) }),
      { beta1: 0.9, beta2: 0.95, eps: 1e-10, momentum: 0, weightDecay: 0.1 },
    )
    return {
      state: {
        step: step.add(1),
        params: mapTree<Tensor, Tensor>(params, (_, path) => updated.parameters.get(path)!),
        optim: updated.state,
      },
      loss: sum.loss.mul(1 / accumulate),
    }
  }
  return { inputs, body: body as unknown as Source['body'] }
}
