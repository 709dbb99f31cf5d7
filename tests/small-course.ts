/** A small training run for tests of native ranks: twenty steps of a tiny language model on a pattern. */
import { compile, sizeOf, type CompileOptions, type Program } from '../src/compiler/index.ts'
import { resolveConfig } from '../src/models/language/config.ts'
import { parallelOf } from '../src/parallel/plan.ts'
import { makeSchedule } from '../src/parallel/schedule/index.ts'
import { pipelineSources } from '../src/train/pipeline.ts'
import { initialise, stepSource } from '../src/train/programs.ts'
import { planOf } from './plans.ts'

export const vocab = 16
export const steps = 20
export const config = resolveConfig({
  batch: 4,
  steps,
  optim: { name: 'adamw', lr: 0.01 },
  model: { layers: 2, width: 16, heads: 4, kvHeads: 4, context: 8, dropout: 0.1 },
})
const source = stepSource(config, vocab)

/** Several techniques at once, on four ranks of one thread. */
export const rankedOptions = { threads: 1, parallel: parallelOf(planOf('data=2 tensor=2 zero=2 sequence')) }

/** Tokens of one step: a pattern that can be learned. */
export const tokensOf = (step: number): Int32Array =>
  Int32Array.from({ length: config.batch * (config.model.context + 1) }, (_, i) => (3 * i + 5 * step) % vocab)

export const compileSmall = (options: CompileOptions): Promise<Program> =>
  compile(source.body, source.inputs, options)

export interface Course {
  readonly losses: readonly number[]
  readonly state: ReadonlyMap<string, readonly number[]>
}

/** Trains from the beginning. */
export function train(program: Program): Course {
  for (const [path, { shape }] of program.inputs) program.write(path, new Float32Array(sizeOf(shape)))
  initialise(program, config, vocab)
  const losses: number[] = []
  for (let step = 0; step < steps; step++) {
    program.write('tokens', tokensOf(step))
    program.write('seed', [7])
    program.runBlocking()
    losses.push(program.view('loss')[0]!)
  }
  const paths = [...program.outputs.keys()].filter((path) => path.startsWith('state.'))
  return { losses, state: new Map(paths.map((path) => [path, Array.from(program.view(path))])) }
}

export async function course(options: CompileOptions): Promise<Course> {
  const program = await compileSmall(options)
  try {
    return train(program)
  } finally {
    program.close()
  }
}

/**
 * Losses of a pipeline of two stages, each cut in two as well, over microbatches; null where this process has none.
 */
export async function pipelineLosses(transport: 'threads' | 'mpi'): Promise<readonly (number | null)[]> {
  const many = resolveConfig({
    batch: 8,
    accumulate: 4,
    steps,
    optim: { name: 'adamw', lr: 0.01 },
    model: { layers: 2, width: 16, heads: 4, kvHeads: 4, context: 8 },
  })
  const { mesh } = planOf('pipe=2 tensor=2')
  const schedule = makeSchedule('1f1b', { ranks: 2, microbatches: 4, stagesPerRank: 1 })
  const stages = pipelineSources(many, vocab, mesh, 'pipe', schedule)
  const whole = stepSource(many, vocab)
  const parallel = { ...parallelOf(planOf('pipe=2 tensor=2')), pipeline: { axis: 'pipe', stages }, transport }
  const program = await compile(whole.body, whole.inputs, { threads: 1, parallel })
  try {
    initialise(program, many, vocab)
    const losses: (number | null)[] = []
    for (let step = 0; step < 5; step++) {
      const count = sizeOf(program.inputs.get('tokens')!.shape)
      program.write(
        'tokens',
        Int32Array.from({ length: count }, (_, i) => (3 * i + 5 * step) % vocab),
      )
      program.write('seed', [7])
      program.runBlocking()
      losses.push(program.pieces('loss')[0]?.data[0] ?? null)
    }
    return losses
  } finally {
    program.close()
  }
}
