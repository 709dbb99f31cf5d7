/** The training step alone, for side-by-side benchmarks: random tokens, no logging, no evaluation. */
import { philoxUniform } from '../compiler/index.ts'
import type { LanguageConfig } from '../models/language/config.ts'
import { initialise } from './programs.ts'
import { compileStep } from './step.ts'

export interface StepBench {
  readonly flopsPerStep: number
  readonly tokensPerStep: number
  /** Runs k steps; returns the seconds they took. */
  run(k: number): Promise<number>
  close(): void
}

export async function languageStepBench(config: LanguageConfig, vocab = 65): Promise<StepBench> {
  const program = await compileStep(config, vocab)
  initialise(program, config, vocab)
  const count = config.batch * (config.model.context + 1)
  const tokens = Int32Array.from({ length: count }, (_, i) =>
    Math.floor(philoxUniform({ seed: 1, step: 0, stream: 0, salt: 0 }, i) * vocab),
  )
  return {
    flopsPerStep: program.flops,
    tokensPerStep: config.batch * config.model.context,
    async run(k) {
      const started = performance.now()
      for (let i = 0; i < k; i++) await program.run({ tokens, seed: [config.seed] })
      return (performance.now() - started) / 1000
    },
    close: () => program.close(),
  }
}
