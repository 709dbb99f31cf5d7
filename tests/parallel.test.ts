/**
 * Every plan computes what one device computes: a training step, partitioned and run on simulated ranks in float64,
 * against the same step on one device. All of it: loss, norm, parameters and optimizer state.
 */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import type { Mesh, MeshAxis } from '../src/compiler/graph/mesh.ts'
import { compile, sizeOf, type CompileOptions, type Program } from '../src/compiler/index.ts'
import { resolveConfig, type LanguageConfig, type LanguageOverrides } from '../src/models/language/config.ts'
import { stepSource, type Source } from '../src/train/programs.ts'
import type { Parallel } from '../src/compiler/ranked.ts'
import { parallelOf } from '../src/parallel/plan.ts'
import { makeSchedule } from '../src/parallel/schedule/index.ts'
import { batchPlaces } from '../src/train/parallel.ts'
import { pipelineSources } from '../src/train/pipeline.ts'
import { planOf } from './plans.ts'

const vocab = 16

const configOf = (overrides: LanguageOverrides): LanguageConfig =>
  resolveConfig({
    batch: 4,
    steps: 10,
    ...overrides,
    model: { layers: 2, width: 16, heads: 4, kvHeads: 4, context: 8, ...overrides.model },
  } as LanguageOverrides)

const language = (overrides: LanguageOverrides): Source => stepSource(configOf(overrides), vocab)

/** Deterministic values of a sensible kind for every input. */
function fillInputs(program: Program): void {
  let seed = 1
  const random = (): number => (seed = (seed * 16807) % 2147483647) / 2147483647
  for (const [path, { dtype, shape }] of program.inputs) {
    const values = Array.from({ length: sizeOf(shape) }, () =>
      path === 'tokens'
        ? Math.floor(random() * vocab)
        : dtype === 'i32'
          ? 3
          : path.endsWith('.v')
            ? random() / 10
            : random() - 0.5,
    )
    program.write(path, values)
  }
}

async function agrees(
  source: Source,
  plan: string,
  {
    within,
    pipeline,
    mesh,
    ...common
  }: CompileOptions & {
    readonly within: number
    readonly pipeline?: Parallel['pipeline']
    readonly mesh?: Mesh
  },
): Promise<void> {
  const run = async (options: CompileOptions): Promise<Program> => {
    const program = await compile(source.body, source.inputs, { target: 'reference', ...common, ...options })
    fillInputs(program)
    program.runBlocking()
    return program
  }
  const one = await run({})
  const many = await run({
    parallel: {
      ...parallelOf({ ...planOf(plan), ...(mesh ? { mesh } : {}) }),
      ...(pipeline ? { pipeline } : {}),
    },
  })
  for (const path of one.outputs.keys()) {
    const [want, got] = [Array.from(one.view(path)), Array.from(many.view(path))]
    const scale = want.reduce((most, x) => Math.max(most, Math.abs(x)), 1e-3)
    const worst = want.reduce((most, x, i) => Math.max(most, Math.abs(x - got[i]!) / scale), 0)
    assert.ok(worst <= within, `${plan}: ${path} differs by ${worst}`)
  }
}

const plans = [
  'data=2',
  'data=4',
  'data=2 zero=1',
  'data=4 zero=2',
  'data=2 zero=3',
  'tensor=2',
  'tensor=4 sequence',
  'context=2',
  'context=2 attention=heads',
  'context=4 attention=ring',
  'context=2 tensor=2 sequence attention=ring',
  'context=2 tensor=2 attention=heads',
  'data=2 tensor=2',
  'data=2 tensor=2 zero=3 sequence',
  'data=2 context=2 zero=2',
  'data=2 context=2 tensor=2 zero=1 sequence',
]

const models: Readonly<Record<string, LanguageOverrides>> = {
  modern: {},
  gpt2: { model: { block: 'gpt2' } },
  'grouped heads, dropout': { model: { kvHeads: 2, dropout: 0.2 } },
  muon: { optim: { name: 'muon' } },
  accumulation: { accumulate: 2 },
  recompute: {},
} as unknown as Readonly<Record<string, LanguageOverrides>>

for (const [name, overrides] of Object.entries(models)) {
  const source = language(overrides)
  test(`${name}: every plan equals one device`, async () => {
    for (const plan of plans) {
      const impossible =
        (name === 'accumulation' && plan.startsWith('data=4')) ||
        (name.startsWith('grouped') && plan.startsWith('tensor=4'))
      if (!impossible) await agrees(source, plan, { recompute: name === 'recompute', within: 1e-11 })
    }
  })
}

