/**
 * Fusion, lowering and emission on random programs of all kinds of ops, loops included: C equals the float64 reference,
 * counts the FLOPs it declares, and gives the same bits on any number of threads. Many programs are compiled as one.
 * Found so far: a value joined with itself computed twice; a loop that overwrote a constant another loop started from.
 */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { inputRanges, randomInputs, randomProgram } from '../../random-graph.ts'
import { uniformPick } from '../../random-samples.ts'
import { draw, runCases, worstError, type Case, type Outcome } from '../../testing.ts'
import { grad, scan } from '../../trace/functions.ts'
import { concat, full, where, type Tensor } from '../../trace/tensor.ts'
import { valueType, type ValueType } from '../../graph/types.ts'

process.env['ANNEAL_OPTIMIZE'] = '3' // as users' programs are compiled

function randomCase(seed: number, numOps: number, dtype: 'f64' | 'f32' = 'f64'): Case {
  const types = randomInputs(uniformPick(2 * seed), dtype)
  return {
    name: `program${seed}`,
    types,
    data: types.map((type, i) => draw(type, seed * 16 + i, inputRanges[i])),
    build: (inputs) => randomProgram(uniformPick(2 * seed + 1), inputs, numOps),
  }
}

const range = (from: number, count: number): number[] => Array.from({ length: count }, (_, i) => from + i)

async function compare(cases: readonly Case[], limit: number, name: string): Promise<void> {
  const reference = await runCases(cases, { target: 'reference' })
  const { program, results } = await runCases(cases, { threads: 2, checking: true, name })
  for (const { name } of cases) {
    results.get(name)!.forEach((got, i) => {
      const want = reference.results.get(name)![i]!
      assert.ok(Array.from(want).every(Number.isFinite), `${name} is finite`)
      const error = worstError(got, want)
      assert.ok(error <= limit, `${name}, result ${i}: error ${error}`)
    })
  }
  assert.equal(program.countedFlops(), program.flops)
}

test('random programs in C equal the reference', () =>
  compare(
    range(0, 40).map((seed) => randomCase(seed, 16)),
    1e-11,
    'random',
  ))

test('gradients of random programs in C equal the reference', () => {
  const cases = range(40, 12).map((seed) => {
    const { types, data, name, build } = randomCase(seed, 8)
    const withGradient = (inputs: readonly Tensor[]): Tensor[] => {
      const results = build(inputs)
      const loss = results.map((y) => y.mean()).reduce((a, b) => a.add(b))
      return [
        ...results,
        ...Object.values(grad(loss, Object.fromEntries(inputs.slice(0, -1).map((x, i) => [`x${i}`, x])))),
      ]
    }
    return { name, types, data, build: withGradient }
  })
  return compare(cases, 1e-10, 'random-gradients')
})

// Shapes of programs that once went wrong, or that random ones seldom reach.

const f64 = (...shape: number[]): ValueType => valueType('f64', shape)

const one = (name: string, types: readonly ValueType[], build: Case['build']): Case => ({
  name,
  types,
  data: types.map((type, i) => draw(type, 3 + i)),
  build,
})

