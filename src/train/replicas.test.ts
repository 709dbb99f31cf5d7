/**
 * Replicas with state of their own. The oracle is a plain loop here: each replica by itself under the ordinary program of
 * one device, and what they tell each other in arithmetic on arrays. Then on ranks that are threads: bytes, bits after a
 * resume, a loss that falls.
 */
import assert from 'node:assert/strict'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'node:test'
import { compile, sizeOf, type Program, type Tensorised } from '../compiler/index.ts'
import { resolveConfig, type LanguageConfig, type LanguageOverrides } from '../models/language/config.ts'
import { firstFactor, isCompressed, powerSgdBytes, powerStateTypes } from '../optim/power-sgd.ts'
import { outerBytes } from '../optim/outer.ts'
import { sentBytes, trafficOfCut } from '../parallel/traffic.ts'
import { loadCheckpoint, openSaver, type CheckpointFile } from './checkpoint.ts'
import { gradientsOf } from './microbatches.ts'
import { batchPlaces, parallelOptions } from './parallel.ts'
import { compileOptions, initialise, stepSource } from './programs.ts'
import { requireSameReplicas } from './replicas.ts'
import { stepInputs, trainedTypes } from './state.ts'
import { compileStep } from './step.ts'

const vocab = 16
const replicas = 2

const configOf = ({ model, mesh, ...overrides }: LanguageOverrides): LanguageConfig =>
  resolveConfig({
    steps: 3,
    threads: 1,
    leaves: 0,
    ...overrides,
    mesh: { data: replicas, ...mesh },
    model: { layers: 2, width: 16, heads: 2, context: 8, ...model },
  })

/** Window `i` of the data: what it holds follows from its number. */
const window = (i: number, length: number): number[] =>
  Array.from({ length }, (_, t) => ((i * 31 + t * t * 7 + t * 3) % 97) % vocab)

/** The windows of a step in the order of the data, and as the program takes them. */
function tokensOf(config: LanguageConfig, step: number): { windows: number[][]; given: Int32Array } {
  const length = config.model.context + 1
  const windows = Array.from({ length: config.batch }, (_, i) => window(step * config.batch + i, length))
  const given = new Int32Array(config.batch * length)
  batchPlaces(config).forEach((place, i) => given.set(windows[i]!, place * length))
  return { windows, given }
}

async function reference(config: LanguageConfig, ranks: boolean): Promise<Program> {
  const { inputs, body } = stepSource(config, vocab)
  const program = await compile(body, inputs, {
    target: 'reference',
    ...(ranks ? parallelOptions(config, vocab) : {}),
  })
  initialise(program, config, vocab)
  return program
}

function near(got: ArrayLike<number>, want: ArrayLike<number>, what: string, within = 1e-11): void {
  assert.equal(got.length, want.length, what)
  const scale = Array.from(want).reduce((most, x) => Math.max(most, Math.abs(x)), 1e-3)
  for (let i = 0; i < want.length; i++)
    assert.ok(Math.abs(got[i]! - want[i]!) <= within * scale, `${what}[${i}]: ${got[i]}, not ${want[i]}`)
}

const trainedPaths = (config: LanguageConfig): string[] =>
  Object.keys(trainedTypes({ ...config.model, vocab }))

// Constants of a program in f32 are what f32 holds, in float64 arithmetic too.
const [outerLr, momentum, lr] = [Math.fround(0.6), Math.fround(0.8), Math.fround(0.05)]

