/**
 * Programs as their users meet them: state that is updated in place however it is tangled (each way several steps long,
 * against the reference, all in one native program), flat memory over many runs, two instances of one program at once,
 * the same text from the same function, and complaints about what cannot be compiled or fed.
 */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { InternalError, UserError } from '../errors.ts'
import { compile, type CompileOptions } from './compile.ts'
import type { Program } from './program.ts'
import { gelu } from './composites/gelu.ts'
import { rmsNorm } from './composites/norm.ts'
import { sizeOf, valueType, type ValueType } from './graph/types.ts'
import { inputRanges, randomInputs, randomProgram } from './random-graph.ts'
import { uniformPick } from './random-samples.ts'
import { draw, worstError } from './testing.ts'
import { grad, scan } from './trace/functions.ts'
import { concat, full, iota, Tensor, where } from './trace/tensor.ts'

process.env['ANNEAL_OPTIMIZE'] = '3' // as users' programs are compiled

const f64 = (...shape: number[]): ValueType => valueType('f64', shape)
const f32 = (...shape: number[]): ValueType => valueType('f32', shape)

type State = Readonly<Record<string, Tensor>>

interface Updated {
  readonly state: State
  readonly [output: string]: Tensor | State
}

/** A way of updating state: from the old values (and one input) to the new ones and other outputs. */
interface Update {
  readonly name: string
  readonly types: Readonly<Record<string, ValueType>>
  readonly step: (state: State, x: Tensor) => Updated
}

const update = (name: string, types: Update['types'], step: Update['step']): Update => ({ name, types, step })
const two = { a: f64(3, 4), b: f64(3, 4) }
const three = { ...two, c: f64(3, 4) }
const square = { a: f64(4, 4), b: f64(4, 4) }

/** The input that every update gets. */
const xType = f64(3, 4)