test('experts: every plan equals one device, with experts spread over ranks or not', async () => {
  const spread = ['expert=2', 'expert=4', 'data=2 expert=2 zero=2', 'expert=2 tensor=2', 'context=2 expert=2']
  const few = ['data=4', 'data=2 zero=3', 'tensor=2', 'data=2 context=2 tensor=2 zero=1 sequence', ...spread]
  const mixtures = [
    { balance: 'bias', sharedExperts: 1 },
    { balance: 'loss', routing: 'sigmoid' },
  ] as const
  for (const settings of mixtures) {
    const source = language({ model: { experts: 4, topK: 2, ...settings } })
    for (const plan of few) await agrees(source, plan, { within: 1e-11 })
  }
})

test('data-parallel widths 1, 2, 4 and 8 give the same bits', async () => {
  for (const name of ['modern', 'gpt2', 'muon']) {
    const source = language({ ...models[name], batch: 8 })
    for (const plan of ['data=2', 'data=4', 'data=8']) await agrees(source, plan, { leaves: 8, within: 0 })
  }
})

test('pipelines equal gradient accumulation on one device, alone and with other axes', async () => {
  const cases = [
    ['pipe=2', 'gpipe', 1],
    ['pipe=2', '1f1b', 1],
    ['pipe=4', '1f1b', 1],
    ['pipe=2', 'interleaved', 2],
    ['pipe=2 data=2', '1f1b', 1],
    ['data=2 pipe=2 tensor=2 zero=1 sequence', '1f1b', 1],
    ['pipe=2 context=2 attention=ring', 'gpipe', 1],
  ] as const
  for (const block of ['modern', 'gpt2'] as const) {
    const config = configOf({ batch: 8, accumulate: 4, model: { layers: 4, block } } as LanguageOverrides)
    for (const [plan, name, stagesPerRank] of cases) {
      const { mesh } = planOf(plan)
      const { size } = mesh.find((axis) => axis.name === 'pipe')!
      const schedule = makeSchedule(name, { ranks: size, microbatches: 4, stagesPerRank })
      const stages = pipelineSources(config, vocab, mesh, 'pipe', schedule)
      const pipe: MeshAxis = { name: 'pipe', size, ...(stagesPerRank > 1 ? { order: stagesPerRank } : {}) }
      const ordered = mesh.map((axis) => (axis.name === 'pipe' ? pipe : axis))
      await agrees(stepSource(config, vocab), `${plan} ${name}`, {
        within: 1e-11,
        pipeline: { axis: 'pipe', stages },
        mesh: ordered,
      })
    }
  }
})

test('a mixture of experts equals one device, its experts on several ranks or not', async () => {
  for (const balance of ['bias', 'loss'] as const) {
    const model = { experts: 4, topK: 2, sharedExperts: 1, balance }
    const source = language({ batch: 4, model } as unknown as LanguageOverrides)
    for (const plan of [
      'data=2',
      'expert=2',
      'expert=4',
      'data=2 expert=2',
      'expert=2 tensor=2 zero=1',
      'data=2 expert=2 context=2 zero=3',
    ])
      await agrees(source, plan, { within: 1e-11 })
  }
})

test('the same bits however a batch is spread over ranks and microbatches', async () => {
  const steps = async (data: number, accumulate: number): Promise<Map<string, number[]>> => {
    const config = configOf({ batch: 8, accumulate, mesh: { data } } as LanguageOverrides)
    const { body, inputs } = stepSource(config, vocab)
    const program = await compile(body, inputs, {
      target: 'reference',
      leaves: 8,
      ...(data > 1 ? { parallel: parallelOf(planOf(`data=${data}`)) } : {}),
    })
    fillInputs(program)
    const tokens = Array.from(program.view('tokens'))
    const width = config.model.context + 1
    const placed = tokens.slice()
    batchPlaces(config).forEach((place, window) => {
      for (let i = 0; i < width; i++) placed[place * width + i] = tokens[window * width + i]!
    })
    program.write('tokens', placed)
    program.runBlocking()
    return new Map([...program.outputs.keys()].map((path) => [path, Array.from(program.view(path))]))
  }
  const want = await steps(1, 1)
  for (const [data, accumulate] of [
    [2, 2],
    [4, 2],
    [2, 4],
    [1, 8],
  ] as const)
    assert.deepEqual(await steps(data, accumulate), want, `data=${data}, ${accumulate} microbatches`)
})