test('rounds of local steps equal a loop over replicas that train alone', async () => {
  for (const accumulate of [1, 2]) {
    const count = 3
    const config = configOf({
      batch: replicas * count * 2,
      accumulate,
      optim: { name: 'adamw', clip: 1 },
      parallel: { local: count, outerLr, outerMomentum: momentum },
    })
    const program = await reference(config, true)
    // Each replica: the step of one device, with its share of the windows.
    const { local: _, ...parallel } = config.parallel
    const alone = await Promise.all(
      Array.from({ length: replicas }, () =>
        reference(
          resolveConfig({
            ...config,
            parallel,
            mesh: { data: 1 },
            batch: 2,
            steps: config.steps * count,
            optim: { ...config.optim, warmup: config.optim.warmup * count },
          }),
          false,
        ),
      ),
    )
    const paths = trainedPaths(config)
    const agreed = new Map(
      paths.map((path) => [path, Float64Array.from(program.view(`state.params.${path}`))]),
    )
    const velocity = new Map(paths.map((path) => [path, new Float64Array(agreed.get(path)!.length)]))
    for (let round = 0; round < config.steps; round++) {
      const { windows, given } = tokensOf(config, round)
      await program.run({ tokens: given, seed: [config.seed] })
      const losses: number[] = []
      for (const [k, one] of alone.entries()) {
        for (const path of paths) one.write(`state.params.${path}`, agreed.get(path)!)
        for (let step = 0; step < count; step++) {
          const from = (step * replicas + k) * 2
          await one.run({ tokens: windows.slice(from, from + 2).flat(), seed: [config.seed] })
          losses.push(one.view('loss')[0]!)
        }
      }
      near(
        program.view('loss'),
        [(losses.reduce((a, b) => a + b, 0) / replicas) * Math.fround(1 / count)],
        'loss',
      )
      for (const path of paths) {
        const [anchor, speed] = [agreed.get(path)!, velocity.get(path)!]
        for (let i = 0; i < anchor.length; i++) {
          let moved = 0
          for (const one of alone) moved += (anchor[i]! - one.view(`state.params.${path}`)[i]!) / replicas
          speed[i] = momentum * speed[i]! + moved
          anchor[i]! -= outerLr * (moved + momentum * speed[i]!)
        }
        near(program.view(`state.params.${path}`), anchor, path)
        near(program.view(`state.outer.${path}`), speed, `velocity of ${path}`)
        const optim = program.view(`state.optim.${path}.m`)
        alone.forEach((one, k) => {
          const own = one.view(`state.optim.${path}.m`)
          near(optim.slice(k * own.length, (k + 1) * own.length), own, `moments of replica ${k}, ${path}`)
        })
      }
    }
  }
})

/** PowerSGD in plain loops, for one stack of matrices and all replicas. */
class PlainPowerSgd {
  readonly #m: number
  readonly #n: number
  readonly #rank: number
  readonly q: Float64Array
  readonly residuals: Float64Array[]

  constructor(shape: readonly number[], rank: number, q: Float64Array) {
    const [m, n] = shape.slice(-2) as [number, number]
    this.#m = m
    this.#n = n
    this.#rank = Math.min(rank, m, n)
    this.q = q
    this.residuals = Array.from({ length: replicas }, () => new Float64Array(sizeOf(shape)))
  }