const updates: readonly Update[] = [
  update('stays', two, ({ a, b }) => ({ state: { a: a!, b: b! } })),
  update('part_of_the_state', two, ({ a }) => ({ state: { a: a!.mul(2) } })),
  update('swap', two, ({ a, b }) => ({ state: { a: b!, b: a! } })),
  update('rotate', three, ({ a, b, c }) => ({ state: { a: b!, b: c!, c: a! } })),
  update('swap_changed', two, ({ a, b }) => ({ state: { a: b!.add(1), b: a!.mul(0.5) } })),
  update('becomes_the_input', two, ({ a }, x) => ({ state: { a: x, b: a! } })),
  update('two_of_one_value', two, ({ a, b }, x) => {
    const sum = a!.add(b!).mul(0.5).add(x)
    return { state: { a: sum, b: sum } }
  }),
  update('two_of_one_old_value', two, ({ a }) => ({ state: { a: a!, b: a! } })),
  update('old_value_read_later', two, ({ a, b }) => {
    const next = a!.mul(0.5)
    return { state: { a: next, b: b!.add(a!) }, old: a!, both: next.sub(a!) }
  }),
  update('old_value_only_as_output', two, ({ a, b }, x) => ({ state: { a: x.sin(), b: b! }, old: a! })),
  update('state_and_output_of_one_value', two, ({ a, b }) => {
    const next = a!.cos()
    return { state: { a: next, b: b! }, copy: next }
  }),
  update('transposed', square, ({ a, b }) => ({ state: { a: a!.transpose(), b: b!.transpose().add(a!) } })),
  update('rolled', { a: f64(6) }, ({ a }) => ({
    state: { a: concat([a!.slice(0, 1, 5), a!.slice(0, 0, 1)], 0) },
  })),
  update('product_with_itself', square, ({ a, b }) => ({
    state: { a: a!.matmul(a!).mul(0.3), b: b!.matmul(a!).tanh() },
  })),
  update('rows_that_need_two_passes', two, ({ a, b }) => {
    const weights = a!.sub(a!.maxOver(-1, true)).exp()
    return { state: { a: weights.div(weights.sum(-1, true)), b: b!.sub(b!.mean(-1, true)) } }
  }),
  update('reduced_over_rows', two, ({ a, b }) => ({
    state: { a: a!.sub(a!.mean(0, true)), b: b!.sub(a!.sum()) },
  })),
  update('reads_the_other_new_value', two, ({ a, b }, x) => {
    const next = a!.mul(0.9).add(x.mul(0.1))
    return { state: { a: next, b: b!.sub(next.mul(0.01)) } }
  }),
  update('rows_by_index', { a: f64(5, 3), i: valueType('i32', [5]) }, ({ a, i }) => ({
    state: { a: a!.take(i!), i: i!.add(2).mod(5) },
  })),
  update('constant', two, ({ a, b }) => ({ state: { a: full(2, a!.type), b: b!.add(a!) } })),
  update('position', { a: f64(6), n: valueType('i32', []) }, ({ a, n }) => ({
    state: { a: where(iota(6).equal(n!), a!.add(1), a!), n: n!.add(1) },
  })),
  update('loop_over_state', { a: f64(4), b: f64(3, 4) }, ({ a, b }) => {
    const [last, rows] = scan(a!, b!, (h, row) => [h.mul(0.5).add(row), h.sub(row)] as const)
    return { state: { a: last, b: rows } }
  }),
  update('loop_that_swaps', two, ({ a, b }, x) => {
    const start = { p: a!, q: b! }
    const [last] = scan(start, x, ({ p, q }, row) => [{ p: q, q: p.add(row) }, {}] as const)
    return { state: { a: last.p, b: last.q } }
  }),
  update('loop_that_keeps', two, ({ a, b }, x) => {
    const start = { p: a!, q: b!, r: a! }
    const [last] = scan(
      start,
      x,
      ({ p, q, r }, row) => [{ p, q: q.mul(0.5).add(row), r: p.add(r) }, {}] as const,
    )
    return { state: { a: last.p.add(last.r), b: last.q } }
  }),
  update('two_loops_from_one_start', { a: f64(4), b: f64(4) }, ({ a, b }, x) => {
    const zero = full(0, f64(4))
    const [sum] = scan(zero, x, (h, row) => [h.add(row), {}] as const)
    const [most] = scan(zero, x, (h, row) => [h.max(row), {}] as const)
    return { state: { a: a!.add(sum), b: b!.mul(0.5).add(most) } }
  }),
  update('gradient_descent_with_momentum', { w: f64(4, 3), m: f64(4, 3) }, ({ w, m }, x) => {
    const loss = rmsNorm(gelu(x.matmul(w!)))
      .sub(0.3)
      .square()
      .mean()
    const next = m!.mul(0.9).add(grad(loss, { w: w! }).w)
    return { state: { w: w!.sub(next.mul(0.1)), m: next }, loss }
  }),
]

/** A random program whose results find their way back into its state, plainly, swapped or transposed. */
function randomUpdate(seed: number): Update {
  const types = randomInputs(uniformPick(2 * seed))
  return update(`random${seed}`, Object.fromEntries(types.map((type, i) => [`s${i}`, type])), (state) => {
    // Traced once a target, the same way each time.
    const pick = uniformPick(2 * seed + 1)
    const inputs = Object.values(state)
    const results = randomProgram(pick, inputs, 10)
    const next = inputs.map((old, i) => {
      const same = [...inputs, ...results].filter(
        (y) => y.dtype === old.dtype && y.shape.join() === old.shape.join(),
      )
      const plain = same[pick(0, same.length - 1)]!
      if (old.dtype !== 'f64') return plain
      const mean = results[pick(0, results.length - 1)]!.mean().tanh()
      const choices = [plain, plain, old.mul(0.5).add(mean), old.add(plain).mul(0.5), old]
      const last = old.rank === 2 && old.shape[0] === old.shape[1] ? old.transpose() : old.cos()
      return [...choices, last][(pick(0, 5) + i) % 6]!
    })
    return {
      state: Object.fromEntries(next.map((y, i) => [`s${i}`, y])),
      ...Object.fromEntries(results.map((y, i) => [`y${i}`, y])),
    }
  })
}

const outputsOf = (result: Updated): Record<string, Tensor> =>
  Object.fromEntries(
    Object.entries(result).filter((entry): entry is [string, Tensor] => entry[1] instanceof Tensor),
  )

