/**
 * Mistakes in tensor code and the message each gets, word for word: messages are part of the interface, and every one
 * says where, what was got, what was expected and what to try. All are found while tracing, before anything compiles.
 */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { UserError } from '../errors.ts'
import { attention } from './composites/attention.ts'
import { crossEntropy } from './composites/cross-entropy.ts'
import { layerNorm } from './composites/norm.ts'
import { averagePool, maxPool, resizeNearest } from './composites/pool.ts'
import { rope } from './composites/rope.ts'
import { valueType, type DType, type ValueType } from './graph/types.ts'
import { convInput } from './ops/conv-input.ts'
import { convWeight } from './ops/conv-weight.ts'
import { get } from './ops/get.ts'
import { scatterAdd } from './ops/scatter-add.ts'
import { inFreshGraph } from './testing.ts'
import { conv } from './trace/conv.ts'
import { grad, scan, traceFunction } from './trace/functions.ts'
import { concat, full, Tensor, uniform, where } from './trace/tensor.ts'

const types = {
  x: valueType('f32', [4, 8], ['batch', 'embed']),
  y: valueType('f32', [4, 8], ['time', 'embed']),
  z: valueType('f32', [3, 5]),
  v: valueType('f32', [8]),
  d: valueType('f64', [4, 8]),
  i: valueType('i32', [4]),
  b: valueType('bool', [4, 8]),
  q: valueType('f32', [1, 3, 4, 8]),
  k: valueType('f32', [1, 5, 2, 8]),
  narrow: valueType('f32', [1, 5, 2, 4]),
  odd: valueType('f32', [1, 5, 3, 8]),
  image: valueType('f32', [2, 5, 5, 4], ['batch', 'height', 'width', 'in']),
  kernel: valueType('f32', [3, 3, 4, 6], [null, null, 'in', 'out']),
} as const satisfies Record<string, ValueType>

type Given = Record<keyof typeof types, Tensor>

const trace = (build: (given: Given) => Tensor): unknown =>
  inFreshGraph(() => traceFunction('main', types, (tree) => ({ result: build(tree as Given) })))

const plain = { stride: [1, 1], dilation: [1, 1], low: [0, 0], groups: 1 }

const scalar = (): Tensor => full(0, valueType('f32', []))

