/**
 * A parallel plan proved before it is trusted with a run: the plan and one device take the same steps on the same data,
 * and everything they hold afterwards is compared. Twice: in float64 on simulated ranks, where only a mistake in the plan
 * can make a difference (the model is cut down, its structure and the mesh are not), and in the run's own precision and
 * size on ranks that are threads, where memory and bytes sent are counted, too.
 */
import { compile, type Program } from '../compiler/index.ts'
import { philoxUniform } from '../compiler/graph/philox.ts'
import { failure } from '../errors.ts'
import { resolveConfig, type LanguageConfig } from '../models/language/config.ts'
import { compileOptions, initialise, stepSource } from './programs.ts'
import { parallelOptions, planOf, ranksOfRun, scheduleOf } from './parallel.ts'

/** The largest difference of one result, relative to its largest element. */
export interface Difference {
  readonly path: string
  readonly relative: number
}

export interface Comparison {
  readonly config: LanguageConfig
  readonly steps: number
  readonly ranks: number
  /** Every result, the worst first. */
  readonly differences: readonly Difference[]
  /** Relative difference of the loss at each step. */
  readonly losses: readonly number[]
  readonly sameBits: boolean
  /** Median seconds of a step, after the first. */
  readonly seconds: { readonly one: number; readonly plan: number }
  /** Arena of a rank, and of the one device; none in float64. */
  readonly arenaBytes: { readonly one: number; readonly plan: number }
  /** What the ranks counted as sent, all together, a step. */
  readonly traffic: ReturnType<Program['traffic']>
}

/** In float64, differences come from the order of additions alone. */
export const exactWithin = 1e-11

/** The same plan on a model small enough for the interpreter. */
export function cutDown(config: LanguageConfig): LanguageConfig {
  const { model, mesh, parallel, accumulate } = config
  const stages = mesh.pipe > 1 ? scheduleOf(config).stages : 1
  const window = 2 * mesh.context
  const local = Math.min(2, parallel.local)
  const rows = mesh.data * mesh.expert * accumulate * Math.max(1, local)
  return resolveConfig({
    ...config,
    precision: 'f32',
    batch: rows,
    model: {
      ...model,
      layers: Math.max(2, stages),
      width: model.heads * 4,
      context: window * Math.max(1, Math.min(4, Math.floor(model.context / window))),
    },
    // Thin enough for matrices of that width.
    parallel: { ...parallel, local, rank: Math.min(parallel.rank, model.heads) },
  })
}

/** Both programs after `steps` steps from one start on the same random tokens. */
export async function comparePlan(
  config: LanguageConfig,
  vocab: number,
  { steps, target }: { readonly steps: number; readonly target: 'reference' | 'c' },
  progress: (done: number, of: number) => void = () => {},
): Promise<Comparison> {
  if (planOf(config).mesh.length === 0) {
    throw failure({
      where: 'prove',
      got: 'a mesh of one device',
      expected: 'a plan with at least two ranks',
      fix: 'add for example mesh.data=2 or mesh.tensor=2',
    })
  }
  const { name, inputs, body } = stepSource(config, vocab)
  const options = compileOptions(config, { name, target })
  const one = await compile(body, inputs, options)
  const plan = await compile(body, inputs, { ...options, ...parallelOptions(config, vocab) })
  try {
    const tokensOf = (step: number): Int32Array =>
      Int32Array.from({ length: config.batch * (config.model.context + 1) }, (_, i) =>
        Math.floor(philoxUniform({ seed: config.seed, step, stream: 0, salt: 0 }, i) * vocab),
      )
    for (const program of [one, plan]) initialise(program, config, vocab)
    const losses: number[] = []
    const times: { one: number[]; plan: number[] } = { one: [], plan: [] }
    for (let step = 0; step < steps; step++) {
      const given = { tokens: tokensOf(step), seed: [config.seed] }
      for (const [which, program] of [
        ['one', one],
        ['plan', plan],
      ] as const) {
        const started = performance.now()
        await program.run(given)
        times[which].push((performance.now() - started) / 1000)
      }
      const [want, got] = [one.view('loss')[0]!, plan.view('loss')[0]!]
      losses.push(Math.abs(want - got) / Math.abs(want))
      progress(step + 1, steps)
    }
    const differences = [...one.outputs.keys()]
      .map((path) => ({ path, relative: difference(one.view(path), plan.view(path)) }))
      .toSorted((a, b) => b.relative - a.relative)
    return {
      config,
      steps,
      ranks: ranksOfRun(config),
      differences,
      losses,
      sameBits: differences.every(({ relative }) => relative === 0),
      seconds: { one: median(times.one), plan: median(times.plan) },
      arenaBytes: { one: one.memory.arenaBytes, plan: plan.memory.arenaBytes },
      traffic: plan.traffic(),
    }
  } finally {
    plan.close()
    one.close()
  }
}

function difference(want: ArrayLike<number>, got: ArrayLike<number>): number {
  let [scale, worst] = [0, 0]
  for (let i = 0; i < want.length; i++) {
    scale = Math.max(scale, Math.abs(want[i]!))
    worst = Math.max(worst, Math.abs(want[i]! - got[i]!))
  }
  return worst === 0 ? 0 : worst / Math.max(scale, Number.MIN_VALUE)
}

/** Of all but the first, which also pays for cold memory. */
const median = (times: readonly number[]): number => {
  const sorted = times.slice(times.length > 1 ? 1 : 0).toSorted((a, b) => a - b)
  return sorted[sorted.length >> 1] ?? 0
}
