/** Two programs over one state: what a key/value cache and its weights need, and that a cache is written in place. */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { cachedAttentionFlops } from './composites/cached-attention.ts'
import { cachedAttention, compile, valueType, writeCache, type Program, type Tensor } from './index.ts'
import { draw, worstError } from './testing.ts'

const cache = valueType('f32', [3, 2, 50, 40])
const index = (rows: number) => valueType('i32', [rows])

/** Writes the rows, then lets each of them look at what its slot holds. */
const body = (given: unknown) => {
  const { state, rows, q, slot, position } = given as Record<string, Tensor> & { state: { cache: Tensor } }
  const places = { pages: slot!.reshape([slot!.size(0), 1]), position: position! }
  const written = writeCache(state.cache, rows!, places)
  const out = cachedAttention(q!, written, written, places)
  return { out, state: { cache: written } }
}
const inputsFor = (rows: number) => ({
  state: { cache },
  rows: valueType('f32', [rows, 2, 40]),
  q: valueType('f32', [rows, 4, 40]),
  slot: index(rows),
  position: index(rows),
})
const dataFor = (rows: number, seed: number, position: readonly number[]) => ({
  rows: draw(valueType('f32', [rows, 2, 40]), seed),
  q: draw(valueType('f32', [rows, 4, 40]), seed + 1),
  slot: [0, 2, 1, 2, 0].slice(0, rows),
  position: [...position],
})
const few = dataFor(2, 1, [49, 7])
const many = dataFor(5, 3, [-1, 8, 50, 9, 3])

for (const target of ['c', 'reference'] as const) {
  test(`${target}: what one program writes into shared state the other reads`, async () => {
    const first = await compile(body, inputsFor(2), { target, threads: 2 })
    const second = await compile(body, inputsFor(5), { target, threads: 3, shares: first })
    const alone = await compile(body, inputsFor(5), { target, threads: 1 })
    const start = draw(cache, 9)
    first.write('state.cache', start)
    await first.run(few)
    const between = first.view('state.cache').slice()
    assert.notDeepEqual(Array.from(between), Array.from(start))
    alone.write('state.cache', between)
    await second.run(many)
    await alone.run(many)
    assert.deepEqual(second.view('out'), alone.view('out'))
    assert.deepEqual(second.view('state.cache'), first.view('state.cache'))
    assert.deepEqual(alone.view('state.cache'), first.view('state.cache'))
    // Rows 0 and 2 are padding: they see nothing and write nothing.
    const out = second.view('out')
    const width = out.length / 5
    for (const row of [0, 2]) assert.ok(out.slice(row * width, (row + 1) * width).every((x) => x === 0))
    if (target === 'c') assert.equal(second.memory.stateBytes, 0)
    for (const program of [second, alone, first]) program.close()
  })
}

test('a cache that is state is written in place, and operations follow the true lengths', async () => {
  const inputs = inputsFor(5)
  const exact = await compile(body, inputs, { target: 'reference' })
  const program = await compile(body, inputs, { threads: 2, checking: true })
  const start = draw(cache, 9)
  for (const one of [exact, program]) {
    one.write('state.cache', start)
    await one.run(many)
  }
  assert.ok(worstError(program.view('out'), exact.view('out')) < 3e-6)
  assert.ok(worstError(program.view('state.cache'), exact.view('state.cache')) < 1e-7)
  // Neither a second cache nor a copy of it: temporaries are the index and scratch.
  assert.ok(program.memory.temporaryBytes < 4 * 50 * 40, `${program.memory.temporaryBytes} bytes`)
  const size = { heads: 4, dim: 40 }
  assert.equal(program.flops, cachedAttentionFlops(5 * 50, 5, size))
  assert.equal(program.countedFlops(), cachedAttentionFlops(9 + 10 + 4, 3, size))
  program.close()
})

test('a program whose lender is closed says so instead of reading freed memory', async () => {
  const lender: Program = await compile(body, inputsFor(2), { threads: 1 })
  const borrower = await compile(body, inputsFor(5), { threads: 1, shares: lender })
  lender.close()
  assert.throws(() => void borrower.run(many), /shares inputs with is closed/)
  borrower.close()
})
