/**
 * A folder of runs for pictures and for tests of the page: made by the run store's own writer, so that it is what
 * training would have written, without the training.
 */
import { mkdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { resolveConfig, type LanguageOverrides } from '../src/models/language/config.ts'
import { annotate, createRun } from '../src/runs/index.ts'
import type { RunStatus, RunWriter } from '../src/runs/index.ts'

interface Demo {
  readonly overrides: LanguageOverrides
  readonly final: number
  readonly until: number
  readonly status: RunStatus
  readonly daysAgo: number
  readonly tags?: readonly string[]
  readonly note?: string
}

const demos: readonly Demo[] = [
  { overrides: {}, final: 1.52, until: 1465, status: 'finished', daysAgo: 3, tags: ['baseline'] },
  { overrides: { optim: { name: 'adamw' } }, final: 1.66, until: 1465, status: 'finished', daysAgo: 2.5 },
  {
    overrides: { model: { size: 'micro' }, steps: 2000 },
    final: 1.44,
    until: 2000,
    status: 'finished',
    daysAgo: 1.2,
    tags: ['good', 'wider'],
    note: 'Wider than the baseline, half a decibel better.',
  },
  { overrides: { optim: { lr: 0.3 } }, final: 3.4, until: 412, status: 'failed', daysAgo: 0.9 },
  {
    overrides: { model: { size: 'mini' }, steps: 3000 },
    final: 1.5,
    until: 1240,
    status: 'interrupted',
    daysAgo: 0.2,
  },
]

const verses = [
  'ROMEO:\nAnd the the sou the me and wor\nThe hand thou wit the sear,',
  'ROMEO:\nI will not be so much a man of love,\nAnd with the world to stand upon the day.',
  "ROMEO:\nWhat say you, sir? I am the king's own voice,\nAnd by my soul, I'll hear no more of this.\n\nJULIET:\nThen speak no more, and let the night be long.",
]

/** Fills `root` and returns the ids, oldest first. */
export function writeDemoRuns(root: string): string[] {
  mkdirSync(root, { recursive: true })
  const ids = demos.map((demo, i) => {
    const writer = startDemo(root, demo.overrides, new Date(Date.now() - demo.daysAgo * 86_400_000))
    writeSteps(writer, { from: 1, to: demo.until, final: demo.final, seed: i + 1 })
    if (demo.status !== 'interrupted') {
      const reason =
        demo.status === 'failed' ? { reason: 'step 413: got loss = NaN; expected a finite number' } : {}
      writer.close(demo.status, { step: demo.until, ...reason })
    } else writer.close('interrupted', { step: demo.until })
    if (demo.tags) annotate(writer.dir, { tags: demo.tags, note: demo.note ?? '' })
    return writer.id
  })
  mkdirSync(join(root, 'old notes'), { recursive: true })
  writeFileSync(join(root, 'README.txt'), 'what was tried\n')
  return ids
}

export function startDemo(root: string, overrides: LanguageOverrides = {}, now = new Date()): RunWriter {
  const config = resolveConfig(overrides)
  const plan = {
    parameters: 156_032,
    tokens: config.steps * 4096,
    flops: config.steps * 6e9,
    flopsPerStep: 6e9,
    arenaBytes: 48 << 20,
    processBytes: 190 << 20,
    etaSeconds: config.steps * 0.05,
    data: { name: 'shakespeare', trainTokens: 1_003_854, vocabSize: 65 },
  }
  return createRun(root, { recipe: 'language', config, plan, machine: {}, now })
}

interface Steps {
  readonly from: number
  readonly to: number
  readonly final: number
  readonly seed: number
}

/** Losses that fall like losses do, with noise that a seed repeats. */
export function writeSteps(writer: RunWriter, { from, to, final, seed }: Steps): void {
  let state = seed * 7919 + from
  const noise = (): number => {
    state = (state * 1_103_515_245 + 12_345) % 2_147_483_648
    return state / 2_147_483_648 - 0.5
  }
  for (let step = from; step <= to; step++) {
    const loss = final + (4.17 - final) / (1 + step / 90) ** 1.1 + noise() * 0.12
    const at = { step, tokens: step * 4096, seconds: step * 0.05 * (1 + seed / 10), flops: step * 6e9 }
    const lr = 0.03 * Math.min(1, step / 20, ((to - step) / to) * 2)
    writer.point({ ...at, metrics: { loss, gradNorm: 0.4 + 1.5 / (1 + step / 40) + noise() * 0.2, lr } })
    if (step % 250 === 0) {
      writer.point({ ...at, metrics: { validationLoss: loss + 0.08 } })
      const file = join('checkpoints', `step-${String(step).padStart(8, '0')}.safetensors`)
      mkdirSync(join(writer.dir, 'checkpoints'), { recursive: true })
      // Of old ones only the line is left, as in a run that keeps two.
      if (step + 500 > to) writeFileSync(join(writer.dir, file), '')
      writer.checkpoint({ step, file, bytes: 1_872_448 })
    }
    if (step === 100 || step % 500 === 0) {
      const verse = verses[Math.min(verses.length - 1, Math.floor(step / 500))]!
      writer.sample({ step, prompt: 'ROMEO:', text: verse.slice('ROMEO:'.length) })
    }
  }
}
