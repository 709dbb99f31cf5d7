/**
 * The family of models that the scaling study trains, with one dial, the width: three layers, four heads, all else equal.
 * Also the rules that turn a budget of compute into a run, stated once and used by every run of a study.
 */
import { resolveConfig, type LanguageConfig } from '../../models/language/config.ts'
import { alphabet, type TextSettings } from './text.ts'
import { compileStep } from '../../train/step.ts'

/** Everything that decides a run, bit for bit. */
export interface RunSettings {
  /** Floating-point operations it was planned for. */
  readonly budget: number
  readonly seed: number
  readonly width: number
  readonly layers: number
  readonly heads: number
  readonly context: number
  /** Windows a step. */
  readonly batch: number
  readonly steps: number
  /** Peak rate of Muon, for the matrices of the layers. */
  readonly lr: number
  /** Peak rate of Adam, for the embedding and the head. */
  readonly adamLr: number
  readonly text: TextSettings
}

export interface PlannedRun {
  readonly name: string
  readonly settings: RunSettings
  readonly parameters: number
  readonly tokens: number
  /** Exact operations of the program, all its steps together. */
  readonly flops: number
}

export const layers = 3
export const heads = 4
export const context = 64
/** Tokens for each parameter in a matrix product. */
export const tokensPerParameter = 20
const widthStep = 8
/** Windows a step of the smallest runs, at so many tokens of training; then in proportion to tokens^0.38. */
const batchRule = { windows: 16, tokens: 500_000, exponent: 0.38 }
/** Peak rates of Muon and of Adam at every width; sweep.ts has the trials they come from. */
export const rates = { lr: 0.02, adamLr: 0.02 }

/** Parameters that take part in matrix products: layers and head, not the embedding. */
export const matmulParameters = (width: number): number => layers * 12 * width ** 2 + width * alphabet.length

/** The rule for the batch, in eights of windows, so that leaves of a batch stay even. */
export function batchFor(tokens: number): number {
  const { windows, tokens: at, exponent } = batchRule
  return Math.max(8, 8 * Math.round((windows * (tokens / at) ** exponent) / 8))
}

/** Settings of our trainer for a run of the study. */
export const configOf = (run: RunSettings, threads = 0): LanguageConfig =>
  resolveConfig({
    data: 'grammar',
    tokenizer: 'chars',
    steps: run.steps,
    batch: run.batch,
    seed: run.seed,
    threads,
    model: { layers: run.layers, width: run.width, heads: run.heads, context: run.context },
    optim: { name: 'muon', lr: run.lr, adamLr: run.adamLr, cooldown: 0.5, warmup: Math.ceil(run.steps / 50) },
  })

/**
 * The run for a budget: of all widths the one that leaves nearest to twenty tokens for each parameter, and as many steps
 * as the budget pays for, counted on the compiled program and not by a formula.
 */
export async function planRun(
  budget: number,
  seed: number,
  text: TextSettings,
  chosen: Partial<RunSettings> = {},
): Promise<PlannedRun> {
  const settingsFor = async (width: number) => {
    const approximate = budget / (8 * matmulParameters(width))
    const base = { budget, seed, width, layers, heads, context, ...rates, text, ...chosen }
    // Two rounds: the batch follows from the tokens, and the optimizer's share of the cost from the batch.
    let [batch, steps, flops] = [chosen.batch ?? batchFor(approximate), 1, 0]
    for (let round = 0; round < 2; round++) {
      flops = await flopsPerStep({ ...base, batch, steps: 100 })
      steps = Math.max(1, Math.round(budget / flops))
      const wanted = chosen.batch ?? batchFor(steps * batch * context)
      if (wanted === batch) break
      batch = wanted
    }
    flops = await flopsPerStep({ ...base, batch, steps: 100 })
    steps = Math.max(1, Math.round(budget / flops))
    const parameters = matmulParameters(width)
    const tokens = steps * batch * context
    return { settings: { ...base, batch, steps }, parameters, tokens, flops: flops * steps }
  }
  const off = ({ tokens, parameters }: { tokens: number; parameters: number }): number =>
    Math.abs(Math.log(tokens / parameters / tokensPerParameter))
  let best = await settingsFor(chosen.width ?? widthStep * 2)
  for (let width = widthStep * 3; chosen.width === undefined; width += widthStep) {
    const next = await settingsFor(width)
    if (off(next) > off(best)) break
    best = next
  }
  return { name: nameOf(budget, seed), ...best }
}

/** 3e12 with seed 1: `3e12-seed1`. */
export const nameOf = (budget: number, seed: number): string =>
  `${budget.toExponential().replace('e+', 'e')}-seed${seed}`

/** The program's own count; it is made as text, without a C compiler. */
async function flopsPerStep(run: RunSettings): Promise<number> {
  const program = await compileStep(configOf(run), alphabet.length, { target: 'text' })
  return program.flops
}
