/**
 * The dimension map of every op, proved by its meaning: for each label of each sample, the inputs are cut in two along
 * that label, both halves are computed, and the pieces, joined or (for a reduced label) added or maximised, must be the
 * whole. This is what sharding rests on.
 */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { silu } from '../composites/silu.ts'
import { bodyOf, reachable, type Attrs, type AttrValue, type Node } from '../graph/node.ts'
import type { Factors, Op, Sample, Values } from '../graph/op.ts'
import { sizeOf, valueType, type ValueType } from '../graph/types.ts'
import { randomSample } from '../random-samples.ts'
import { scan } from '../trace/functions.ts'
import { Tensor } from '../trace/tensor.ts'
import { draw, inFreshGraph, worstError } from '../testing.ts'
import { apply } from './elementwise.ts'
import { ops } from './index.ts'
import { input } from './input.ts'

const nodeOfSample = (op: Op, inputs: readonly ValueType[], attrs: Attrs): Node =>
  inFreshGraph(() =>
    apply(
      op,
      inputs.map((type, i) => input(0, `x${i}`, type)),
      attrs,
    ),
  )

const halves = (extent: number): [number, number][] => {
  const middle = Math.ceil(extent / 2)
  return [
    [0, middle],
    [middle, extent - middle],
  ]
}

/** `count` elements from `start` along an axis. */
function cut(values: Values, shape: readonly number[], axis: number, start: number, count: number): Values {
  const inner = sizeOf(shape.slice(axis + 1))
  return values.filter((_, i) => {
    const at = Math.floor(i / inner) % shape[axis]!
    return at >= start && at < start + count
  })
}

/** Attributes that hold extents of the result shrink with it; all others must not mention a splittable axis. */
function shrunk(attrs: Attrs, axis: number, extent: number): Attrs {
  const shrink = (key: string): Record<string, AttrValue> =>
    key in attrs ? { [key]: (attrs[key] as number[]).with(axis, extent) } : {}
  return { ...attrs, ...shrink('shape'), ...shrink('size') }
}

/** A piece of a sum need not have the leaves of the whole. */
function inAnyOrder(attrs: Attrs): Attrs {
  const { leaves: _, ...others } = attrs
  return others
}

/** Extent of a label; every axis that carries it must agree. */
function extentOf(label: string, node: Node, { inputs, results }: Factors): number {
  const extents = new Set<number>()
  const collect = (shape: readonly number[], labels: readonly (string | null)[]): void =>
    labels.forEach((own, axis) => own === label && extents.add(shape[axis]!))
  inputs.forEach((labels, i) => collect(node.inputs[i]!.shape, labels))
  results.forEach((labels, i) => collect(node.types[i]!.shape, labels))
  assert.equal(extents.size, 1, `label ${label} of ${node.op.name} has extents ${[...extents].join(', ')}`)
  return [...extents][0]!
}

function computeInPieces(op: Op, node: Node, data: readonly Values[], label: string): Values {
  const factors = op.factors(node)
  const resultLabels = factors.results[0]!
  const resultAxis = resultLabels.indexOf(label)
  const extent = extentOf(label, node, factors)
  const pieces = halves(extent).map(([start, count]) => {
    const cuts = factors.inputs.map((labels) => labels.indexOf(label))
    const types = node.inputs.map(({ type }, i) =>
      cuts[i]! < 0 ? type : valueType(type.dtype, type.shape.with(cuts[i]!, count)),
    )
    const values = data.map((x, i) =>
      cuts[i]! < 0 ? x : cut(x, node.inputs[i]!.shape, cuts[i]!, start, count),
    )
    const attrs = resultAxis < 0 ? inAnyOrder(node.attrs) : shrunk(node.attrs, resultAxis, count)
    const part = nodeOfSample(op, types, attrs)
    const wanted = resultAxis < 0 ? node.shape : node.shape.with(resultAxis, count)
    assert.deepEqual(part.shape, wanted, `shape of a piece of ${op.name} along ${label}`)
    return op.reference!(part, values)
  }) as [Values, Values]
  if (resultAxis < 0) {
    const [a, b] = pieces
    assert.ok(factors.reduce, `${op.name}: label ${label} is reduced, but not said how`)
    return a.map((x, i) => (factors.reduce === 'sum' ? x + b[i]! : Math.max(x, b[i]!)))
  }
  const inner = sizeOf(node.shape.slice(resultAxis + 1))
  const widths = halves(extent).map(([, count]) => count * inner)
  const out = new Float64Array(sizeOf(node.shape))
  for (let row = 0, at = 0; at < out.length; row++) {
    pieces.forEach((piece, i) => {
      out.set(piece.subarray(row * widths[i]!, (row + 1) * widths[i]!), at)
      at += widths[i]!
    })
  }
  return out
}

function labelsOf({ inputs, results }: Factors): Set<string> {
  return new Set([...inputs, ...results].flat().filter((label) => label !== null))
}

/** Returns how many labels were split. */
function checkSample(op: Op, sample: Sample, seed: number): number {
  const node = nodeOfSample(op, sample.inputs, sample.attrs ?? {})
  const factors = op.factors(node)
  assert.deepEqual(
    factors.inputs.map((labels) => labels.length),
    node.inputs.map(({ shape }) => shape.length),
    `${op.name}: one label an input axis`,
  )
  assert.deepEqual(
    factors.results.map((labels) => labels.length),
    node.types.map(({ shape }) => shape.length),
    `${op.name}: one label a result axis`,
  )
  const data = sample.inputs.map((type, i) => draw(type, seed * 16 + i, sample.ranges?.[i]))
  const whole = op.reference!(node, data)
  let split = 0
  for (const label of labelsOf(factors)) {
    if (extentOf(label, node, factors) < 2) continue
    const error = worstError(computeInPieces(op, node, data, label), whole)
    assert.ok(error <= 1e-12, `${op.name} along ${label}: error ${error}`)
    split++
  }
  return split
}

/** Ops with no axis that may be split: scalars, and counters that address their elements globally. */
const whole = new Set(['constant', 'random'])

for (const op of ops.filter((op) => op.samples().length > 0)) {
  test(`${op.name} in pieces equals the whole`, () => {
    let split = 0
    op.samples().forEach((sample, i) => (split += checkSample(op, sample, i)))
    const random = fc.gen().map((g) => randomSample(op, (min, max) => g(fc.integer, { min, max }), 5))
    fc.assert(
      fc.property(random, fc.nat(1e6), (sample, seed) => {
        split += checkSample(op, sample, seed)
      }),
      { numRuns: 40, seed: 3 },
    )
    assert.equal(split > 0, !whole.has(op.name), `${split} labels were split`)
  })
}

test('calls and loops keep every axis whole, one label an axis', () => {
  const nodes = inFreshGraph(() => {
    const x = new Tensor(input(0, 'x', valueType('f64', [3, 4])))
    const [sum, rows] = scan(x.slice(0, 0, 1), x, (carry, row) => [carry.add(row), silu(row)])
    return reachable([sum.node, rows.node])
  })
  for (const name of ['call', 'scan', 'get']) {
    const all = [
      ...nodes,
      ...nodes.flatMap((node) => bodyOf(node)?.results.flatMap((x) => reachable([x])) ?? []),
    ]
    const node = all.find((node) => node.op.name === name)!
    const factors = node.op.factors(node)
    assert.deepEqual(labelsOf(factors), new Set(), name)
    assert.deepEqual(
      factors.results.map((labels) => labels.length),
      node.types.map(({ shape }) => shape.length),
      name,
    )
  }
})