const particular: readonly Case[] = [
  one('joined_with_itself', [f64(5, 4)], ([x]) => {
    const y = x!.exp()
    return [concat([y, y], 1)]
  }),
  one('joined_with_a_view_of_itself', [f64(5, 4)], ([x]) => {
    const y = x!.exp()
    return [concat([y.slice(1, 0, 2), y, y.slice(1, 2, 2)], 1)]
  }),
  one('row_value_read_by_later_rows', [f64(40, 50)], ([x]) => {
    const mean = x!.mean(-1, true)
    return [x!.sub(mean), mean.add(1), x!.mul(mean).sum(-1)]
  }),
  one('three_passes_over_a_row', [f64(40, 50)], ([x]) => {
    const top = x!.sub(x!.maxOver(-1, true)).exp()
    const share = top.div(top.sum(-1, true))
    return [share.sub(share.square().sum(-1, true))]
  }),
  one('columns_and_rows_of_one_value', [f64(60, 50)], ([x]) => {
    const y = x!.sin()
    return [y.sum(0), y.sum(1), y.sum(), y.maxOver(0), y.maxOver()]
  }),
  one('broadcast_then_reduced', [f64(40, 1), f64(50)], ([x, y]) => [
    x!.mul(y!).sum(-1),
    x!.mul(y!).sum(0),
    x!.add(y!).mean(),
  ]),
  one('transposed_reads', [f64(40, 50), f64(50, 40)], ([x, y]) => [
    x!.transpose().add(y!),
    x!.transpose().sum(-1),
    x!.transpose().mul(y!).sum(0),
  ]),
  one('reshapes_that_strides_cannot_say', [f64(6, 8, 10)], ([x]) => {
    const mixed = x!.transpose([2, 0, 1]).reshape([60, 8])
    return [mixed.exp(), mixed.sum(0), x!.transpose([1, 0, 2]).reshape([80, 6]).transpose().add(1)]
  }),
  one('a_middle_axis_reduced', [f64(9, 30, 11)], ([x]) => [
    x!.sum(1),
    x!.maxOver(1, true).add(x!),
    x!.sum([0, 2]),
  ]),
  one('views_of_a_result', [f64(6, 8)], ([x]) => {
    const y = x!.exp()
    return [y, y.transpose(), y.slice(0, 2, 3), y.reshape([48])]
  }),
  one('an_input_as_result', [f64(6, 8)], ([x]) => [x!, x!.transpose(), x!.slice(1, 3, 2)]),
  one('a_constant_as_result', [f64(2)], () => [full(3, f64(4, 5)), full(0, f64())]),
  one('scalars', [f64(), f64()], ([x, y]) => [x!.add(y!), x!.mul(2).sum(), x!.sub(1).exp().mul(y!)]),
  one('axes_of_one_element', [f64(1, 7, 1), f64(1, 1, 1)], ([x, y]) => [
    x!.add(y!),
    x!.sum([0, 2]),
    x!.maxOver(1, true).mul(y!),
    y!.sum(),
  ]),
  one('columns_in_many_leaves', [f64(300, 20)], ([x]) => [
    x!.sum(0),
    x!.sin().sum(),
    x!.maxOver(0),
    x!.cos().maxOver(),
  ]),
  one('one_value_starts_two_carries', [f64(4), f64(5, 4)], ([x, xs]) => {
    const y = x!.exp()
    const [last] = scan(
      { p: y, q: y },
      xs!,
      ({ p, q }, row) => [{ p: p.add(row), q: q.mul(row) }, {}] as const,
    )
    return [last.p, last.q]
  }),
  one('a_carry_that_is_also_a_constant', [f64(4), f64(5, 4)], ([x, xs]) => {
    const y = x!.exp()
    const [last] = scan(y, xs!, (h, row) => [h.mul(row).add(y), {}] as const)
    return [last]
  }),
  one('a_row_that_starts_the_loop_over_itself', [f64(5, 5)], ([x]) => {
    const y = x!.exp()
    const [last, rows] = scan(y.slice(0, 0, 1).reshape([5]), y, (h, row) => [h.mul(0.5).add(row), h] as const)
    return [last, rows]
  }),
  // Threads read what others wrote in the step before: only the barrier behind each step keeps them apart.
  one('a_loop_of_shared_work', [f64(64, 64), f64(60, 64)], ([x, rows]) => {
    const [last] = scan(x!, rows!, (h, row) => [h.transpose().mul(0.9).add(row), {}] as const)
    return [last]
  }),
  // gcc 12 vectorises reads under a condition with a wrong mask, for some widths of a row.
  ...[1, 2, 3, 6, 16].flatMap((width) => [
    one(`padded_rows_of_${width}`, [f64(40, width)], ([x]) => [
      x!.exp().pad(0, 2, 0),
      x!.exp().pad(0, 1, 3).pad(1, 1, 2),
      x!.exp().reshape([5, 8, width]).pad(1, 2, 1),
    ]),
    one(`choices_in_rows_of_${width}`, [f64(40, width), f64(40, width), f64(40)], ([x, y, z]) => [
      where(x!.less(0.5), y!, -1),
      where(x!.less(0.5), y!, z!.reshape([40, 1])),
      where(z!.less(0).reshape([40, 1]), y!.add(1), x!),
      concat([where(x!.less(0.5), y!, 0), where(y!.less(0.5), 0, x!)], 1),
    ]),
  ]),
  one('products_of_views', [f64(7, 5, 6), f64(5, 6, 8)], ([x, y]) => [
    x!.reshape([35, 6]).matmul(y!.slice(0, 2, 1).reshape([6, 8])),
    x!.transpose([1, 0, 2]).matmul(y!),
    x!
      .slice(0, 1, 1)
      .reshape([5, 6])
      .matmul(x!.slice(0, 2, 1).reshape([5, 6]).transpose()),
  ]),
]

test('particular programs in C equal the reference', () => compare(particular, 1e-12, 'particular'))

test('these programs give the same bits on 1, 2 and 3 threads', async () => {
  const cases = [...range(60, 15).map((seed) => randomCase(seed, 16, 'f32')), ...particular]
  const outcomes: Outcome[] = []
  for (const threads of [1, 2, 3]) outcomes.push(await runCases(cases, { threads, name: 'random-threads' }))
  for (const { name } of cases) {
    const [one, ...others] = outcomes.map(({ results }) => results.get(name))
    for (const other of others) assert.deepEqual(other, one, name)
  }
})
