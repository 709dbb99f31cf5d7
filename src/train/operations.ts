/**
 * Operations of a step of every bundled recipe, which `operations.json` keeps: a change of any of these integers fails
 * until it is recorded again, with the reason, by `node src/train/operations.ts "why they changed"`.
 */
import { readFileSync, writeFileSync } from 'node:fs'
import type { Operations } from '../compiler/index.ts'
import { badUsage } from '../errors.ts'
import { resolveConfig, type LanguageOverrides } from '../models/language/config.ts'
import { compileEvaluation } from './programs.ts'
import { compileStep } from './step.ts'

/** Vocabulary of the characters of the bundled text. */
const vocab = 65

/** Settings that make a recipe of its own: sizes, optimizers, blocks, number formats, memory. */
export const recipes: Readonly<Record<string, LanguageOverrides>> = {
  language: {},
  'language model.size=micro': { model: { size: 'micro' } },
  'language model.size=mini': { model: { size: 'mini' } },
  'language model.size=small': { model: { size: 'small' } },
  'language model.size=base': { model: { size: 'base' } },
  'language model.size=gpt2': { model: { size: 'gpt2' } },
  'language model.block=gpt2': { model: { block: 'gpt2' } },
  'language optim.name=adamw': { optim: { name: 'adamw' } },
  'language precision=bf16': { precision: 'bf16' },
  'language accumulate=4': { accumulate: 4 },
  'language recompute=full': { recompute: 'full' },
}

/** Per step, and of one batch of evaluation. */
export type Recorded = Operations & { readonly evaluationBatch: number }

export interface RecordedOperations {
  readonly reason: string
  readonly recordedBy: string
  readonly recipes: Readonly<Record<string, Recorded>>
}

const file = new URL('operations.json', import.meta.url)

export const readRecorded = (): RecordedOperations =>
  JSON.parse(readFileSync(file, 'utf8')) as RecordedOperations

export async function measureOperations(overrides: LanguageOverrides): Promise<Recorded> {
  const config = resolveConfig(overrides)
  const step = await compileStep(config, vocab, { target: 'reference' })
  const evaluation = await compileEvaluation(config, vocab, { target: 'reference' })
  return { ...step.operations, evaluationBatch: evaluation.flops }
}

if (import.meta.main) {
  const reason = process.argv[2]
  if (!reason) {
    throw badUsage({
      where: 'operations.ts',
      got: 'no reason',
      expected: 'why the counts changed',
      fix: 'node src/train/operations.ts "why they changed"',
    })
  }
  const measured: Record<string, Recorded> = {}
  for (const [name, overrides] of Object.entries(recipes)) measured[name] = await measureOperations(overrides)
  const recordedBy = 'node src/train/operations.ts "why they changed"'
  writeFileSync(file, `${JSON.stringify({ reason, recordedBy, recipes: measured }, null, 2)}\n`)
}