const mistakes: readonly (readonly [what: string, build: (given: Given) => Tensor, message: string])[] = [
  [
    'shapes that do not broadcast',
    ({ x, z }) => x.add(z),
    'add: got f32[batch=4, embed=8] and f32[3, 5]; expected shapes that broadcast; reshape or name the axes',
  ],
  [
    'ranks that do not broadcast',
    ({ x, i }) => x.add(i),
    'add: got f32[batch=4, embed=8] and i32[4]; expected shapes that broadcast; reshape or name the axes',
  ],
  [
    'a swapped axis, caught by its name',
    ({ x, y }) => x.add(y),
    "add: got f32[batch=4, embed=8] and f32[time=4, embed=8]; expected axis 0 to carry one name, not 'batch' and 'time'; transpose or rename one side",
  ],
  [
    'two element types',
    ({ x, d }) => x.mul(d),
    'mul: got f32[batch=4, embed=8], f64[4, 8]; expected one element type; cast one side',
  ],
  [
    'a float function of integers',
    ({ i }) => i.exp(),
    'exp: got i32[4]; expected float elements; cast the input',
  ],
  [
    'arithmetic of truth values',
    ({ b }) => b.add(b),
    'add: got bool[4, 8], bool[4, 8]; expected number elements; cast the input',
  ],
  [
    'a condition that is no truth value',
    ({ x }) => where(x, x, x),
    'where: got f32[batch=4, embed=8], f32[batch=4, embed=8], f32[batch=4, embed=8]; expected a bool condition first; compare first',
  ],
  [
    'an unknown axis name',
    ({ x }) => x.sum('heads'),
    "axis: got 'heads' of f32[batch=4, embed=8]; expected one of batch, embed; check the name",
  ],
  [
    'an axis number out of range',
    ({ x }) => x.sum(2),
    "axis: got '2' of f32[batch=4, embed=8]; expected one of batch, embed; check the name",
  ],
  [
    'an axis reduced twice',
    ({ x }) => x.sum([0, 0]),
    'sum: got axes 0, 0 of f32[batch=4, embed=8]; expected distinct axes of the input; check the axis numbers',
  ],
  [
    'a negative axis number out of range',
    ({ x }) => x.slice(-3, 0, 1),
    "axis: got '-3' of f32[batch=4, embed=8]; expected one of batch, embed; check the name",
  ],
  [
    'a reshape that loses elements',
    ({ x }) => x.reshape([5, 7]),
    'reshape: got f32[batch=4, embed=8] to [5, 7]; expected 32 elements, not 35; check the extents',
  ],
  [
    'a split that does not divide',
    ({ x }) => x.split('embed', { heads: 3, dim: 3 }),
    'reshape: got f32[batch=4, embed=8] to [4, 3, 3]; expected 32 elements, not 36; check the extents',
  ],
  [
    'a merge of axes that are not neighbours',
    ({ q }) => q.merge([0, 2], 'm'),
    'merge: got 0, 2 of f32[1, 3, 4, 8]; expected adjacent axes in order; transpose first',
  ],
  [
    'a rename of an axis that is not there',
    ({ x }) => x.rename({ heads: 'h' }),
    "axis: got 'heads' of f32[batch=4, embed=8]; expected one of batch, embed; check the name",
  ],
  [
    'too few names',
    ({ x }) => x.named(['a']),
    'reshape: got shape [4, 8] with axes [a]; expected whole extents and one name or null for each; check shape and names',
  ],
  [
    'an axis twice in an order',
    ({ x }) => x.transpose([0, 0]),
    'transpose: got axes [0, 0] of f32[batch=4, embed=8]; expected each axis once; check the order',
  ],
  [
    'an order that leaves an axis out',
    ({ x }) => x.transpose([1]),
    'transpose: got axes [1] of f32[batch=4, embed=8]; expected each axis once; check the order',
  ],
  [
    'a slice beyond the end',
    ({ x }) => x.slice('embed', 5, 4),
    'slice: got start [0, 5], size [4, 4] of f32[batch=4, embed=8]; expected a box inside the tensor; check start and size',
  ],
  [
    'a slice from before the start',
    ({ x }) => x.slice('embed', -1, 2),
    'slice: got start [0, -1], size [4, 2] of f32[batch=4, embed=8]; expected a box inside the tensor; check start and size',
  ],
  [
    'a negative pad',
    ({ x }) => x.pad(0, -1, 0),
    'pad: got low [-1, 0], high [0, 0] of f32[batch=4, embed=8]; expected one count per axis, none negative; use slice to crop',
  ],
  [
    'a broadcast to another extent',
    ({ v }) => v.broadcastTo({ shape: [4, 7], axes: [null, null] }),
    'broadcast: got f32[8] to [4, 7]; expected shapes that broadcast; reshape or name the axes',
  ],
  [
    'joined tensors of different shapes',
    ({ x, z }) => concat([x, z], 0),
    'concat: got f32[batch=4, embed=8], f32[3, 5]; expected tensors that differ along axis 0 only; check shapes and dtypes',
  ],
  [
    'joined tensors of different names',
    ({ x, y }) => concat([x, y], 1),
    "concat: got f32[batch=4, embed=8] and f32[time=4, embed=8]; expected axis 0 to carry one name, not 'batch' and 'time'; transpose or rename one side",
  ],
  ['nothing to join', () => concat([], 1), 'concat: got no tensors; expected at least one; check the list'],
  [
    'inner extents of a matrix product',
    ({ x, z }) => x.matmul(z),
    'dot: got f32[batch=4, embed=8] and f32[3, 5]; expected axis 1 of a and axis 0 of b to have one extent; check the contracted axes',
  ],
  [
    'inner names of a matrix product',
    ({ x, y }) => x.matmul(y.transpose().reshape([8, 4], ['time', 'c'])),
    "dot: got f32[batch=4, embed=8] and f32[time=8, c=4]; expected paired axes to carry one name, not 'embed' and 'time'; rename one side",
  ],
  [
    'a contracted name that one side lacks',
    ({ x, v }) => x.dot(v, 'embed'),
    "axis: got 'embed' of f32[8]; expected one of 0; check the name",
  ],
  [
    'contracted extents that differ',
    ({ x, z }) => x.dot(z.named(['embed', 'c']), 'embed'),
    'dot: got f32[batch=4, embed=8] and f32[embed=3, c=5]; expected axis 1 of a and axis 0 of b to have one extent; check the contracted axes',
  ],
  [
    'a product of two element types',
    ({ x, d }) => x.dot(d.named(['o', 'embed']), 'embed'),
    'dot: got f32[batch=4, embed=8] and f64[o=4, embed=8]; expected two operands of one float type; cast one side',
  ],
  [
    'a product of integers',
    ({ i }) => i.named(['a']).dot(i.named(['a']), 'a'),
    'dot: got i32[a=4] and i32[a=4]; expected two operands of one float type; cast one side',
  ],
  [
    'an index that is not i32',
    ({ x }) => x.take(x),
    'gather: got f32[batch=4, embed=8] by f32[batch=4, embed=8]; expected a table with rows and an i32 index; cast the index to i32',
  ],
  [
    'an unknown element type',
    ({ x }) => x.cast('f8' as DType),
    'cast: got f8; expected f32, f64, bf16, f16, i32, u8, bool; name one of these',
  ],
  [
    'the gradient of a vector',
    ({ x }) => grad(x, { x }).x,
    'grad: got f32[batch=4, embed=8]; expected a float scalar to differentiate; reduce it with sum() or mean()',
  ],
  [
    'a gradient by integers',
    ({ x, i }) => grad(x.sum(), { i }).i,
    'grad: got i32[4]; expected float values to differentiate by; cast it first',
  ],
  [
    'slices of different length',
    ({ x, z }) => scan(scalar(), { x, z }, (c) => [c, {}])[0],
    "scan: got f32[3, 5] at 'z'; expected leading extent 4; stack it to the same length",
  ],
  [
    'a loop over nothing',
    ({ x }) => scan(x, {}, (c) => [c, {}])[0],
    'scan: got no sliced input; expected at least one tensor to loop over; pass an iota',
  ],
  [
    'a carry that changes its shape',
    ({ x }) => scan(x, x, (c) => [c.sum(0), {}])[0],
    'scan: got f32[embed=8]; expected carry 0 to keep the type f32[batch=4, embed=8]; cast or reshape inside the body',
  ],
  [
    'a carry that changes its element type',
    ({ x }) => scan(x, x, (c) => [c.cast('f64'), {}])[0],
    'scan: got f64[batch=4, embed=8]; expected carry 0 to keep the type f32[batch=4, embed=8]; cast or reshape inside the body',
  ],
  [
    'a random key of floats',
    ({ x }) => uniform({ seed: x, step: x, salt: x }, 1, x.type),
    'random: got f32[batch=4, embed=8], f32[batch=4, embed=8], f32[batch=4, embed=8]; expected three i32 scalars: seed, step, salt; cast them to i32',
  ],
  [
    'heads of different size',
    ({ q, narrow }) => attention(q, narrow, narrow),
    'attention: got q f32[1, 3, 4, 8], k f32[1, 5, 2, 4], v f32[1, 5, 2, 4]; expected q [B, T, H, D] and k, v [B, S, K, D] with H a multiple of K; check heads and head size',
  ],
  [
    'query heads that key heads do not divide',
    ({ q, odd }) => attention(q, odd, odd),
    'attention: got q f32[1, 3, 4, 8], k f32[1, 5, 3, 8], v f32[1, 5, 3, 8]; expected q [B, T, H, D] and k, v [B, S, K, D] with H a multiple of K; check heads and head size',
  ],
  [
    'attention without heads',
    ({ x }) => attention(x, x, x),
    'attention: got q f32[batch=4, embed=8], k f32[batch=4, embed=8], v f32[batch=4, embed=8]; expected q [B, T, H, D] and k, v [B, S, K, D] with H a multiple of K; check heads and head size',
  ],
  [
    'a negative window',
    ({ q, k }) => attention(q, k, k, { window: -3 }),
    'attention: got window -3, 3 queries, 5 keys; expected a window of 0 (all keys) or more, and under a causal mask no more queries than keys; check the options',
  ],
  [
    'targets that are no integers',
    ({ x, z }) => crossEntropy(x, z),
    'crossEntropy: got logits f32[batch=4, embed=8], targets f32[3, 5]; expected i32 targets of the shape of the logits without its last axis; reshape or cast the targets',
  ],
  [
    'targets of another length',
    ({ z, i }) => crossEntropy(z, i),
    'crossEntropy: got logits f32[3, 5], targets i32[4]; expected i32 targets of the shape of the logits without its last axis; reshape or cast the targets',
  ],
  [
    'a norm weight of another width',
    ({ x, z }) => layerNorm(x, z),
    'mul: got f32[batch=4, embed=8] and f32[3, 5]; expected shapes that broadcast; reshape or name the axes',
  ],
  [
    'rotary tables of another context',
    ({ q, x }) => rope(q, x, x),
    'rope: got x f32[1, 3, 4, 8], cos f32[batch=4, embed=8], sin f32[batch=4, embed=8]; expected x [B, T, H, D] and tables [T, D/2]; slice the tables to the context',
  ],
  [
    'a kernel for other channels',
    ({ image, kernel }) => conv(image, kernel.slice(2, 0, 3)),
    'conv: got f32[batch=2, height=5, width=5, in=4] and f32[3, 3, in=3, out=6], groups 1; expected weight [...kernel, input channels / groups, output channels]; check channels and groups',
  ],
  [
    'groups that do not divide',
    ({ image, kernel }) => conv(image, kernel, { groups: 4 }),
    'conv: got f32[batch=2, height=5, width=5, in=4] and f32[3, 3, in=4, out=6], groups 4; expected groups to divide input and output channels; check channels and groups',
  ],
  [
    'a swapped channel axis, caught by its name',
    ({ image, kernel }) => conv(image, kernel.rename({ in: 'other' })),
    "conv: got 'in' and 'other'; expected channels of input and weight to carry one name; rename one side",
  ],
  [
    'a convolution of nothing',
    ({ image, kernel }) => conv(image.slice(0, 0, 0), kernel),
    'conv: got f32[batch=0, height=5, width=5, in=4] and f32[3, 3, in=4, out=6]; expected no empty axis; check the extents',
  ],
  [
    'two element types in a convolution',
    ({ image, kernel }) => conv(image, kernel.cast('f64')),
    'conv: got f32[batch=2, height=5, width=5, in=4] and f64[3, 3, in=4, out=6]; expected two operands of f32 or two of f64; cast one side',
  ],
  [
    'a kernel larger than its input',
    ({ image, kernel }) => conv(image, kernel, { dilation: 3 }),
    'conv: got kernel [3, 3] on space [5, 5]; expected a kernel no larger than the padded input; pad, or use a smaller kernel or dilation',
  ],
  [
    'strides for other axes',
    ({ image, kernel }) => conv(image, kernel, { stride: [1, 2, 1] }),
    'conv: got stride [1, 2, 1]; expected a whole number of at least 1, or 2 of them; one number serves all axes',
  ],
  [
    'padding for other axes',
    ({ image, kernel }) => conv(image, kernel, { padding: [1] }),
    'conv: got padding of 1 axes; expected 2; one number serves all axes',
  ],
  [
    'negative padding',
    ({ image, kernel }) => conv(image, kernel, { padding: [1, [0, -1]] }),
    'conv: got padding [1, -1]; expected a whole number of at least 0, or 2 of them; one number serves all axes',
  ],
  [
    'a weight without axes of space',
    ({ image, z }) => conv(image, z),
    'conv: got f32[batch=2, height=5, width=5, in=4] and f32[3, 5]; expected input [...leading, ...space, in] and weight [...kernel, in / groups, out] with 1 to 3 axes of space; reshape one side',
  ],
  [
    'a gradient for another batch',
    ({ image }) =>
      new Tensor(
        convWeight(image.node, image.slice(0, 0, 1).node, {
          ...plain,
          extents: [1, 1],
        }),
      ),
    'convWeight: got f32[batch=2, height=5, width=5, in=4] and f32[batch=1, height=5, width=5, in=4], groups 1; expected input and output of one batch; check channels and groups',
  ],
  [
    'a gradient of other channels',
    ({ image, kernel }) =>
      new Tensor(
        convInput(image.node, kernel.node, {
          ...plain,
          extents: [7, 7],
        }),
      ),
    'convInput: got f32[batch=2, height=5, width=5, in=4] and f32[3, 3, in=4, out=6], groups 1; expected output and weight of one number of output channels; check channels and groups',
  ],
  [
    'a window for more axes than there are',
    ({ z }) => maxPool(z, [2, 2]),
    'maxPool: got window [2, 2] on f32[3, 5]; expected input [...leading, ...space, channels] and a window of whole numbers for the axes of space; give one number, or one for each axis',
  ],
  [
    'a window of nothing but padding',
    ({ image }) => averagePool(image, 2, { padding: 2 }),
    'averagePool: got padding as large as the window [2, 2]; expected every window to hold an element; pad less',
  ],
  [
    'a factor that is no whole number',
    ({ image }) => resizeNearest(image, 1.5),
    'resizeNearest: got factors [1.5, 1.5] on f32[batch=2, height=5, width=5, in=4]; expected input [...leading, ...space, channels] and a whole number above 0 for each axis of space; give one number, or one for each axis',
  ],
  [
    'updates that the index does not lead',
    ({ i, v }) => new Tensor(scatterAdd(i.node, v.node, 3)),
    'scatterAdd: got i32[4] and f32[8]; expected an i32 index whose shape leads the updates; reshape one side',
  ],
  [
    'a result that is not there',
    ({ x }) => new Tensor(get(x.node, 1)),
    'get: got result 1; expected 0 to 0; check the index',
  ],
]

