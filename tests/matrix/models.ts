/**
 * The models of the matrix: a language model, a mixture of experts, a convolutional net, each as small as its structure
 * allows, and what a training step of each is given. All are run by the settings of a run, as a user would give them.
 */
import { philoxUniform } from '../../src/compiler/graph/philox.ts'
import { compile, sizeOf, type CompileOptions, type Program } from '../../src/compiler/index.ts'
import {
  resolveConfig,
  type LanguageConfig,
  type LanguageOverrides,
} from '../../src/models/language/config.ts'
import { parallelOf } from '../../src/parallel/plan.ts'
import { parallelOptions, planOf } from '../../src/train/parallel.ts'
import {
  compileOptions,
  initialise,
  memoryOptions,
  stepSource,
  type Source,
} from '../../src/train/programs.ts'
import { classes, convNet } from '../conv-net.ts'

export const vocab = 16

export type ModelName = 'language' | 'mixture' | 'convolutions'

interface Model {
  readonly overrides: LanguageOverrides['model']
  readonly source: (config: LanguageConfig) => Pick<Source, 'inputs' | 'body'>
  readonly parallel: (config: LanguageConfig) => Pick<CompileOptions, 'parallel'>
  readonly start: (program: Program, config: LanguageConfig) => void
  /** What a step is given. */
  readonly batch: (
    program: Program,
    config: LanguageConfig,
    step: number,
  ) => Readonly<Record<string, number[]>>
}

/** Uniform numbers in [0, 1), a stream for each use. */
const uniforms = (count: number, step: number, stream: number): number[] =>
  Array.from({ length: count }, (_, i) => philoxUniform({ seed: 5, step, stream, salt: 0 }, i))

const ofText: Pick<Model, 'source' | 'parallel' | 'start' | 'batch'> = {
  source: (config) => stepSource(config, vocab),
  parallel: (config) => parallelOptions(config, vocab),
  start: (program, config) => initialise(program, config, vocab),
  // A pattern that can be learned, with a window's start drawn.
  batch: (program, { model: { context }, seed }, step) => ({
    tokens: uniforms(sizeOf(program.inputs.get('tokens')!.shape) / (context + 1), step, 0).flatMap((u) =>
      Array.from({ length: context + 1 }, (_, i) => (Math.floor(u * vocab) + 3 * i) % vocab),
    ),
    seed: [seed],
  }),
}

const text = { layers: 4, width: 16, heads: 4, context: 8 } as const

export const models: Readonly<Record<ModelName, Model>> = {
  language: { overrides: { ...text, kvHeads: 4 }, ...ofText },
  mixture: {
    overrides: { ...text, layers: 2, kvHeads: 4, experts: 4, topK: 2, sharedExperts: 1 },
    ...ofText,
  },
  convolutions: {
    overrides: text,
    source: ({ batch, accumulate, optim }) => convNet({ batch, accumulate, optimizer: optim.name }),
    parallel(config) {
      const plan = planOf(config)
      return plan.mesh.length === 0 ? {} : { parallel: parallelOf(plan) }
    },
    start(program) {
      let stream = 10
      for (const [path, { shape }] of program.inputs) {
        if (!path.startsWith('state.params.')) continue
        const values = uniforms(sizeOf(shape), 0, stream++).map((u) => u - 0.5)
        program.write(path, path.endsWith('norm') ? values.fill(1) : values)
      }
    },
    // Which class an image is of shows in its first channel.
    batch(program, _, step) {
      const size = sizeOf(program.inputs.get('images')!.shape)
      const count = sizeOf(program.inputs.get('labels')!.shape)
      const labels = uniforms(count, step, 0).map((u) => Math.floor(u * classes))
      const noise = uniforms(size, step, 1)
      const images = noise.map((u, i) => u - 0.5 + labels[Math.floor((i * count) / size)]! / classes)
      return { images, labels }
    },
  },
}

/** The settings of a run of a model. */
export const settingsOf = (name: ModelName, overrides: LanguageOverrides): LanguageConfig =>
  resolveConfig({
    batch: 24,
    steps: 100,
    threads: 1,
    ...overrides,
    optim: { name: 'adamw', ...overrides.optim },
    model: { ...models[name].overrides, ...overrides.model },
  } as LanguageOverrides)

/** The training step of a run, with its first state. */
export async function opened(
  name: ModelName,
  config: LanguageConfig,
  options: CompileOptions = {},
): Promise<Program> {
  const { source, parallel, start } = models[name]
  const { inputs, body } = source(config)
  const program = await compile(body, inputs, {
    ...compileOptions(config, { name: `matrix-${name}`, ...memoryOptions(config), ...options }),
    ...parallel(config),
  })
  start(program, config)
  return program
}

/** Takes steps; the loss of each. */
export function losses(name: ModelName, program: Program, config: LanguageConfig, steps: number): number[] {
  return Array.from({ length: steps }, (_, step) => {
    const given = models[name].batch(program, config, step)
    for (const [path, values] of Object.entries(given)) program.write(path, values)
    program.runBlocking()
    return program.view('loss')[0]!
  })
}
