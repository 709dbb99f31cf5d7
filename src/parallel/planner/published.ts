/**
 * Our predictions beside measured figures that others published. The table of docs/parallel-planner.md is printed by this
 * file (`node src/parallel/planner/published.ts`), and a test holds it to that. Nothing in the planner is set for a row.
 */
import { h100 } from '../hardware/gpus.ts'
import type { Hardware } from '../hardware/index.ts'
import { ranksOfCandidate, type Candidate } from './candidate.ts'
import { CostReader } from './layer-costs.ts'
import { rankMemory } from './memory.ts'
import { llama3, modelByName, type PlannedModel } from './models.ts'
import { predict, scheduleOfCandidate, tokensPerSecond } from './predict.ts'
import { searchPlans } from './search.ts'

/** GPUs of torchtitan's report: 96 GB of HBM2e at 2.4 TB/s. */
const h100Of96: Hardware = { ...h100, memoryBytes: 96e9, memoryBandwidth: 2400e9 }

const base: Candidate = {
  data: 1,
  pipe: 1,
  context: 1,
  tensor: 1,
  zero: 1,
  recompute: false,
  microbatch: 1,
  microbatches: 1,
  schedule: '1f1b',
  stagesPerRank: 1,
  sequence: false,
  attention: 'heads',
}

interface Row {
  readonly system: string
  readonly what: string
  readonly model: PlannedModel
  readonly hardware: Hardware
  /** The plan that was run, or ranks and windows a step where it was not published: then our best is taken. */
  readonly plan: Candidate | { readonly ranks: number; readonly globalBatch: number }
  /** Tokens a second and GPU, or the share of the peak. */
  readonly published: { readonly tokens: number } | { readonly utilisation: number }
}

const fp8 = (model: PlannedModel): PlannedModel => ({ ...model, products: 'fp8' })
/** 126 layers do not divide over 8 stages: two more take the places of embedding and head, as stages were evened out. */
const llama405 = llama3('llama3-405b, 128 layers', { layers: 128, width: 16_384, heads: 128 }, 53_248)
const titan70: Candidate = {
  ...base,
  data: 32,
  tensor: 8,
  sequence: true,
  zero: 3,
  recompute: true,
  microbatch: 16,
}
const titan405: Candidate = {
  ...base,
  data: 8,
  pipe: 8,
  tensor: 8,
  sequence: true,
  recompute: true,
  microbatches: 32,
}

/** Sources: torchtitan, benchmarks/llama3_h100_202412_torchtitan.md; Megatron Bridge, docs/performance-summary.md, 25.11, DGX-H100; Megatron-LM, README. */
const rows: readonly Row[] = [
  {
    system: 'torchtitan',
    what: '8B, bf16, FSDP 8',
    model: modelByName('llama3-8b'),
    hardware: h100Of96,
    plan: { ...base, data: 8, zero: 3, microbatch: 2 },
    published: { tokens: 6667 },
  },
  {
    system: 'torchtitan',
    what: '8B, bf16, FSDP 128',
    model: modelByName('llama3-8b'),
    hardware: h100Of96,
    plan: { ...base, data: 128, zero: 3, microbatch: 2 },
    published: { tokens: 6514 },
  },
  {
    system: 'torchtitan',
    what: '70B, fp8, FSDP 32 x TP 8',
    model: fp8(modelByName('llama3-70b')),
    hardware: h100Of96,
    plan: titan70,
    published: { tokens: 829 },
  },
  {
    system: 'torchtitan',
    what: '405B, fp8, FSDP 8 x TP 8 x PP 8, 1F1B',
    model: fp8(llama405),
    hardware: h100Of96,
    plan: titan405,
    published: { tokens: 100 },
  },
  {
    system: 'torchtitan',
    what: '405B, fp8, FSDP 8 x TP 8 x PP 8, interleaved',
    model: fp8(llama405),
    hardware: h100Of96,
    plan: { ...titan405, schedule: 'interleaved', stagesPerRank: 2 },
    published: { tokens: 128 },
  },
  {
    system: 'Megatron Bridge',
    what: '8B, fp8, FSDP 8',
    model: fp8(modelByName('llama3-8b')),
    hardware: h100,
    plan: { ...base, data: 8, zero: 3, microbatches: 16 },
    published: { tokens: 14_451 },
  },
  {
    system: 'Megatron Bridge',
    what: '70B, fp8, DP 2 x TP 4 x PP 8 (5 stages a rank)',
    model: fp8(modelByName('llama3-70b')),
    hardware: h100,
    plan: {
      ...base,
      data: 2,
      pipe: 8,
      tensor: 4,
      sequence: true,
      microbatches: 64,
      schedule: 'interleaved',
      stagesPerRank: 5,
    },
    published: { tokens: 1602 },
  },
  {
    system: 'Megatron Bridge',
    what: '405B, fp8, DP 8 x CP 2 x TP 8 x PP 8 (8 stages a rank)',
    model: fp8(llama405),
    hardware: h100,
    plan: {
      ...base,
      data: 8,
      context: 2,
      attention: 'ring',
      pipe: 8,
      tensor: 8,
      sequence: true,
      microbatches: 64,
      schedule: 'interleaved',
      stagesPerRank: 8,
    },
    published: { tokens: 292 },
  },
  {
    system: 'Megatron-LM',
    what: '175B, bf16, 96 GPUs (plan not published: our best)',
    model: modelByName('gpt3-175b'),
    hardware: h100,
    plan: { ranks: 96, globalBatch: 1152 },
    published: { utilisation: 0.47 },
  },
  {
    system: 'Megatron-LM',
    what: '175B, bf16, 4,608 GPUs (plan not published: our best)',
    model: modelByName('gpt3-175b'),
    hardware: h100,
    plan: { ranks: 4608, globalBatch: 1152 },
    published: { utilisation: 0.42 },
  },
]