for (const [what, build, message] of mistakes) {
  test(`${what}: found while tracing`, () => {
    assert.throws(
      () => trace(build),
      (error: unknown) => {
        assert.ok(error instanceof UserError, String(error))
        assert.equal(error.message, message)
        assert.equal(error.exitCode, 1)
        return true
      },
    )
  })
}

const badTypes: readonly (readonly [type: ValueType, message: RegExp])[] = [
  [
    valueType('f32', [1.5]),
    /^input 'x': got f32\[1\.5\] with axes \[null\]; expected an element type, whole extents/,
  ],
  [valueType('f32', [-1]), /^input 'x': got f32\[-1\]/],
  [valueType('f8' as DType, [2]), /^input 'x': got f8\[2\]/],
  [valueType('f32', [2, 3], ['rows']), /^input 'x': got f32\[2, 3\] with axes \[rows\]/],
]

test('input types that cannot be are refused by name', () => {
  for (const [type, message] of badTypes) {
    const traced = (): unknown => inFreshGraph(() => traceFunction('main', { x: type }, (x) => x as never))
    assert.throws(traced, (error: unknown) => error instanceof UserError && message.test(error.message))
  }
})

test('tensor operations outside of tracing say where they belong', () => {
  let leaked: Tensor | undefined
  trace(({ x }) => (leaked = x))
  assert.throws(() => leaked!.exp(), /only work while a function is being traced/)
})
