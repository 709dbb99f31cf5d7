/**
 * Products with the matrix of a group: odd and deep sizes, operands read through views, rows of no group, groups without
 * rows, and the two promises that sharing experts out rests on: one group is the plain product, bit for bit, and what a
 * group gets does not depend on the others.
 */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { valueType, type ValueType } from '../../graph/types.ts'
import { draw, runCases, worstError, type Case } from '../../testing.ts'
import { grad } from '../../trace/functions.ts'
import { groupedDot, groupRank, topk } from '../../trace/grouped.ts'
import { iota, type Tensor } from '../../trace/tensor.ts'

process.env['ANNEAL_OPTIMIZE'] = '3' // as users' programs are compiled

const f32 = (...shape: number[]): ValueType => valueType('f32', shape)
const i32 = (...shape: number[]): ValueType => valueType('i32', shape)

/** Products by x and w, and both gradients of a loss that weighs every element differently. */
function all(x: Tensor, group: Tensor, w: Tensor): Tensor[] {
  const y = groupedDot(x, group, w)
  const { dx, dw } = grad(y.mul(y).sum(), { dx: x, dw: w })
  return [y, dx, dw]
}

const caseOf = (
  name: string,
  [rows, groups, inner, columns]: readonly [number, number, number, number],
  range: readonly [number, number] = [0, groups],
): Case => {
  const types = [f32(rows, inner), i32(rows), f32(groups, inner, columns)]
  const data = types.map((type, i) => draw(type, i + rows, i === 1 ? range : [-1, 1]))
  return { name, types, data, build: ([x, group, w]) => all(x!, group!, w!) }
}

const cases: Case[] = [
  caseOf('odd', [301, 5, 37, 53]),
  caseOf('deep', [200, 3, 1600, 40]),
  caseOf('rows_of_no_group', [150, 3, 20, 24], [-2, 6]),
  caseOf('empty_groups', [60, 16, 24, 32], [3, 5]),
  caseOf('read_in_place', [30, 4, 48, 64]),
  caseOf('one_row', [1, 6, 40, 64]),
  {
    name: 'shared_rows',
    types: [f32(40, 24), i32(40, 3), f32(4, 24, 33)],
    data: [draw(f32(40, 24), 7), draw(i32(40, 3), 8, [0, 4]), draw(f32(4, 24, 33), 9)],
    build: ([x, group, w]) => {
      const rows = x!.reshape([40, 1, 24]).broadcastTo({ shape: [40, 3, 24], axes: [null, null, null] })
      return all(rows, group!, w!)
    },
  },
  {
    name: 'turned_matrices',
    types: [f32(50, 24), i32(50), f32(4, 33, 24)],
    data: [draw(f32(50, 24), 7), draw(i32(50), 8, [0, 4]), draw(f32(4, 33, 24), 9)],
    build: ([x, group, w]) => all(x!, group!, w!.transpose([0, 2, 1])),
  },
]

test('products with the matrix of a group equal their meaning, with the same bits on 1, 2 and 3 threads', async () => {
  const want = await runCases(cases, { target: 'reference' })
  const got = await Promise.all([1, 2, 3].map((threads) => runCases(cases, { threads, name: 'grouped' })))
  for (const { name } of cases) {
    want.results.get(name)!.forEach((values, i) => {
      const scale = Array.from(values).reduce((most, x) => Math.max(most, Math.abs(x)), 1)
      const scaled = (list: ArrayLike<number>): number[] => Array.from(list, (x) => x / scale)
      const error = worstError(scaled(got[0]!.results.get(name)![i]!), scaled(values))
      assert.ok(error < 3e-6, `${name}, result ${i}: ${error}`)
    })
    assert.deepEqual(got[1]!.results.get(name), got[0]!.results.get(name), name)
    assert.deepEqual(got[2]!.results.get(name), got[0]!.results.get(name), name)
  }
})

test('rows of no group are zero, and count for nothing', async () => {
  const some = cases.filter(({ name }) => name === 'rows_of_no_group')
  const { program, results } = await runCases(some, { threads: 2, checking: true })
  const [x, group] = some[0]!.data as [Float64Array, Float64Array]
  const inside = group.filter((g) => g >= 0 && g < 3).length
  assert.ok(inside > 20 && inside < 150)
  const y = results.get('rows_of_no_group')![0]!
  group.forEach((g, row) => {
    const line = Array.from({ length: 24 }, (_, c) => y[row * 24 + c])
    assert.equal(
      line.every((value) => value === 0),
      !(g >= 0 && g < 3),
      `row ${row}`,
    )
  })
  // Declared: every row has a group. Squares and their sum are counted in full.
  const products = 3 * 2 * 20 * 24
  const rest = program.flops - products * 150
  assert.equal(program.countedFlops(), products * inside + rest)
  assert.equal(x.length, 150 * 20)
})

