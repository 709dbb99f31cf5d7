/**
 * Views against the movement ops they stand for: on random chains, a view names exactly the elements that the reference
 * moves, and there is none only where no strides could say it.
 */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { Func, reachable, type Node } from '../../graph/node.ts'
import { sizeOf, stridesOf, valueType } from '../../graph/types.ts'
import { input } from '../../ops/input.ts'
import { ops } from '../../ops/index.ts'
import { randomSample, type Pick } from '../../random-samples.ts'
import { inFreshGraph } from '../../testing.ts'
import { apply } from '../../ops/elementwise.ts'
import { interpret } from '../reference/interpret.ts'
import { accessOf, denseView, isDense, reshapeView, viewThrough, type View } from './view.ts'

/** Offsets of the elements of a view in memory, in row-major order. */
function offsetsOf({ offset, shape, strides }: View): number[] {
  const weights = stridesOf(shape)
  return Array.from({ length: sizeOf(shape) }, (_, i) =>
    shape.reduce(
      (at, extent, axis) => at + (Math.floor(i / weights[axis]!) % extent) * strides[axis]!,
      offset,
    ),
  )
}

/** Whether offset plus one stride an axis can give these offsets. */
function isAffine(offsets: readonly number[], shape: readonly number[]): boolean {
  const weights = stridesOf(shape)
  const strides = shape.map((extent, axis) => (extent === 1 ? 0 : offsets[weights[axis]!]! - offsets[0]!))
  const wanted = offsetsOf({ offset: offsets[0]!, shape, strides })
  return wanted.every((at, i) => at === offsets[i])
}

const movements = ops.filter(({ name }) => ['reshape', 'transpose', 'broadcast', 'slice'].includes(name))

/** A chain of movements of one parameter. */
function chain(pick: Pick): Node {
  const first = randomSample(movements[pick(0, 3)]!, pick, 5)
  let x = input(
    0,
    'x',
    valueType('f64', first.inputs[0]!.shape.length === 0 ? [4, 6] : [4, 6, 5].slice(0, pick(1, 3))),
  )
  for (let i = 0; i < 4; i++) x = move(x, pick)
  return x
}

function move(x: Node, pick: Pick): Node {
  const { shape } = x
  const op = movements[pick(0, 3)]!
  const axes = (to: readonly number[]): null[] => to.map(() => null)
  if (op.name === 'transpose') {
    const permutation = shape.map((_, i) => i)
    const [a, b] = [pick(0, Math.max(0, shape.length - 1)), pick(0, Math.max(0, shape.length - 1))]
    if (shape.length > 0) [permutation[a], permutation[b]] = [permutation[b]!, permutation[a]!]
    return apply(op, [x], { permutation })
  }
  if (op.name === 'slice') {
    const start = shape.map((extent) => (pick(0, 1) === 0 ? 0 : pick(0, extent - 1)))
    return apply(op, [x], { start, size: shape.map((extent, i) => pick(1, extent - start[i]!)) })
  }
  if (op.name === 'broadcast') {
    const to = [pick(1, 3), ...shape.map((extent) => (extent === 1 ? pick(1, 4) : extent))]
    return apply(op, [x], { shape: to, dims: shape.map((_, i) => i + 1), axes: axes(to) })
  }
  // All into one axis, then cut at random divisors.
  const to: number[] = []
  for (let left = sizeOf(shape); left > 1; left /= to.at(-1)!) {
    const divisors = Array.from({ length: left }, (_, i) => i + 1).filter((d) => left % d === 0)
    to.push(divisors[pick(1, divisors.length - 1)]!)
  }
  return apply(op, [x], { shape: to, axes: axes(to) })
}

test('a view shows the elements that the movements show, and exists wherever strides can say them', () => {
  let views = 0
  let impossible = 0
  fc.assert(
    fc.property(fc.gen(), (g) =>
      inFreshGraph(() => {
        const last = chain((min, max) => g(fc.integer, { min, max }))
        const [param] = reachable([last])
        const positions = Float64Array.from({ length: sizeOf(param!.shape) }, (_, i) => i)
        let view: View | undefined = denseView(param!.shape)
        for (const node of reachable([last]).slice(1)) {
          const [offsets] = interpret(new Func(0, 'view', [param!], [node]), [positions])
          view = viewThrough(node, view)
          if (!view) {
            impossible++
            assert.ok(!isAffine(Array.from(offsets!), node.shape), `${node.op.name} could have been a view`)
            return
          }
          views++
          assert.deepEqual(view.shape, node.shape)
          assert.deepEqual(offsetsOf(view), Array.from(offsets!))
        }
      }),
    ),
    { numRuns: 600, seed: 8 },
  )
  assert.ok(views > 500 && impossible > 20, `${views} views, ${impossible} impossible`)
})

test('how a view reads its base: element for element, row by row, or otherwise', () => {
  const base = 6
  assert.deepEqual(accessOf({ offset: 0, shape: [2, 3], strides: [3, 1] }, base), { kind: 'same' })
  assert.deepEqual(accessOf({ offset: 0, shape: [1, 6, 1], strides: [9, 1, 7] }, base), { kind: 'same' })
  assert.deepEqual(accessOf({ offset: 0, shape: [6, 4], strides: [1, 0] }, base), { kind: 'row', columns: 4 })
  assert.deepEqual(accessOf({ offset: 0, shape: [2, 3, 4, 5], strides: [3, 1, 0, 0] }, base), {
    kind: 'row',
    columns: 20,
  })
  assert.deepEqual(accessOf({ offset: 0, shape: [3, 2], strides: [1, 3] }, base), { kind: 'other' })
  assert.deepEqual(accessOf({ offset: 0, shape: [4, 6], strides: [0, 1] }, base), { kind: 'other' })
  assert.deepEqual(accessOf({ offset: 1, shape: [5], strides: [1] }, base), { kind: 'other' })
  assert.deepEqual(accessOf({ offset: 0, shape: [5], strides: [1] }, base), { kind: 'other' })
})

test('dense is dense whatever axes of one element say', () => {
  assert.ok(isDense({ offset: 0, shape: [3, 1, 2], strides: [2, 99, 1] }))
  assert.ok(isDense({ offset: 0, shape: [], strides: [] }))
  assert.ok(!isDense({ offset: 0, shape: [3, 2], strides: [1, 3] }))
  assert.equal(reshapeView({ offset: 0, shape: [3, 2], strides: [1, 3] }, [6]), undefined)
})