/** All updates as one program: state and outputs by the name of the update. */
function compileUpdates(list: readonly Update[], options: CompileOptions): Promise<Program> {
  const state = Object.fromEntries(list.map(({ name, types }) => [name, types]))
  return compile<{ x: ValueType; state: Record<string, Record<string, ValueType>> }>(
    ({ x, state }) => {
      const made = list.map(({ name, step }) => [name, step(state[name]!, x)] as const)
      return {
        state: Object.fromEntries(made.map(([name, result]) => [name, result.state])),
        out: Object.fromEntries(made.map(([name, result]) => [name, outputsOf(result)])),
      }
    },
    { x: xType, state },
    options,
  )
}

function fill(program: Program): void {
  let seed = 0
  for (const [path, type] of program.inputs) {
    program.write(path, draw(type, seed++, type.dtype === 'i32' ? [0, 3] : [-1, 1]))
  }
}

async function compareSteps(list: readonly Update[], steps: number, name: string): Promise<void> {
  const programs = [
    await compileUpdates(list, { target: 'reference' }),
    await compileUpdates(list, { threads: 2, name }),
  ]
  programs.forEach(fill)
  for (let step = 0; step < steps; step++) {
    for (const program of programs) await program.run({ x: draw(xType, 100 + step) })
    const [want, got] = programs as [Program, Program]
    for (const path of want.outputs.keys()) {
      const error = worstError(got.view(path), want.view(path))
      assert.ok(error < 1e-9, `${path} after step ${step + 1}: error ${error}`)
    }
  }
  programs.forEach((program) => program.close())
}

test('state is updated in place however values move, step after step', () =>
  compareSteps(updates, 5, 'state'))

test('state of random programs', () =>
  compareSteps(
    Array.from({ length: 25 }, (_, i) => randomUpdate(i)),
    3,
    'random-state',
  ))

test('state lives once: an optimizer step needs no second copy of it', async () => {
  const big = f32(256, 256)
  const program = await compile(
    ({ state, g }) => {
      const m = state.m.mul(0.9).add(g.mul(0.1))
      return { state: { w: state.w.sub(m.mul(0.01)), m } }
    },
    { state: { w: big, m: big }, g: big },
    { threads: 2, name: 'optimizer' },
  )
  const { memory } = program
  assert.equal(memory.stateBytes, 2 * 4 * 256 * 256)
  assert.equal(memory.inputBytes, 4 * 256 * 256)
  assert.equal(memory.temporaryBytes, 0)
  assert.equal(memory.arenaBytes, memory.stateBytes + memory.inputBytes)
  program.close()
})

const small = (options: CompileOptions = {}): Promise<Program> =>
  compile(
    ({ state, x }) => {
      const loss = gelu(x.matmul(state.w)).square().mean()
      return { state: { w: state.w.sub(grad(loss, { w: state.w }).w.mul(0.1)) }, loss }
    },
    { state: { w: f32(32, 16) }, x: f32(64, 32) },
    { threads: 2, name: 'small', ...options },
  )

test('memory stays flat over two thousand runs', async () => {
  const program = await small()
  const values = draw(f32(64, 32), 1)
  const runMany = async (count: number): Promise<number> => {
    for (let i = 0; i < count; i++) await program.run({ x: values })
    return process.memoryUsage().rss
  }
  const before = await runMany(500)
  const after = await runMany(2000)
  program.close()
  assert.ok(after - before < 12e6, `${Math.round((after - before) / 1e3)} kB more`)
})

test('two instances of one program run at once and share nothing', async () => {
  const programs = [await small(), await small()]
  assert.ok(programs[1]!.cached)
  programs.forEach((program, i) => program.write('state.w', draw(f32(32, 16), 7 + i)))
  const x = draw(f32(64, 32), 3)
  for (let step = 0; step < 20; step++) await Promise.all(programs.map((program) => program.run({ x })))
  const together = programs.map((program) => program.view('state.w').slice())
  programs.forEach((program) => program.close())
  assert.notDeepEqual(together[0], together[1])
  for (const i of [0, 1]) {
    const alone = await small()
    alone.write('state.w', draw(f32(32, 16), 7 + i))
    for (let step = 0; step < 20; step++) await alone.run({ x })
    assert.deepEqual(alone.view('state.w').slice(), together[i])
    alone.close()
  }
})

