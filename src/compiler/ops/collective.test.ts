/** Gradients of collectives: each is the transpose of its linear map over all ranks, <y, A x> = <A' y, x>. */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { groupOf, type Group, type Mesh, type Order } from '../graph/mesh.ts'
import { Graph, inGraph, type Node } from '../graph/node.ts'
import { sizeOf, valueType } from '../graph/types.ts'
import { interpretRanks, type Everywhere } from '../targets/reference/ranks.ts'
import { allGather } from './all-gather.ts'
import { allReduce } from './all-reduce.ts'
import { allToAll } from './all-to-all.ts'
import { ops } from './index.ts'
import { input } from './input.ts'
import { reduceScatter } from './reduce-scatter.ts'
import { shard } from './shard.ts'
import { shift } from './shift.ts'

const linear: Readonly<Record<string, (x: Node, group: Group) => Node>> = {
  allReduce,
  allGather: (x, group) => allGather(x, group, 1),
  reduceScatter: (x, group) => reduceScatter(x, group, 0),
  allToAll: (x, group) => allToAll(x, group, 0, 1),
  shift: (x, group) => shift(x, group, 1),
  shard: (x, group) => shard(x, group, 0),
}

test('every collective that moves values is tried here', () => {
  const collectives = ops.filter(({ kind }) => kind === 'collective').map(({ name }) => name)
  // Messages and the number of a rank have no gradient.
  assert.deepEqual(
    [...Object.keys(linear), 'send', 'receive', 'meshIndex'].toSorted(),
    collectives.toSorted(),
  )
})

const meshOf = (order: Order): Mesh => [
  { name: 'a', size: 2 },
  { name: 'b', size: 3, order },
]

for (const [name, apply] of Object.entries(linear)) {
  test(`${name}: its gradient is its transpose over all ranks`, () => {
    let seed = 11
    const random = (): number => (seed = (seed * 16807) % 2147483647) / 2147483647 - 0.5
    const draw = (shape: readonly number[]): Everywhere =>
      Array.from({ length: 6 }, () => Float64Array.from({ length: sizeOf(shape) }, random))
    const dot = (a: Everywhere, b: Everywhere): number =>
      a.reduce((total, values, rank) => values.reduce((t, x, i) => t + x * b[rank]![i]!, total), 0)
    for (const [order, axes] of [
      ['plain', ['a']],
      ['plain', ['b', 'a']],
      ['zigzag', ['b']],
      [2, ['b']],
    ] as const) {
      const [func, types] = inGraph(new Graph(), () => {
        const x = input(0, 'x', valueType('f64', [12, 4]))
        const result = apply(x, groupOf(meshOf(order), axes))
        const y = input(1, 'y', result.type)
        const [back] = result.op.gradient!(result, [y])
        return [new Graph().func('f', [x, y], [result, back!]), [x.shape, y.shape]] as const
      })
      const [x, y] = [draw(types[0]), draw(types[1])]
      const ranks = x.map((_, rank) => rank)
      const [[forward, back]] = interpretRanks([{ func, ranks, args: [x, y] }]) as [[Everywhere, Everywhere]]
      const [want, got] = [dot(y, forward), dot(back, x)]
      assert.ok(Math.abs(want) > 1e-3, 'the numbers say something')
      assert.ok(
        Math.abs(want - got) < 1e-12 * (1 + Math.abs(want)),
        `${order} ${axes.join()}: ${want} ${got}`,
      )
    }
  })
}
