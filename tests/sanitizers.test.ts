/**
 * Every program of the bundled models under the sanitizers: a wrong address, an undefined operation or a data race in any
 * kernel ends the program with a report. Each runs without Node, three threads, two steps, sizes that no tile divides.
 * In these builds every buffer stands alone with a watched gap behind it, so that reading or writing past a buffer is
 * found, too, and not only past the arena.
 */
import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { availableParallelism } from 'node:os'
import { describe, test } from 'node:test'
import type { CompileOptions, Program } from '../src/compiler/index.ts'
import { runSanitized } from '../src/compiler/runtime/sanitize.ts'
import { standaloneText, type Range } from '../src/compiler/targets/c/standalone.ts'
import { compileDecode, compilePrefill, type Decodable } from '../src/models/decoder.ts'
import { decodable } from '../src/models/language/decode.ts'
import { resolveConfig, type LanguageConfig, type LanguageOverrides } from '../src/models/language/config.ts'
import { readPublicConfig } from '../src/models/public/config.ts'
import { compilePublic } from '../src/models/public/programs.ts'
import { fixture } from '../src/models/public/testing.ts'
import { parallelOf } from '../src/parallel/plan.ts'
import { compileEvaluation } from '../src/train/programs.ts'
import { compileStep } from '../src/train/step.ts'
import { planOf } from './plans.ts'

const vocab = 41
const options: CompileOptions = { target: 'text', threads: 3, apart: true }

type Block = LanguageConfig['model']['block']

const config = (block: Block, more: LanguageOverrides = {}): LanguageConfig =>
  resolveConfig({
    batch: 4,
    threads: 3,
    steps: 10,
    ...more,
    model: { block, context: 19, layers: 2, width: 36, heads: 3, ...more.model },
  })

const published = (folder: string, kind: 'hidden' | 'gradients') => (): Promise<Program> =>
  compilePublic(readPublicConfig(fixture(folder)), kind, [2, 11], options)

const decoder = (block: Block): Decodable => decodable({ ...config(block).model, dropout: 0, vocab })

const programs: Readonly<Record<string, () => Promise<Program>>> = {
  'training step, modern, Muon': () =>
    compileStep(config('modern', { optim: { name: 'muon' } }), vocab, options),
  'training step, GPT-2, AdamW, two microbatches, dropout, bf16': () =>
    compileStep(
      config('gpt2', { accumulate: 2, precision: 'bf16', model: { dropout: 0.1 }, optim: { name: 'adamw' } }),
      vocab,
      options,
    ),
  'training step, modern, AdamW, two microbatches, dropout, bf16, recomputed': () =>
    compileStep(
      config('modern', {
        accumulate: 2,
        precision: 'bf16',
        recompute: true,
        model: { dropout: 0.1 },
        optim: { name: 'adamw' },
      }),
      vocab,
      options,
    ),
  'training step on 2 x 2 ranks of two threads': () =>
    compileStep(
      config('modern', { optim: { name: 'adamw' }, model: { width: 32, heads: 4, context: 16 } }),
      40,
      {
        ...options,
        threads: 2,
        parallel: parallelOf(planOf('data=2 tensor=2 zero=2 sequence')),
      },
    ),
  'training step, GPT-2, 8-bit AdamW, fp16': () =>
    compileStep(config('gpt2', { precision: 'fp16', optim: { name: 'adamw8bit' } }), vocab, options),
  'training step, modern, AdamW, fp8 by blocks': () =>
    compileStep(
      config('modern', { precision: 'fp8', fp8Scaling: 'block', optim: { name: 'adamw' } }),
      vocab,
      options,
    ),
  'evaluation, modern': () => compileEvaluation(config('modern'), vocab, options),
  'evaluation, GPT-2, bf16': () => compileEvaluation(config('gpt2', { precision: 'bf16' }), vocab, options),
  'decoding three texts, modern': () => compileDecode(decoder('modern'), 3, options),
  'reading a prompt, GPT-2': () => compilePrefill(decoder('gpt2'), 3, 7, options),
  'published GPT-2, gradients': published('gpt2-tiny', 'gradients'),
  'published Llama, gradients': published('llama3-tiny', 'gradients'),
  'published Llama, hidden states': published('llama3-tiny', 'hidden'),
  'published Qwen2, gradients': published('qwen2-tiny', 'gradients'),
}

/** Plausible values: tokens within the vocabulary, small weights, optimizer state that has no negative squares. */
const ranges: readonly (readonly [RegExp, Range])[] = [
  [/^tokens?$/, [0, vocab]],
  [/^slot$/, [0, 3]],
  [/^last$/, [6, 7]],
  [/^seed$/, [1, 2]],
  [/^position$/, [0, 19]],
  [/^state\.step$/, [0, 1]],
  [/^state\.lossScale\.scale$/, [1024, 1024.1]],
  [/^state\.lossScale\.good$/, [0, 1]],
  [/^state\.optim\..*Scale$/, [0, 1e-6]],
  [/^state\.optim\./, [0, 0.01]],
  [/^counted$/, [0, 1]],
  [/./, [-0.2, 0.2]],
]
const rangeOf = (path: string): Range => ranges.find(([pattern]) => pattern.test(path))![1]

describe('programs of the bundled models under sanitizers', { concurrency: availableParallelism() }, () => {
  for (const [name, make] of Object.entries(programs)) {
    for (const sanitizer of ['address,undefined', 'thread'] as const) {
      test(`${sanitizer}: ${name}`, async () => {
        const program = await make()
        const printed = await runSanitized('model', standaloneText(program, rangeOf), sanitizer, ['2'])
        assert.equal(printed.trim().split('\n').length, program.outputs.size)
      })
    }
  }
})

test('what the list above leaves out is on purpose', () => {
  // Every function of the tree that compiles a program is called above, or compiles the same function as one that is.
  const known = new Map([
    ['src/train/programs.ts', 1],
    ['src/train/step.ts', 1],
    ['src/models/decoder.ts', 1],
    ['src/models/public/programs.ts', 1],
  ])
  for (const [path, count] of known) {
    const text = readFileSync(new URL(`../${path}`, import.meta.url), 'utf8')
    assert.equal(
      text.match(/\breturn compile\(/g)?.length,
      count,
      `${path} compiles another program: add it here`,
    )
  }
})
