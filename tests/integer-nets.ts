/**
 * Training steps in which every sum is exact: weights, inputs and learning rate are small integers and powers of two, so
 * that no order of additions can change a bit. What models have besides sums is brought to where it is exact, too:
 *
 * - Attention: the score of a query and a key is 0 where their tokens are of one class and about -1024 where not, so that
 *   exp is 1 or 0; of each class there are two tokens in a window, so that a probability is 1, 1/2 or 0.
 * - Experts: a token's class says which two experts score 0; the others score -1024. Half a token's weight for each.
 * - A residual stream carries the class: no layer writes into its columns. No norms, no rotations.
 */
import {
  attention,
  averagePool,
  full,
  grad,
  leaves,
  mapTree,
  maxPool,
  oneHot,
  scan,
  sizeOf,
  valueType,
  type AxisName,
  type Program,
  type Tensor,
  type Tensorised,
  type Tensors,
  type Tree,
  type ValueType,
} from '../src/compiler/index.ts'
import { balanceLoss, mixture } from '../src/models/language/experts.ts'
import { parameterTypes, type ModelWeights } from '../src/models/language/model.ts'
import { convolution, linear } from '../src/nn/layers.ts'
import { groupedUpdate, optimizers } from '../src/optim/optimizers.ts'
import type { Source } from '../src/train/programs.ts'
import { configOf } from './plans.ts'

export interface Net {
  readonly params: Tree<ValueType>
  /** Each with the windows of the whole batch first. */
  readonly data: Readonly<Record<string, ValueType>>
  readonly lossOf: (params: Tensors, data: Readonly<Record<string, Tensor>>) => Tensor
  /** A step on one device. */
  readonly source: Pick<Source, 'inputs' | 'body'>
  readonly fill: (program: Program) => void
}

const f32 = (shape: readonly number[], axes: readonly AxisName[]): ValueType => valueType('f32', shape, axes)

/** One step of SGD on a loss of parameters and data; loss and gradients are results, too. */
function trainingStep<D extends Readonly<Record<string, ValueType>>>(
  params: Tree<ValueType>,
  data: D,
  lossOf: (params: Tensors, data: { readonly [K in keyof D]: Tensor }) => Tensor,
): Omit<Net, 'fill'> {
  const loose = lossOf as Net['lossOf']
  const body = (given: Tensors): Tensors => {
    const { state, ...rest } = given as { readonly state: { readonly params: Tensors } }
    const { params } = state
    const loss = loose(params, rest as Readonly<Record<string, Tensor>>)
    const gradients = grad(loss, params)
    return { state: { params: descended(params, new Map(leaves<Tensor>(gradients))) }, loss, gradients }
  }
  return { params, data, lossOf: loose, source: { inputs: { state: { params }, ...data }, body } }
}

/** Parameters after a step of SGD; gradients by path. */
export function descended(params: Tensors, gradients: ReadonlyMap<string, Tensor>): Tensors {
  const { parameters } = groupedUpdate(
    leaves<Tensor>(params),
    gradients,
    {},
    full(1, valueType('f32', [])),
    () => ({ optimizer: optimizers.sgd, lr: full(1 / 64, valueType('f32', [])) }),
    { beta1: 0, beta2: 0, eps: 0, momentum: 0, weightDecay: 0 },
  )
  return mapTree<Tensor, Tensor>(params, (_, path) => parameters.get(path)!)
}

/** One element in `of` is 1, one is -1, the rest are 0; `rule` says otherwise for an element, by its place along each axis. */
function fillIntegers(
  program: Program,
  of: number,
  rule: (path: string, at: number[]) => number | undefined = () => undefined,
): void {
  let seed = 5
  const next = (): number => (seed = (seed * 16807) % 2147483647) % of
  for (const [path, { shape }] of program.inputs) {
    const values = Array.from({ length: sizeOf(shape) }, (_, i) => {
      const at = shape.map((size, axis) => Math.floor(i / sizeOf(shape.slice(axis + 1))) % size)
      return rule(path, at) ?? [1, -1][next()] ?? 0
    })
    program.write(path, values)
  }
}

const halfSquares = (x: Tensor): Tensor => x.square().sum().mul(0.5)

/** Two layers of linear maps over a window. */
export function layered(): Net {
  const params = {
    layers: {
      up: f32([2, 8, 8], ['layer', 'embed', 'hidden']),
      bias: f32([2, 8], ['layer', 'hidden']),
      down: f32([2, 8, 8], ['layer', 'hidden', 'embed']),
    },
    head: f32([8, 8], ['embed', 'vocab']),
  }
  const data = {
    x: f32([8, 8, 8], ['batch', 'time', 'embed']),
    y: f32([8, 8, 8], ['batch', 'time', 'vocab']),
  }
  const step = trainingStep(params, data, (given, { x, y }) => {
    const { layers, head } = given as Tensorised<typeof params>
    const [{ h }] = scan({ h: x }, layers, ({ h }, { up, bias, down }) => [
      { h: h.add(linear(linear(h, up, bias).max(0), down)) },
      {},
    ])
    return halfSquares(linear(h, head).sub(y))
  })
  return { ...step, fill: (program) => fillIntegers(program, 4) }
}

