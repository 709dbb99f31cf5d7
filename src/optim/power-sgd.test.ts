/**
 * PowerSGD on simulated replicas, which lie along the first axis of every tensor, against plain arithmetic: nothing is
 * lost, full rank loses nothing at all, the factors follow the paper, and the bytes are those that the collective is given.
 */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import {
  bytesOf,
  compile,
  valueType,
  type Program,
  type Tensor,
  type Tensorised,
  type ValueType,
} from '../compiler/index.ts'
import type { Mean } from './outer.ts'
import {
  compress,
  firstFactor,
  isCompressed,
  powerSgd,
  powerSgdBytes,
  powerSgdState,
  powerStateTypes,
} from './power-sgd.ts'

const replicas = 3
const mean: Mean = (x) => x.mean(0, true).broadcastTo(x)

/** Gradients of all replicas at step t: different, of full rank, with a part in common. */
const gradientAt = (size: number, t: number): Float64Array =>
  Float64Array.from(
    { length: replicas * size },
    (_, i) => Math.sin((i + 1) * (0.37 + 0.11 * t)) + 2 * Math.cos(((i % size) + 1) * 0.9),
  )

const near = (got: ArrayLike<number>, want: ArrayLike<number>, limit: number, what: string): void => {
  assert.equal(got.length, want.length)
  for (let i = 0; i < want.length; i++)
    assert.ok(Math.abs(got[i]! - want[i]!) <= limit, `${what}[${i}]: ${got[i]}, not ${want[i]}`)
}

async function simulated(m: number, n: number, rank: number): Promise<Program> {
  const type = valueType('f64', [replicas, m, n])
  const inputs = { state: powerStateTypes(type, rank), g: type }
  const program = await compile(
    ({ state, g }: Tensorised<typeof inputs>) => {
      const { gradient, sent, state: next } = compress(g, state, mean)
      return { state: { ...next }, gradient, sent, plain: mean(g) }
    },
    inputs,
    { target: 'reference' },
  )
  // One factor for all replicas.
  const own = firstFactor(powerStateTypes(valueType('f64', [m, n]), rank).q, 5)
  program.write(
    'state.q',
    Float64Array.from({ length: replicas * own.length }, (_, i) => own[i % own.length]!),
  )
  return program
}

/** Mean over replicas of a value that all of them hold a version of. */
function meanOf(values: ArrayLike<number>): number[] {
  const size = values.length / replicas
  return Array.from(
    { length: size },
    (_, i) => (values[i]! + values[size + i]! + values[2 * size + i]!) / replicas,
  )
}

for (const [m, n, rank] of [
  [7, 5, 2],
  [4, 9, 1],
  [6, 6, 3],
] as const) {
  test(`what was sent and what is left add up to all gradients: [${m}, ${n}], rank ${rank}`, async () => {
    const program = await simulated(m, n, rank)
    const [sent, given] = [new Float64Array(replicas * m * n), new Float64Array(replicas * m * n)]
    for (let t = 0; t < 6; t++) {
      const g = gradientAt(m * n, t)
      await program.run({ g })
      program.view('sent').forEach((value, i) => (sent[i]! += value))
      g.forEach((value, i) => (given[i]! += value))
      const residual = program.view('state.residual')
      near(
        sent.map((value, i) => value + residual[i]!),
        given,
        1e-12,
        'sent and residual',
      )
      // What arrives is the mean of what was sent, everywhere the same, and less than the whole.
      const arrived = program.view('gradient')
      near(arrived.slice(0, m * n), meanOf(program.view('sent')), 1e-12, 'arrived')
      near(arrived.slice(m * n, 2 * m * n), arrived.slice(0, m * n), 0, 'on another replica')
      assert.ok(Math.max(...residual.map(Math.abs)) > 0.01)
    }
  })
}

for (const [m, n] of [
  [7, 5],
  [4, 9],
  [5, 5],
] as const) {
  test(`full rank equals the uncompressed mean: [${m}, ${n}]`, async () => {
    const program = await simulated(m, n, 99)
    assert.deepEqual(program.inputs.get('state.q')!.shape, [replicas, n, Math.min(m, n)])
    for (let t = 0; t < 4; t++) {
      await program.run({ g: gradientAt(m * n, t) })
      near(program.view('gradient'), program.view('plain'), 1e-10, 'gradient')
    }
  })
}