test('one group is the plain product, bit for bit, and so are its gradients', async () => {
  const [rows, inner, columns] = [300, 96, 160]
  const types = [f32(rows, inner), f32(1, inner, columns)]
  const data = types.map((type, i) => draw(type, i))
  const build =
    (product: (x: Tensor, w: Tensor) => Tensor) =>
    (inputs: readonly Tensor[]): Tensor[] => {
      const [x, w] = inputs as [Tensor, Tensor]
      const y = product(x, w)
      const { dx, dw } = grad(y.mul(y).sum(), { dx: x, dw: w })
      return [y, dx, dw]
    }
  const { results } = await runCases(
    [
      { name: 'grouped', types, data, build: build((x, w) => groupedDot(x, iota(rows).mul(0), w)) },
      { name: 'plain', types, data, build: build((x, w) => x.matmul(w.reshape([inner, columns]))) },
    ],
    { threads: 2 },
  )
  assert.deepEqual(results.get('grouped'), results.get('plain'))
})

test('what a group gets does not depend on the other groups, bit for bit', async () => {
  const [rows, groups, inner, columns] = [257, 6, 40, 72]
  const x = draw(f32(rows, inner), 1)
  const w = draw(f32(groups, inner, columns), 2)
  const group = draw(i32(rows), 3, [0, groups])
  const whole: Case = {
    name: 'whole',
    types: [f32(rows, inner), i32(rows), f32(groups, inner, columns)],
    data: [x, group, w],
    build: ([a, b, c]) => all(a!, b!, c!),
  }
  const own = [...group.keys()].filter((row) => group[row] === 4)
  const alone: Case = {
    name: 'alone',
    types: [f32(own.length, inner), i32(own.length), f32(1, inner, columns)],
    data: [
      Float64Array.from(own.flatMap((row) => [...x.subarray(row * inner, (row + 1) * inner)])),
      new Float64Array(own.length),
      w.slice(4 * inner * columns, 5 * inner * columns),
    ],
    build: whole.build,
  }
  const { results } = await runCases([whole, alone], { threads: 2 })
  const [y, , dw] = results.get('whole')!
  const [ownY, , ownDw] = results.get('alone')!
  own.forEach((row, i) =>
    assert.deepEqual(
      Array.from({ length: columns }, (_, c) => y![row * columns + c]),
      Array.from({ length: columns }, (_, c) => ownY![i * columns + c]),
    ),
  )
  const size = inner * columns
  assert.deepEqual(
    Array.from({ length: size }, (_, i) => dw![4 * size + i]),
    Array.from(ownDw!),
  )
})

test('the k largest: ties go to the lower index, and the gradient to what was chosen', async () => {
  const { results } = await runCases(
    [
      {
        name: 'ties',
        types: [f32(2, 5)],
        data: [Float64Array.of(1, 3, 3, 0, 3, -1, -1, -2, -1, -9)],
        build: ([x]) => {
          const { values, indices } = topk(x!, 3)
          const weights = iota(3, null, 'f32').add(1)
          return [values, indices, grad(values.mul(weights).sum(), { x: x! }).x]
        },
      },
      {
        name: 'rank',
        types: [i32(2, 4)],
        data: [Float64Array.of(2, 0, 2, 1, 0, 2, 7, 7)],
        build: ([group]) => [groupRank(group!, 3)],
      },
    ],
    { threads: 1 },
  )
  const [values, indices, gradient] = results.get('ties')!.map((list) => Array.from(list))
  assert.deepEqual(values, [3, 3, 3, -1, -1, -1])
  assert.deepEqual(indices, [1, 2, 4, 0, 1, 3])
  assert.deepEqual(gradient, [0, 1, 2, 0, 3, 1, 2, 0, 3, 0])
  assert.deepEqual(Array.from(results.get('rank')![0]!), [0, 0, 1, 0, 1, 2, 0, 0])
})