export interface Comparison {
  readonly row: Row
  readonly tokens: number
  readonly utilisation: number
  /** Bytes of the fullest rank. */
  readonly memory: number
  /** What we predict to what was measured. */
  readonly ratio: number
}

export function compare(row: Row): Comparison {
  const { plan, published } = row
  const found = 'ranks' in plan ? bestOf(row, plan) : measured(row, plan)
  const ratio =
    'tokens' in published ? found.tokens / published.tokens : found.utilisation / published.utilisation
  return { row, ...found, ratio }
}

function measured({ model, hardware }: Row, plan: Candidate): Omit<Comparison, 'row' | 'ratio'> {
  const costs = new CostReader(model).costs(plan.microbatch, plan)
  const step = predict({ model, plan, costs, hardware })
  return {
    tokens: tokensPerSecond(model, plan, step.seconds) / ranksOfCandidate(plan),
    utilisation: step.utilisation!,
    memory: rankMemory(model, plan, costs, scheduleOfCandidate(plan)).total,
  }
}

function bestOf(
  { model, hardware }: Row,
  { ranks, globalBatch }: { readonly ranks: number; readonly globalBatch: number },
): Omit<Comparison, 'row' | 'ratio'> {
  const [best] = searchPlans(model, { ranks, globalBatch, hardware, simulated: 8 }).plans
  if (!best) return { tokens: 0, utilisation: 0, memory: 0 }
  return {
    tokens: best.tokensPerSecond / ranks,
    utilisation: best.utilisation,
    memory: best.memory.total,
  }
}

/** The table of docs/parallel-planner.md. */
export function publishedTable(): string {
  const percent = (share: number): string => `${(100 * share).toFixed(0)} %`
  const lines = rows.map(compare).map(({ row, tokens, utilisation, memory, ratio }) => {
    const inTokens = 'tokens' in row.published
    const ours = inTokens ? `${tokens.toFixed(0)} tokens/s` : `${percent(utilisation)} MFU`
    const theirs =
      'tokens' in row.published
        ? `${row.published.tokens} tokens/s`
        : `${percent(row.published.utilisation)} MFU`
    return `| ${row.system} | ${row.what} | ${theirs} | ${ours} | ${ratio.toFixed(2)} | ${(memory / 1e9).toFixed(0)} GB |`
  })
  return [
    '| system | model and plan | measured, a GPU | predicted, a GPU | predicted / measured | memory, predicted |',
    '|---|---|---|---|---|---|',
    ...lines,
  ].join('\n')
}

if (import.meta.main) console.log(publishedTable())
