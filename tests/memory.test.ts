/**
 * Training takes the memory that was planned and no more: the arena of the running program is exactly as large as the
 * plan says, and a thousand steps of the whole loop (data, step, log, checkpoints) leave the process no larger.
 * Subtle: JavaScript's collector may let garbage lie, so it is made to run before each look at the process's size; the
 * memory in question is native and would not come back that way.
 */
import assert from 'node:assert/strict'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, test } from 'node:test'
import { setFlagsFromString } from 'node:v8'
import { runInNewContext } from 'node:vm'
import { resolveConfig } from '../src/models/language/config.ts'
import type { LanguageConfig, LanguageOverrides } from '../src/models/language/config.ts'
import { planLanguage, trainLanguage } from '../src/train/language.ts'
import { compileStep } from '../src/train/step.ts'
import { run } from './launch.ts'

const scratch = mkdtempSync(join(tmpdir(), 'anneal-memory-'))
after(() => rmSync(scratch, { recursive: true, force: true }))

const moduleOf = (path: string): string => new URL(`../src/${path}`, import.meta.url).href

const text = join(scratch, 'text.txt')
writeFileSync(text, 'Neither a borrower nor a lender be.\n'.repeat(100))

const tiny = (more: LanguageOverrides = {}): LanguageConfig =>
  resolveConfig({
    data: text,
    batch: 8,
    threads: 1,
    steps: 1300,
    ...more,
    model: { context: 32, layers: 2, width: 32 },
    optim: { name: 'adamw' },
    eval: { every: 0 },
    sample: { every: 0, tokens: 2 },
    save: { every: 100 },
  })

setFlagsFromString('--expose-gc')
const collect = runInNewContext('gc') as () => void

/** Resident memory of the process after collection, bytes. */
function residentBytes(): number {
  collect()
  return process.memoryUsage.rss()
}

test('a thousand steps of training leave the process no larger', async (t) => {
  const sizes: number[] = []
  const observer = {
    point({ step }: { readonly step: number }) {
      if (step >= 290 && step % 10 === 0) sizes.push(residentBytes())
    },
  }
  await trainLanguage(tiny(), { runsDir: join(scratch, 'runs'), observer })
  // The smallest of several looks at both ends: what is really held, without what happens to be in flight.
  const before = Math.min(...sizes.slice(0, 10))
  const later = Math.min(...sizes.slice(-10))
  const growth = later - before
  t.diagnostic(`${(before / 2 ** 20).toFixed(1)} MiB, after 1,000 steps ${growth} bytes more`)
  assert.ok(growth < Math.max(2 * 2 ** 20, before / 100), `${growth} bytes more than ${before}`)
})

const arenas = new Map<string, number>()
const variants: Readonly<Record<string, LanguageOverrides>> = {
  plain: {},
  'two microbatches': { accumulate: 2 },
  recomputed: { recompute: true },
}

for (const [name, overrides] of Object.entries(variants)) {
  test(`the arena of the running program is the planned one: ${name}`, async () => {
    const config = tiny(overrides)
    const plan = await planLanguage(config)
    const program = await compileStep(config, plan.data.vocabSize)
    try {
      await program.run({ tokens: program.view('tokens').slice(), seed: [1] })
      assert.equal(program.view('loss').buffer.byteLength, plan.arenaBytes)
      const { arenaBytes, stateBytes, inputBytes, outputBytes, temporaryBytes, lowerBound } = program.memory
      assert.equal(arenaBytes, plan.arenaBytes)
      assert.ok(stateBytes + inputBytes + outputBytes + temporaryBytes >= plan.parameters * 4)
      assert.ok(stateBytes + inputBytes + temporaryBytes <= arenaBytes)
      assert.ok(lowerBound <= temporaryBytes)
      arenas.set(name, arenaBytes)
    } finally {
      program.close()
    }
  })
}

test('microbatches and recomputed activations need less memory', () => {
  assert.ok(arenas.get('two microbatches')! < arenas.get('plain')!)
  assert.ok(arenas.get('recomputed')! < arenas.get('plain')!)
})

const scripts: Readonly<Record<string, LanguageOverrides>> = {
  'the default model': { steps: 30 },
  'a wider one': { steps: 4, batch: 8, model: { width: 256, layers: 4 }, sample: { tokens: 10 } },
}

for (const [name, overrides] of Object.entries(scripts)) {
  test(`the process holds what was printed before the run, within 5 %: ${name}`, (t) => {
    // In a process of its own, because the peak of this one is that of all tests before.
    const source = `
      const { resolveConfig } = await import(${JSON.stringify(moduleOf('models/language/config.ts'))})
      const { trainLanguage } = await import(${JSON.stringify(moduleOf('train/language.ts'))})
      let planned = 0
      const observer = { plan: (plan) => (planned = plan.processBytes) }
      const config = resolveConfig(${JSON.stringify(overrides)})
      await trainLanguage(config, { runsDir: ${JSON.stringify(join(scratch, 'runs'))}, observer })
      console.log(JSON.stringify({ planned, held: process.resourceUsage().maxRSS * 1024 }))`
    const { code, out, err } = run(process.execPath, ['--input-type=module', '-e', source])
    assert.equal(code, 0, err)
    const { planned, held } = JSON.parse(out) as { readonly planned: number; readonly held: number }
    t.diagnostic(`${(planned / 2 ** 20).toFixed(1)} MiB expected, ${(held / 2 ** 20).toFixed(1)} MiB held`)
    assert.ok(Math.abs(planned - held) < 0.05 * held, `${planned} bytes expected, ${held} held`)
  })
}