  /** The gradient that all go on with; `own`: of each replica. */
  step(own: readonly Float64Array[]): Float64Array {
    const [m, n, rank] = [this.#m, this.#n, this.#rank]
    const matrices = own.map((g, k) => g.map((x, i) => x + this.residuals[k]![i]!))
    const result = new Float64Array(own[0]!.length)
    for (let stack = 0; stack < result.length / (m * n); stack++) {
      const [at, right] = [stack * m * n, stack * n * rank]
      const columns: number[][] = []
      for (let c = 0; c < rank; c++) {
        let column = Array.from({ length: m }, (_, i) => {
          let sum = 0
          for (const matrix of matrices)
            for (let j = 0; j < n; j++)
              sum += (matrix[at + i * n + j]! * this.q[right + j * rank + c]!) / replicas
          return sum
        })
        for (const other of columns) {
          const along = column.reduce((sum, x, i) => sum + x * other[i]!, 0)
          column = column.map((x, i) => x - along * other[i]!)
        }
        const size = Math.hypot(...column)
        columns.push(column.map((x) => x / size))
      }
      const factors = matrices.map((matrix) =>
        columns.map((column) =>
          Array.from({ length: n }, (_, j) =>
            column.reduce((sum, x, i) => sum + x * matrix[at + i * n + j]!, 0),
          ),
        ),
      )
      for (let i = 0; i < m; i++) {
        for (let j = 0; j < n; j++) {
          for (let k = 0; k < replicas; k++) {
            let said = 0
            for (let c = 0; c < rank; c++) said += columns[c]![i]! * factors[k]![c]![j]!
            this.residuals[k]![at + i * n + j] = matrices[k]![at + i * n + j]! - said
            result[at + i * n + j]! += said / replicas
          }
        }
      }
      for (let j = 0; j < n; j++)
        for (let c = 0; c < rank; c++)
          this.q[right + j * rank + c] = factors.reduce((sum, f) => sum + f[c]![j]! / replicas, 0)
    }
    return result
  }
}

test('compressed gradients equal PowerSGD in plain loops, replica by replica', async () => {
  const config = configOf({
    batch: 2 * replicas,
    // A rate that stays.
    optim: { name: 'sgd', lr, warmup: 0, cooldown: 0 },
    parallel: { compress: 'powersgd', rank: 2 },
    model: { block: 'gpt2' },
  })
  const model = { ...config.model, vocab }
  const program = await reference(config, true)
  const plain = resolveConfig({
    ...config,
    parallel: { ...config.parallel, compress: 'none' },
    mesh: { data: 1 },
    batch: 2,
  })
  const inputs = stepInputs(plain, vocab)
  const gradients = await compile(
    ({ state, tokens, seed }: Tensorised<typeof inputs>) => ({
      grads: gradientsOf(model, state, tokens, seed).grads,
    }),
    inputs,
    { target: 'reference' },
  )
  const types = trainedTypes(model)
  const plainly = new Map(
    Object.entries(types).flatMap(([path, type]) =>
      isCompressed(type, 2)
        ? [[path, new PlainPowerSgd(type.shape, 2, firstFactor(powerStateTypes(type, 2).q, config.seed))]]
        : [],
    ),
  )
  assert.ok(plainly.size > 4 && plainly.size < Object.keys(types).length)
  const params = new Map(
    Object.keys(types).map((path) => [path, Float64Array.from(program.view(`state.params.${path}`))]),
  )
  for (let step = 0; step < config.steps; step++) {
    const { windows, given } = tokensOf(config, step)
    await program.run({ tokens: given, seed: [config.seed] })
    for (const [path, values] of params) gradients.write(`state.params.${path}`, values)
    const own: Map<string, Float64Array>[] = []
    for (let k = 0; k < replicas; k++) {
      await gradients.run({ tokens: windows.slice(2 * k, 2 * k + 2).flat(), seed: [config.seed] })
      own.push(
        new Map([...params.keys()].map((path) => [path, Float64Array.from(gradients.view(`grads.${path}`))])),
      )
    }
    for (const [path, values] of params) {
      const each = own.map((grads) => grads.get(path)!)
      const compressed = plainly.get(path)
      const g = compressed
        ? compressed.step(each)
        : each[0]!.map((_, i) => each.reduce((sum, own) => sum + own[i]! / replicas, 0))
      values.forEach((value, i) => (values[i] = value - lr * g[i]!))
      near(program.view(`state.params.${path}`), values, path)
      if (!compressed) continue
      near(program.view(`state.compress.${path}.q`), compressed.q, `factor of ${path}`)
      near(
        program.view(`state.compress.${path}.residual`),
        compressed.residuals.flatMap((residual) => Array.from(residual)),
        `residual of ${path}`,
      )
    }
  }
})

const techniques: Readonly<Record<string, LanguageOverrides>> = {
  'local steps': { batch: 16, parallel: { local: 4 } },
  'compressed gradients': { batch: 4, parallel: { compress: 'powersgd', rank: 2 } },
}

/** Bytes of all parameters' gradients. */
const wholeBytes = (config: LanguageConfig): number =>
  outerBytes(Object.values(trainedTypes({ ...config.model, vocab })), 1).round

for (const [name, overrides] of Object.entries(techniques)) {
  test(`${name} on threads: bytes as predicted, the bits of one device, a loss that falls`, async () => {
    const optim = { name: 'adamw', lr: 0.02, warmup: 0 } as const
    const config = configOf({ ...overrides, steps: 12, optim })
    const program = await compileStep(config, vocab)
    const { body, inputs } = stepSource(config, vocab)
    const one = await compile(body, inputs, compileOptions(config, { name: 'one-device' }))
    try {
      initialise(program, config, vocab)
      initialise(one, config, vocab)
      const { given } = tokensOf(config, 0)
      const losses: number[] = []
      for (let step = 0; step < config.steps; step++) {
        await program.run({ tokens: given, seed: [1] })
        await one.run({ tokens: given, seed: [1] })
        losses.push(program.view('loss')[0]!)
      }
      for (const path of one.outputs.keys()) assert.deepEqual(program.view(path), one.view(path), path)
      assert.ok(losses.at(-1)! < 0.9 * losses[0]!, `losses ${losses.join()}`)
      program.checkReplicas()
      const counted = program
        .traffic()
        .reduce((sum, { bytesSent }) => sum + bytesSent.flat().reduce((a, b) => a + b, 0), 0)
      const [{ ranks, traffic }] = trafficOfCut(program.cut!) as [ReturnType<typeof trafficOfCut>[number]]
      assert.equal(counted / config.steps, ranks.length * sentBytes(traffic))
      // Between two ranks, 2 (d - 1) / d is 1. What is small besides: loss, norm, rate.
      const types = Object.values(trainedTypes({ ...config.model, vocab }))
      const sent = config.parallel.local > 0 ? wholeBytes(config) : powerSgdBytes(types, config.parallel.rank)
      const numbers = counted / config.steps / ranks.length - sent
      assert.ok(numbers >= 0 && numbers <= 16, `${numbers} bytes besides`)
      // Of data parallelism without either, which sends all gradients for each of the same number of steps.
      const share = (sent + numbers) / (wholeBytes(config) * Math.max(1, config.parallel.local))
      assert.ok(share < 0.4, `${share} of the bytes`)
    } finally {
      program.close()
      one.close()
    }
  })

  test(`${name}: a resumed run has the bits of one that never stopped`, async () => {
    const config = configOf({ ...overrides, steps: 6 })
    const folder = mkdtempSync(join(tmpdir(), 'anneal-replicas-'))
    const open = async (): Promise<Program> => {
      const program = await compileStep(config, vocab)
      initialise(program, config, vocab)
      return program
    }
    const [program, resumed] = [await open(), await open()]
    try {
      const saved: CheckpointFile[] = []
      const settings = {
        runDir: folder,
        segment: 1,
        keep: 1,
        saved: (file: CheckpointFile) => saved.push(file),
      }
      const saver = openSaver(program, settings)
      for (let step = 0; step < 6; step++) {
        if (step === 3) await saver.save(step, {})
        await program.run({ tokens: tokensOf(config, step).given, seed: [1] })
      }
      await saver.close()
      await loadCheckpoint(join(folder, saved[0]!.file), resumed, (path) => `state.${path}`)
      for (let step = 3; step < 6; step++)
        await resumed.run({ tokens: tokensOf(config, step).given, seed: [1] })
      for (const path of program.outputs.keys())
        assert.deepEqual(resumed.view(path), program.view(path), path)
    } finally {
      program.close()
      resumed.close()
      rmSync(folder, { recursive: true, force: true })
    }
  })
}

test('what does not go together is refused in one line, and replicas stay as they are', () => {
  const refused: readonly (readonly [LanguageOverrides, RegExp])[] = [
    [{ parallel: { local: 2, compress: 'powersgd' }, batch: 8 }, /parallel.local=2 with parallel.compress/],
    [{ parallel: { local: 2 }, mesh: { data: 1 } }, /mesh.data=1/],
    [{ parallel: { local: 2, zero: 1 } }, /parallel.zero=1/],
    [{ parallel: { compress: 'powersgd' }, precision: 'fp16' }, /precision=fp16/],
    [{ parallel: { compress: 'powersgd' }, mesh: { pipe: 2 } }, /mesh.pipe=2/],
    [{ parallel: { local: 3 }, batch: 16 }, /parallel.local=3/],
  ]
  for (const [overrides, message] of refused) assert.throws(() => configOf(overrides), message)
  const config = configOf({ batch: 16, parallel: { local: 2 } })
  requireSameReplicas(config, configOf({ batch: 32, parallel: { local: 4 } }))
  assert.throws(() => requireSameReplicas(config, configOf({})), /parallel.local/)
  assert.throws(
    () => requireSameReplicas(config, configOf({ batch: 16, parallel: { local: 2 }, mesh: { data: 4 } })),
    /mesh.data/,
  )
  // Without a batch of one's own, it is that of all steps.
  assert.equal(configOf({ parallel: { local: 4 } }).batch, 64)
})
