/**
 * Every plan computes what one device computes: a training step, partitioned and run on simulated ranks in float64,
 * against the same step on one device. All of it: loss, norm, parameters and optimizer state.
 */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { compile, type CompileOptions, type Program } from '../src/compiler/index.ts'
import { convNet } from './conv-net.ts'
import type { LanguageOverrides } from '../src/models/language/config.ts'
import { batchPlaces } from '../src/train/parallel.ts'
import { stepSource, type Source } from '../src/train/programs.ts'
import { assertAgree, configOf, fillInputs, pipelined, productFlops, ran, spread, vocab } from './plans.ts'

const language = (overrides: LanguageOverrides): Source => stepSource(configOf(overrides), vocab)

/** Runs the step on one device and under each plan. */
async function agree(
  source: Pick<Source, 'inputs' | 'body'>,
  plans: readonly string[],
  within: number,
  common: CompileOptions = {},
  see: (plan: string, one: Program, many: Program) => void = () => {},
): Promise<void> {
  const one = await ran(source, common)
  for (const plan of plans) {
    const many = await ran(source, { ...common, parallel: spread(plan) })
    assertAgree(plan, one, many, within)
    see(plan, one, many)
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
  'data=2 context=2 attention=ring',
  'data=4 tensor=2 zero=3',
  'data=2 tensor=4 zero=2 sequence',
  'data=2 context=4 zero=1 attention=ring',
  'data=2 context=2 tensor=2 zero=1 sequence',
  'data=2 context=2 tensor=2 zero=3 sequence attention=ring',
]

/** What a model has besides: some of the plans will do. */
const fewer = plans.filter((_, i) => i % 3 === 2)

const models = {
  modern: { overrides: {}, plans },
  gpt2: { overrides: { model: { block: 'gpt2' } }, plans },
  'grouped heads, dropout': {
    overrides: { model: { kvHeads: 2, dropout: 0.2 } },
    plans: [...fewer.filter((plan) => !plan.includes('tensor=4')), 'data=2 tensor=2 sequence'],
  },
  muon: { overrides: { optim: { name: 'muon' } }, plans: [...fewer, 'data=2 zero=1'] },
  accumulation: { overrides: { accumulate: 2 }, plans: fewer.filter((plan) => !plan.includes('data=4')) },
} as unknown as Readonly<Record<string, { overrides: LanguageOverrides; plans: readonly string[] }>>

for (const [name, { overrides, plans }] of Object.entries(models)) {
  test(`${name}: every plan equals one device`, () => agree(language(overrides), plans, 1e-11))
}

test('six ranks, and widths that are no powers of two', async () => {
  const overrides = { batch: 6, model: { heads: 3, kvHeads: 3, width: 24, context: 12 } }
  await agree(
    language(overrides as LanguageOverrides),
    ['data=3 tensor=2 zero=1', 'data=3 zero=3', 'tensor=3 sequence', 'context=3 data=2 attention=ring'],
    1e-11,
  )
})

test('a convolutional network: every plan equals one device, and no product is computed twice', async () => {
  const spatial = plans.filter((plan) => !plan.includes('context'))
  for (const accumulate of [1, 2]) {
    await agree(convNet({ accumulate }), spatial, 1e-11, {}, (plan, one, many) =>
      assert.equal(productFlops(many), productFlops(one), plan),
    )
  }
})

test('data-parallel widths 1, 2, 4 and 8 give the same bits', async () => {
  const widths = ['data=2', 'data=4', 'data=8']
  for (const name of ['modern', 'gpt2', 'muon']) {
    await agree(language({ ...models[name]!.overrides, batch: 8 }), widths, 0, { leaves: 8 })
  }
})

test('accumulated microbatches are one big batch, and recomputing changes no bit', async () => {
  for (const block of ['modern', 'gpt2']) {
    const sized = (accumulate: number): Source =>
      language({ accumulate, model: { block } } as LanguageOverrides)
    // The same examples, cut into microbatches.
    const whole = await ran(sized(1), {})
    for (const accumulate of [2, 4]) {
      assertAgree(`${accumulate} microbatches`, whole, await ran(sized(accumulate), {}), 1e-11)
    }
    for (const plan of [null, 'data=2 tensor=2 zero=2', 'context=2 tensor=2 attention=ring']) {
      const parallel = plan === null ? {} : { parallel: spread(plan) }
      const kept = await ran(sized(1), { recompute: false, ...parallel })
      const made = await ran(sized(1), { recompute: true, ...parallel })
      assertAgree(`recomputing, ${plan}`, kept, made, 0)
      assert.ok(made.flops > kept.flops)
    }
  }
})

test('pipelines equal gradient accumulation on one device, alone and with other axes', async () => {
  const cases = [
    ['pipe=2', 'gpipe', 1],
    ['pipe=4', '1f1b', 1],
    ['pipe=2', 'interleaved', 2],
    ['data=2 pipe=2 tensor=2 zero=1 sequence', '1f1b', 1],
    ['pipe=2 data=2', '1f1b', 1],
    ['pipe=4 data=2 zero=1', '1f1b', 1],
    ['pipe=2 data=2 zero=1', 'interleaved', 2],
    ['pipe=2 data=2 zero=2', 'zb-h1', 1],
    ['pipe=2 data=2 zero=3', '1f1b', 1],
    ['pipe=2 tensor=2 sequence', 'gpipe', 1],
    ['pipe=2 tensor=4', 'dualpipe-v', 1],
    ['pipe=2 context=2 attention=ring', 'gpipe', 1],
    ['pipe=2 context=2 data=2 attention=ring', 'zb-h2', 1],
    ['pipe=2 context=2 tensor=2 sequence attention=ring', 'dualpipe-v', 1],
    ['pipe=2 context=2 tensor=2 attention=heads', 'interleaved', 2],
  ] as const
  for (const [at, block] of (['modern', 'gpt2'] as const).entries()) {
    const config = configOf({ batch: 8, accumulate: 4, model: { layers: 4, block } } as LanguageOverrides)
    const source = stepSource(config, vocab)
    const one = await ran(source, {})
    for (const [plan, name, stagesPerRank] of cases.filter((_, i) => i < 4 || i % 2 === at)) {
      const many = await ran(source, { parallel: pipelined(config, plan, name, stagesPerRank) })
      assertAgree(`${block} ${plan} ${name}`, one, many, 1e-11)
    }
  }
})

test('a mixture of experts: every plan equals one device, its experts on several ranks or not', async () => {
  const over = [
    'expert=2',
    'expert=4',
    'data=2 expert=2 zero=2',
    'expert=2 tensor=2 zero=1',
    'context=2 expert=2',
  ]
  const few = ['data=4', 'data=2 zero=3', 'tensor=2', 'data=2 context=2 tensor=2 zero=1 sequence', ...over]
  const mixtures = [
    { balance: 'bias', sharedExperts: 1 },
    { balance: 'loss', routing: 'sigmoid' },
  ] as const
  for (const settings of mixtures) {
    const source = language({ model: { experts: 4, topK: 2, ...settings } } as LanguageOverrides)
    await agree(source, few, 1e-11)
  }
})

test('the same bits however a batch is spread over ranks and microbatches', async () => {
  const steps = async (data: number, accumulate: number): Promise<Map<string, number[]>> => {
    const config = configOf({ batch: 8, accumulate, mesh: { data } } as LanguageOverrides)
    const { body, inputs } = stepSource(config, vocab)
    const program = await compile(body, inputs, {
      target: 'reference',
      leaves: 8,
      ...(data > 1 ? { parallel: spread(`data=${data}`) } : {}),
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
