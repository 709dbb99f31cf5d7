/** Between any two layouts: every rank comes to hold exactly its piece, and what is sent is what was said. */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import {
  boxesOf,
  coordinate,
  layoutKey,
  localShape,
  ranksOf,
  type Combine,
  type Layout,
  type Mesh,
  type MeshAxis,
  type Order,
} from '../graph/mesh.ts'
import { Graph, inGraph, reachable, type Func } from '../graph/node.ts'
import { bytesOf, sizeOf, valueType } from '../graph/types.ts'
import { collectiveAttrs } from '../ops/collective.ts'
import { input } from '../ops/input.ts'
import { scatter } from '../pieces.ts'
import { interpretRanks } from '../targets/reference/ranks.ts'
import { bytesSent, movesBetween, reshard } from './reshard.ts'

interface Case {
  readonly mesh: Mesh
  readonly shape: readonly number[]
  readonly from: Layout
  readonly to: Layout
}

const names = ['a', 'b', 'c']

/** Random numbers that are the same in every run. */
function dice(start: number): <T>(list: readonly T[]) => T {
  let seed = start
  return (list) => list[Math.floor(((seed = (seed * 16807) % 2147483647) / 2147483647) * list.length)]!
}

function randomCase(pick: ReturnType<typeof dice>): Case {
  const count = pick([1, 2, 2, 3])
  const mesh = names.slice(0, count).map((name): MeshAxis => ({
    name,
    size: pick([2, 2, 3]),
    order: pick<Order>(['plain', 'plain', 'plain', 'zigzag', 2]),
  }))
  const rank = pick([1, 2, 3])
  const combine: Combine = pick(['sum', 'sum', 'max'])
  /** Each axis cuts some dimension, or is partial, or neither. `open`: axes that may be partial. */
  const layout = (open: readonly string[]): Layout => {
    const dims: string[][] = Array.from({ length: rank }, () => [])
    const partial: Record<string, Combine> = {}
    const shuffled = pick([mesh, mesh.toReversed()])
    for (const { name } of shuffled) {
      const where = pick([...dims.keys(), ...dims.keys(), -1, -2])
      if (where >= 0) dims[where]!.push(name)
      else if (where === -2 && open.includes(name)) partial[name] = combine
    }
    return { dims, partial }
  }
  const from = layout(names)
  const to = layout(Object.keys(from.partial))
  // Any dimension may be cut over all axes, each in pieces of two.
  const pieces = sizeOf(mesh.map(({ size, order }) => size * (order === 'plain' ? 1 : 2)))
  return {
    mesh,
    shape: Array.from({ length: rank }, (_, i) => pieces * (i === 0 ? pick([1, 2]) : 1)),
    from,
    to,
  }
}

/** What is to be combined, by the place along the axes over which ranks hold parts of it. */
class Parts {
  readonly #made = new Map<string, Float64Array>()
  readonly #case: Case
  readonly #pick: ReturnType<typeof dice>

  constructor(one: Case, pick: ReturnType<typeof dice>) {
    this.#case = one
    this.#pick = pick
  }