test('gradients of low rank arrive whole, and columns that depend on others are left out', async () => {
  const [m, n, rank] = [8, 6, 4]
  const program = await simulated(m, n, rank)
  // Rank 2, the same on all replicas.
  const g = Float64Array.from({ length: replicas * m * n }, (_, i) => {
    const [row, column] = [Math.floor((i % (m * n)) / n), i % n]
    return Math.sin(row + 1) * Math.cos(column) + 0.3 * Math.cos(2 * row) * (column - 2)
  })
  for (let t = 0; t < 3; t++) {
    await program.run({ g })
    near(program.view('gradient'), g, 1e-9, 'gradient')
    near(program.view('state.residual'), new Float64Array(g.length), 1e-9, 'residual')
  }
})

/** Left factor by plain loops: mean of M Q, then Gram-Schmidt. */
function leftFactor(matrices: readonly Float64Array[], q: Float64Array, n: number, rank: number): number[][] {
  const m = matrices[0]!.length / n
  const columns = Array.from({ length: rank }, (_, c) =>
    Array.from({ length: m }, (_, i) => {
      let sum = 0
      for (const matrix of matrices)
        for (let j = 0; j < n; j++) sum += (matrix[i * n + j]! * q[j * rank + c]!) / matrices.length
      return sum
    }),
  )
  const done: number[][] = []
  for (const column of columns) {
    for (const other of done) {
      const along = column.reduce((sum, x, i) => sum + x * other[i]!, 0)
      column.forEach((_, i) => (column[i]! -= along * other[i]!))
    }
    const size = Math.hypot(...column)
    done.push(column.map((x) => x / size))
  }
  return done
}

test('the factors follow the paper, and the right one is kept for the next step', async () => {
  const [m, n, rank] = [6, 7, 2]
  const program = await simulated(m, n, rank)
  let q = Float64Array.from(program.view('state.q').slice(0, n * rank))
  const residuals = Array.from({ length: replicas }, () => new Float64Array(m * n))
  for (let t = 0; t < 3; t++) {
    const g = gradientAt(m * n, t)
    await program.run({ g })
    const matrices = residuals.map((residual, k) => residual.map((x, i) => x + g[k * m * n + i]!))
    const p = leftFactor(matrices, q, n, rank)
    const factors = matrices.map((matrix) =>
      Float64Array.from({ length: n * rank }, (_, i) =>
        p[i % rank]!.reduce((sum, x, row) => sum + x * matrix[row * n + Math.floor(i / rank)]!, 0),
      ),
    )
    const product = (right: Float64Array): Float64Array =>
      Float64Array.from({ length: m * n }, (_, i) =>
        p.reduce((sum, column, c) => sum + column[Math.floor(i / n)]! * right[(i % n) * rank + c]!, 0),
      )
    factors.forEach((factor, k) => {
      const sent = product(factor)
      residuals[k] = matrices[k]!.map((x, i) => x - sent[i]!)
    })
    q = Float64Array.from(meanOf(factors.flatMap((factor) => Array.from(factor))))
    near(program.view('gradient').slice(0, m * n), product(q), 1e-12, 'gradient')
    near(program.view('state.q').slice(0, n * rank), q, 1e-12, 'q')
    near(
      program.view('state.residual'),
      residuals.flatMap((residual) => Array.from(residual)),
      1e-12,
      'residual',
    )
  }
})

test('a tree: matrices worth it are compressed, stacks each on its own, and bytes are those given to the collective', async () => {
  const f32 = (...shape: number[]): ValueType => valueType('f32', shape)
  const parameters = { big: f32(64, 48), stack: f32(3, 40, 30), small: f32(3, 4), norm: f32(64) }
  const rank = 4
  const state = powerSgdState(parameters, rank)
  assert.deepEqual(Object.keys(state), ['big', 'stack'])
  assert.equal(isCompressed(parameters.small, 4), false)
  let sent = 0
  const counting: Mean = (x: Tensor) => {
    sent += bytesOf(x.type)
    return x
  }
  const inputs = { state, gradients: parameters }
  const program = await compile(
    ({ state, gradients }: Tensorised<typeof inputs>) => powerSgd(gradients, state, counting),
    inputs,
    { target: 'text' },
  )
  assert.equal(powerSgdBytes(Object.values(parameters), rank), sent)
  assert.equal(sent, 4 * (rank * (64 + 48) + 3 * rank * (40 + 30) + 12 + 64))
  assert.deepEqual(program.outputs.get('gradients.stack'), parameters.stack)
  assert.ok(sent < 0.25 * Object.values(parameters).reduce((sum, type) => sum + bytesOf(type), 0))
})