test('a function traced twice gives the same text, and another name only another title', async () => {
  const [first, again, renamed] = [await small(), await small(), await small({ name: 'other' })]
  assert.equal(again.source, first.source)
  assert.equal(renamed.source.replace('other:', 'small:'), first.source)
  for (const program of [first, again, renamed]) program.close()
})

test('what a program says of itself: types, FLOPs, memory, text', async () => {
  const program = await small({ checking: true })
  assert.deepEqual([...program.inputs.keys()], ['state.w', 'x'])
  assert.deepEqual([...program.outputs.keys()], ['state.w', 'loss'])
  assert.equal(program.view('loss').length, 1)
  await program.run({ x: draw(f32(64, 32), 1) })
  await program.run()
  assert.equal(program.countedFlops(), 2 * program.flops)
  assert.ok(program.memory.temporaryBytes >= program.memory.lowerBound)
  assert.match(program.source, /small: [\d,]+ FLOP a step, 2 threads/)
  program.close()
})

test('running on the calling thread gives the same state', async () => {
  for (const target of ['c', 'reference'] as const) {
    const program = await compile(
      ({ state, x }) => ({ state: state.mul(2).add(x) }),
      { state: valueType('f32', [3]), x: valueType('f32', [3]) },
      { target, name: 'blocking', threads: 2 },
    )
    program.write('x', [1, 2, 3])
    await program.run()
    program.runBlocking()
    program.runBlocking()
    assert.deepEqual([...program.view('state')], [7, 14, 21])
    program.close()
    if (target === 'c') assert.throws(() => program.runBlocking(), InternalError)
  }
})

test('a closed program does not run, and closing twice is fine', async () => {
  const program = await small()
  program.close()
  program.close()
  assert.throws(() => program.run(), InternalError)
})

const mistake = (message: RegExp) => (error: unknown) => {
  assert.ok(error instanceof UserError, String(error))
  assert.match(error.message, message)
  assert.doesNotMatch(error.message, /\n/)
  return true
}

test('inputs of the wrong length and unknown paths are refused', async () => {
  for (const target of ['c', 'reference'] as const) {
    const program = await small({ target })
    assert.throws(
      () => program.write('x', [1, 2, 3]),
      mistake(/input 'x': got 3 values; expected 2048; check the shape/),
    )
    assert.throws(() => program.view('nothing'), InternalError)
    program.close()
  }
})

test('state that changes its type, or that was never given, is refused before anything compiles', async () => {
  const types = { state: { w: f32(2, 3) } }
  await assert.rejects(
    compile(({ state }) => ({ state: { w: state.w.sum(0) } }), types),
    mistake(/^output 'state\.w': got f32\[3\]; expected f32\[2, 3\]; state must keep its type$/),
  )
  await assert.rejects(
    compile(({ state }) => ({ state: { v: state.w } }), types),
    mistake(/^output 'state\.v': got f32\[2, 3\]; expected an input of the same path/),
  )
  await assert.rejects(
    compile((() => ({ y: 1 })) as never, types),
    mistake(/got number as output 'y'; expected a tensor/),
  )
})

test('random states are worth testing', () => {
  assert.equal(inputRanges.length, randomInputs(uniformPick(0)).length)
  assert.ok(randomInputs(uniformPick(3)).some(({ shape }) => sizeOf(shape) > 1))
})

test('rows longer than a stack: what later passes read lies in the arena', async () => {
  const columns = 300_000
  const body = ({ x }: { readonly x: Tensor }) => {
    const y = x.mul(2).add(1)
    return { y: y.div(y.square().sum(1, true).sqrt()) }
  }
  const x = Float32Array.from({ length: 3 * columns }, (_, i) => Math.sin(i))
  const results: number[][] = []
  for (const target of ['c', 'reference'] as const) {
    const program = await compile(body, { x: f32(3, columns) }, { target, threads: 2, name: 'long-rows' })
    await program.run({ x })
    const y = program.view('y')
    results.push([0, columns - 1, columns, 3 * columns - 1].map((i) => y[i]! * Math.sqrt(columns)))
    program.close()
  }
  results[0]!.forEach((value, i) => assert.ok(Math.abs(value - results[1]![i]!) < 1e-3, `${value}`))
})
