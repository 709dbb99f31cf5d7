/**
 * Convolution as model code calls it: against the sum over taps written with pads, slices and matrix products, options and their defaults, names of axes, and the program that a kernel of one tap becomes.
 */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { reachable } from '../graph/node.ts'
import { valueType, type ValueType } from '../graph/types.ts'
import { draw, inFreshGraph, runCases, worstError, type Case } from '../testing.ts'
import { conv, type ConvOptions } from './conv.ts'
import { traceFunction } from './functions.ts'
import { concat, Tensor } from './tensor.ts'

const f64 = (...shape: number[]): ValueType => valueType('f64', shape)

/** Asserts that the first and every other result of each case are one, on inputs drawn for their types. */
async function agree(cases: readonly Omit<Case, 'data'>[]): Promise<void> {
  const drawn = cases.map((one) => ({ ...one, data: one.types.map((type, i) => draw(type, i)) }))
  for (const [name, [first, ...others]] of (await runCases(drawn, { target: 'reference' })).results) {
    assert.ok(others.length > 0 && first!.length > 0)
    for (const other of others) assert.ok(worstError(first!, other) < 1e-12, name)
  }
}

/** The definition for two axes: for each output, the window of a padded input, times the weights. */
function byWindows(
  x: Tensor,
  w: Tensor,
  [stride, dilation, before, after]: readonly [number, number, number, number],
): Tensor {
  const padded = x.pad(1, before, after).pad(2, before, after)
  const [kh, kw, channels, columns] = w.shape as [number, number, number, number]
  const extent = (axis: number, taps: number): number =>
    Math.floor((padded.shape[axis]! - (taps - 1) * dilation - 1) / stride) + 1
  const pixel = (h: number, v: number): Tensor => padded.slice(1, h, 1).slice(2, v, 1)
  const output = (h: number, v: number): Tensor => {
    const taps: Tensor[] = []
    for (let i = 0; i < kh; i++)
      for (let j = 0; j < kw; j++) taps.push(pixel(h * stride + i * dilation, v * stride + j * dilation))
    return concat(taps, 3).matmul(w.reshape([kh * kw * channels, columns]))
  }
  const along = (count: number): number[] => Array.from({ length: count }, (_, i) => i)
  const rows = along(extent(1, kh)).map((h) =>
    concat(
      along(extent(2, kw)).map((v) => output(h, v)),
      2,
    ),
  )
  return concat(rows, 1)
}

test('a convolution is the product of windows and weights', () =>
  agree(
    [
      [1, 1, 1, 1],
      [2, 1, 0, 1],
      [1, 2, 2, 1],
      [2, 2, 3, 2],
    ].map((own) => {
      const [stride, dilation, before, after] = own as [number, number, number, number]
      const sides = [before, after] as const
      return {
        name: own.join('_'),
        types: [f64(2, 5, 6, 3), f64(3, 2, 3, 4)],
        build: ([x, w]) => [
          conv(x!, w!, { stride, dilation, padding: [sides, sides] }),
          byWindows(x!, w!, [stride, dilation, before, after]),
        ],
      }
    }),
  ))

test('groups are convolutions of their own, and leading axes are batches', () =>
  agree([
    {
      name: 'groups',
      types: [f64(1, 7, 4), f64(3, 2, 6)],
      build: ([x, w]) => [
        conv(x!, w!, { groups: 2, padding: 1 }),
        concat(
          [0, 1].map((g) => conv(x!.slice(2, 2 * g, 2), w!.slice(2, 3 * g, 3), { padding: 1 })),
          2,
        ),
      ],
    },
    {
      name: 'leading',
      types: [f64(2, 3, 5, 2), f64(2, 2, 3)],
      build: ([x, w]) => [
        conv(x!, w!),
        conv(x!.reshape([6, 5, 2]), w!).reshape([2, 3, 4, 3]),
        conv(x!, w!.reshape([1, 2, 2, 3])),
      ],
    },
    {
      name: 'none',
      types: [f64(5, 2), f64(2, 2, 3)],
      build: ([x, w]) => [conv(x!, w!), conv(x!.reshape([1, 5, 2]), w!)],
    },
  ]))

const shapeOf = (x: ValueType, w: ValueType, options: ConvOptions): Tensor =>
  inFreshGraph(() => {
    let result: Tensor | undefined
    traceFunction('main', { x, w }, (tree) => {
      const given = tree as { x: Tensor; w: Tensor }
      return { result: (result = conv(given.x, given.w, options)) }
    })
    return result!
  })

test('same padding gives ceil(extent / stride), more of it behind', async () => {
  const y = shapeOf(f64(1, 7, 8, 1), f64(4, 3, 1, 1), { padding: 'same', stride: [1, 3] })
  assert.deepEqual(y.shape, [1, 7, 3, 1])
  assert.deepEqual(y.node.attrs['low'], [1, 0])
})

test('names of batch and space come from the input, those of channels from the weight', () => {
  const x = valueType('f32', [2, 5, 5, 3], ['batch', 'height', 'width', 'in'])
  const w = valueType('f32', [3, 3, 3, 4], [null, null, 'in', 'out'])
  assert.equal(`${shapeOf(x, w, {})}`, 'f32[batch=2, height=3, width=3, out=4]')
  const frames = valueType('f32', [2, 6, 5, 3], ['batch', 'frames', 'time', 'in'])
  const w1 = valueType('f32', [2, 3, 4], [null, 'in', 'out'])
  assert.equal(`${shapeOf(frames, w1, {})}`, 'f32[batch=2, frames=6, time=4, out=4]')
})

test('one tap that moves by one is a matrix product', () => {
  const ops = (options: ConvOptions): string[] =>
    reachable([shapeOf(f64(2, 4, 4, 3), f64(1, 1, 3, 5), options).node]).map(({ op }) => op.name)
  assert.ok(ops({}).includes('dot') && !ops({}).includes('conv'))
  assert.ok(ops({ stride: 2 }).includes('conv'))
})