const classes = 4
const vocab = 8
/** Columns of the residual stream that no layer writes into. */
const kept = 2 * classes
/** By which scores that are not 0 lie below it: exp of that is 0 in float64, too. */
const far = 1024

/** The language model's parameters, attention and experts, without norms and rotations; squares in place of entropy. */
export function textual(experts: 0 | 4): Net {
  const { model } = configOf({
    model: experts === 0 ? {} : { experts, topK: 2, sharedExperts: 1, balance: 'loss' },
  })
  const { width, heads, kvHeads, context } = model
  const dim = width / heads
  const params = parameterTypes({ ...model, vocab }) as unknown as Tree<ValueType>
  const data = { tokens: valueType('i32', [8, context], ['batch', 'time']) }
  const activation = (x: Tensor): Tensor => x.max(0)
  const step = trainingStep(params, data, (given, { tokens }) => {
    const { tokens: table, layers, head } = given as unknown as ModelWeights
    const zero = full(0, f32([], []))
    const [{ h, uneven }] = scan({ h: table.take(tokens), uneven: zero }, layers, ({ h, uneven }, w) => {
      const of = (weight: Tensor, axis: string, count: number): Tensor =>
        linear(h, weight).split(axis, { heads: count, dim })
      const seen = attention(of(w.attn.q, 'q', heads), of(w.attn.k, 'k', kvHeads), of(w.attn.v, 'v', kvHeads))
      const attended = h.add(linear(seen.merge(['heads', 'dim'], 'q'), w.attn.o))
      if (experts === 0) {
        return [{ h: attended.add(linear(activation(linear(attended, w.mlp.up)), w.mlp.down)), uneven }, {}]
      }
      const { y, routing } = mixture(attended, w.mlp, model, activation, false)
      return [{ h: attended.add(y), uneven: uneven.add(balanceLoss(routing, model)) }, {}]
    })
    const wanted = oneHot(tokens, vocab, 'vocab').cast('f32')
    return halfSquares(linear(h, head!).sub(wanted)).add(uneven)
  })
  const rule = (path: string, at: number[]): number | undefined => {
    const [from, to] = at.slice(-2) as [number, number]
    // Every window holds every token once, in an order of its own.
    if (path === 'tokens') return (from * 3 + to * [1, 3, 5, 7][from % 4]!) % vocab
    if (path === 'state.params.tokens') {
      if (to < classes) return Number(from % classes === to)
      // What keys of a class differ by, where its queries are 0.
      if (to < kept) return from % classes === to - classes ? 0 : from < classes ? 1 : -1
    }
    if (path.endsWith('attn.q')) return from === to % dim ? 64 : 0
    if (path.endsWith('attn.k')) {
      if (from < classes) return from === to % dim ? 0 : -32
      return from < kept ? Number(from - classes === to % dim) : 0
    }
    if (path.endsWith('router')) {
      return from < classes && to !== from && to !== (from + 1) % experts ? -far : 0
    }
    return (path.endsWith('attn.o') || path.endsWith('down')) && to < kept ? 0 : undefined
  }
  // With more that are not 0, gradients of the class columns, which the far scores make large, need more than 24 bits.
  return { ...step, fill: (program) => fillIntegers(program, 24, rule) }
}

/** Convolutions with a bias, a stride and padding, both kinds of pooling, and a classifier. */
export function convolutional(): Net {
  const params = {
    first: f32([3, 3, 2, 8], [null, null, 'channel', 'hidden']),
    firstBias: f32([8], ['hidden']),
    second: f32([3, 3, 8, 4], [null, null, 'hidden', 'embed']),
    classify: f32([4, 8], ['embed', 'vocab']),
  }
  const data = {
    images: f32([8, 8, 8, 2], ['batch', 'height', 'width', 'channel']),
    labels: valueType('i32', [8], ['batch']),
  }
  const step = trainingStep(params, data, (given, { images, labels }) => {
    const { first, firstBias, second, classify } = given as Tensorised<typeof params>
    const features = convolution(images, first, firstBias, { padding: 'same' }).max(0)
    const mixed = convolution(maxPool(features, [2, 2]), second, undefined, { padding: 1, stride: 2 })
    const image = averagePool(mixed, [2, 2]).reshape([8, 4], ['batch', 'embed'])
    return halfSquares(linear(image, classify).sub(oneHot(labels, 8, 'vocab').cast('f32')))
  })
  return {
    ...step,
    fill: (program) => fillIntegers(program, 4, (path, [at]) => (path === 'labels' ? at : undefined)),
  }
}
