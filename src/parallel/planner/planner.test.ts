/** The planner: costs that are on a line, reasons for refusal, a ranking that repeats itself, and the table of the guide. */
import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { test } from 'node:test'
import { resolveConfig, type LanguageOverrides } from '../../models/language/config.ts'
import { hardwareByName } from '../hardware/index.ts'
import { candidates, defaultSchedules, ranksOfCandidate, refusal, type Candidate } from './candidate.ts'
import { CostReader } from './layer-costs.ts'
import { modelByName, parameterCount, plannedLanguage } from './models.ts'
import { planCosts } from './predict.ts'
import { publishedTable } from './published.ts'
import { searchPlans } from './search.ts'

const hardware = hardwareByName('h100')
const small = plannedLanguage(
  resolveConfig({
    batch: 16,
    model: { layers: 4, width: 64, heads: 4, kvHeads: 4, context: 64 },
    optim: { name: 'adamw' },
  } as LanguageOverrides),
  64,
)
const space = { ranks: 8, globalBatch: 16, node: 4, leastPiece: 16, schedules: defaultSchedules }

const alone = { context: 1, tensor: 1, sequence: false, attention: 'ring' } as const

test('sizes are those published', () => {
  const counts = { 'gpt3-175b': 175e9, 'llama3-8b': 8.03e9, 'llama3-70b': 70.6e9, 'llama3-405b': 405.9e9 }
  for (const [name, count] of Object.entries(counts)) {
    assert.ok(Math.abs(parameterCount(modelByName(name)) / count - 1) < 0.005, name)
  }
})

test('products of a layer are those of its matrices, three times over; attention goes by visible pairs', () => {
  const { layer, modelFlops, parameters } = new CostReader(small).costs(2, alone)
  const tokens = 2 * 64
  const flops = (['F', 'B', 'W'] as const).map((phase) =>
    layer[phase].products.reduce((sum, { m, n, k, count }) => sum + 2 * m * n * k * count, 0),
  )
  assert.deepEqual(flops, Array<number>(3).fill(2 * tokens * parameters.layer))
  const pairs = (64 * 65) / 2
  assert.equal(layer.F.attention.forward, 2 * 4 * (pairs * (4 * 16 + 4) + 64 * (2 * 16 + 3)))
  assert.ok(modelFlops > 6 * tokens * (4 * parameters.layer + parameters.head))
})

test('costs of any microbatch lie on the line through two of them', () => {
  const reader = new CostReader(small)
  for (const mesh of [alone, { context: 1, tensor: 2, sequence: true, attention: 'ring' } as const]) {
    for (const microbatch of [1, 3, 8]) {
      const { working: _, ...read } = reader.read(microbatch, mesh)
      const { working: __, ...line } = reader.costs(microbatch, mesh)
      assert.deepEqual(line, read)
    }
  }
})

test('candidates are all different, and each has all ranks', () => {
  const all = [...candidates(small, space)]
  assert.equal(new Set(all.map((plan) => JSON.stringify(plan))).size, all.length)
  assert.ok(all.every((plan) => ranksOfCandidate(plan) === 8))
  const axes = new Set(all.map(({ data, pipe, context, tensor }) => `${data} ${pipe} ${context} ${tensor}`))
  // Ways to write 8 = 2^3 as an ordered product of four.
  assert.equal(axes.size, 20)
})

test('what cannot be is refused with its reason', () => {
  const plan: Candidate = {
    data: 8,
    pipe: 1,
    context: 1,
    tensor: 1,
    zero: 0,
    recompute: false,
    microbatch: 2,
    microbatches: 1,
    schedule: '1f1b',
    stagesPerRank: 1,
    sequence: false,
    attention: 'ring',
  }
  assert.equal(refusal(small, plan, space), null)
  const reasons: readonly [Partial<Candidate>, string][] = [
    [{ tensor: 8, data: 1 }, 'tensor 8 reaches beyond the 4 ranks of a node'],
    [{ tensor: 3 }, '4 key heads over tensor 3'],
    [{ pipe: 8, data: 1 }, '4 layers over 8 stages'],
    [{ context: 8, data: 1 }, 'pieces of 8 tokens, fewer than 16'],
    [{ data: 3 }, '16 windows over data 3'],
    [{ microbatch: 3 }, '2 windows a rank in microbatches of 3'],
    [
      { data: 2, pipe: 4, microbatch: 4, microbatches: 2, schedule: 'interleaved' },
      '2 microbatches in groups of pipe 4',
    ],
  ]
  for (const [change, reason] of reasons) {
    assert.equal(refusal(small, { ...plan, ...change }, space)?.reason, reason)
  }
})

test('a search counts every plan once, fits memory, sorts by time, and repeats itself', () => {
  const search = (memoryBytes?: number) =>
    searchPlans(small, {
      ranks: 8,
      globalBatch: 16,
      hardware,
      leastPiece: 16,
      ...(memoryBytes ? { memoryBytes } : {}),
    })
  const first = search()
  assert.deepEqual(search(), first)
  const refused = first.rejected.reduce((sum, { count }) => sum + count, 0)
  assert.equal(first.considered, first.feasible + refused)
  const seconds = first.plans.map(({ step }) => step.seconds)
  assert.deepEqual(
    seconds,
    seconds.toSorted((a, b) => a - b),
  )
  const tight = search(3e6)
  assert.ok(tight.feasible > 0 && tight.feasible < first.feasible)
  assert.ok(tight.plans.every(({ memory }) => memory.total <= 3e6))
  assert.ok(tight.rejected.some(({ kind }) => kind.startsWith('memory')))
})

test('the estimate chooses well: simulating everything finds no plan more than 2 % faster', () => {
  const options = { ranks: 8, globalBatch: 16, hardware, leastPiece: 16 }
  const some = searchPlans(small, options).plans[0]!.step.seconds
  const all = searchPlans(small, { ...options, simulated: Infinity }).plans[0]!.step.seconds
  assert.ok(all <= some && some <= 1.02 * all, `${some} to ${all}`)
})

test('tensor-parallel collectives of a stage are those of its layers', () => {
  const plan: Candidate = {
    data: 1,
    pipe: 1,
    context: 1,
    tensor: 4,
    zero: 0,
    recompute: false,
    microbatch: 4,
    microbatches: 4,
    schedule: '1f1b',
    stagesPerRank: 1,
    sequence: false,
    attention: 'ring',
  }
  const costs = new CostReader(small).costs(4, plan)
  const [stage] = planCosts({ model: small, plan, costs, hardware }).stages
  const bytes = (stage!.collectives!.F ?? []).reduce((sum, one) => sum + one.bytes * stage!.pieces, 0)
  const residual = 4 * 64 * 64 * 4
  const outside = [...costs.embedding.F.collectives, ...costs.head.F.collectives].reduce(
    (sum, one) => sum + one.bytes,
    0,
  )
  assert.equal(bytes, 4 * 2 * residual + outside)
})

test('the table of the guide is what the planner predicts', () => {
  const guide = readFileSync(new URL('../../../docs/parallel-planner.md', import.meta.url), 'utf8')
  assert.ok(guide.includes(publishedTable()), 'print it anew: node src/parallel/planner/published.ts')
})