  /** What lies at `places` along the axes that are partial in `from`; where no place is given, all are combined. */
  at(places: ReadonlyMap<string, number>): Float64Array {
    const { mesh, shape, from } = this.#case
    const open = mesh.filter(({ name }) => name in from.partial)
    const missing = open.find(({ name }) => !places.has(name))
    if (!missing) {
      const key = open.map(({ name }) => places.get(name)).join()
      const known = this.#made.get(key)
      if (known) return known
      const numbers = Array.from({ length: 41 }, (_, i) => i - 20)
      const made = Float64Array.from({ length: sizeOf(shape) }, () => this.#pick(numbers))
      this.#made.set(key, made)
      return made
    }
    const parts = Array.from({ length: missing.size }, (_, i) =>
      this.at(new Map([...places, [missing.name, i]])),
    )
    const add = from.partial[missing.name] === 'sum'
    return parts.reduce((a, b) => a.map((x, i) => (add ? x + b[i]! : Math.max(x, b[i]!))))
  }

  /** What every rank holds in a layout. */
  held(layout: Layout): Float64Array[] {
    const { mesh, shape } = this.#case
    return Array.from({ length: ranksOf(mesh) }, (_, rank) => {
      const places = Object.keys(layout.partial).map((axis) => [axis, coordinate(mesh, axis, rank)] as const)
      const data = new Float64Array(sizeOf(localShape(mesh, layout, shape)))
      scatter(mesh, layout, shape, this.at(new Map(places)), [{ rank, data }])
      return data
    })
  }
}

/** Bytes that a rank sends, from the collectives of a program themselves, by ring algorithms. */
function bytesOfCollectives(func: Func): number {
  return reachable(func.results).reduce((total, node) => {
    if (node.op.kind !== 'collective' || node.op.name === 'shard') return total
    const size = sizeOf(collectiveAttrs(node).steps.map(([size]) => size))
    const [given, made] = [bytesOf(node.inputs[0]!.type), bytesOf(node.type)]
    switch (node.op.name) {
      case 'allReduce':
        return total + (2 * (size - 1) * given) / size
      case 'allGather':
        return total + made - given
      case 'reduceScatter':
        return total + given - made
      case 'allToAll':
        return total + (given * (size - 1)) / size
      default:
        return assert.fail(node.op.name)
    }
  }, 0)
}

test('from any layout to any other: the pieces of the target, and the bytes foretold', () => {
  const pick = dice(20261125)
  const seen = new Set<string>()
  for (let i = 0; i < 400; i++) {
    const one = randomCase(pick)
    const { mesh, shape, from, to } = one
    const what = `${JSON.stringify(mesh)} [${shape.join()}] ${layoutKey(from)} to ${layoutKey(to)}`
    const func = inGraph(new Graph(), () => {
      const x = input(0, 'x', valueType('f32', localShape(mesh, from, shape)))
      return new Graph().func('f', [x], [reshard(mesh, { node: x, layout: from }, to)])
    })
    reachable(func.results).forEach(({ op }) => seen.add(op.name))
    const parts = new Parts(one, pick)
    const args = parts.held(from)
    const [[got]] = interpretRanks([{ func, ranks: args.map((_, rank) => rank), args: [args] }]) as [
      [Float64Array[]],
    ]
    assert.deepEqual(got, parts.held(to), what)
    const foretold = bytesSent(mesh, 4 * sizeOf(shape), from, movesBetween(from, to))
    assert.ok(Math.abs(bytesOfCollectives(func) - foretold) < 1e-6, `${what}: ${foretold} bytes`)
  }
  assert.deepEqual(
    [...seen].toSorted(),
    ['allGather', 'allReduce', 'allToAll', 'input', 'reduceScatter', 'shard'],
    'every way to move a value was tried',
  )
})

test('the pieces of all ranks are the whole, each element once', () => {
  const pick = dice(4)
  for (let i = 0; i < 200; i++) {
    const { mesh, shape, from } = randomCase(pick)
    const cuts = new Set(from.dims.flat())
    const counts = new Float64Array(sizeOf(shape))
    const numbers = Float64Array.from(counts, (_, at) => at)
    for (let rank = 0; rank < ranksOf(mesh); rank++) {
      // One rank of those that hold the same.
      if (mesh.some(({ name }) => !cuts.has(name) && coordinate(mesh, name, rank) > 0)) continue
      const data = new Float64Array(sizeOf(localShape(mesh, from, shape)))
      scatter(mesh, from, shape, numbers, [{ rank, data }])
      data.forEach((at) => counts[at]!++)
      assert.equal(
        boxesOf(mesh, from, shape, rank).reduce((total, { size }) => total + sizeOf(size), 0),
        data.length,
      )
    }
    assert.ok(
      counts.every((count) => count === 1),
      `${JSON.stringify(mesh)} [${shape.join()}] ${layoutKey(from)}`,
    )
  }
})
