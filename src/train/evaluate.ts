/** Validation loss over the whole split: every token after the first is predicted exactly once. */
import type { Program } from '../compiler/index.ts'
import { evaluationWindows } from '../data/order.ts'
import type { PreparedTokens } from '../data/tokens.ts'
import type { LanguageConfig } from '../models/language/config.ts'
import type { ModelConfig } from '../models/language/model.ts'
import { compileEvaluation, evaluationBatch } from './programs.ts'
import { specsOf } from './state.ts'

/** FLOPs of going through a split of so many tokens once. */
export function evaluationFlops(config: LanguageConfig, program: Program, tokens: number): number {
  const windows = Math.ceil((tokens - 1) / config.model.context)
  return Math.ceil(windows / evaluationBatch(config)) * program.flops
}

export class Evaluator {
  readonly #config: LanguageConfig
  readonly #model: ModelConfig
  readonly #data: PreparedTokens
  #program: Program | undefined

  constructor(config: LanguageConfig, model: ModelConfig, data: PreparedTokens) {
    this.#config = config
    this.#model = model
    this.#data = data
  }

  /** Mean nats per token with the parameters of a step program. */
  async run(step: Program): Promise<number> {
    this.#program ??= await compileEvaluation(this.#config, this.#model.vocab)
    const program = this.#program
    for (const [path] of specsOf(this.#model))
      program.write(`params.${path}`, step.view(`state.params.${path}`))
    const { context } = this.#config.model
    const { validation } = this.#data
    const batch = evaluationBatch(this.#config)
    const tokens = new Int32Array(batch * (context + 1))
    let nats = 0
    for (const { starts, weights } of evaluationWindows({ tokens: validation.length, context, batch })) {
      starts.forEach((start, row) => validation.copyInto(tokens, row * (context + 1), start, context + 1))
      await program.run({ tokens, counted: weights })
      nats += program.view('nats')[0]!
    }
    return nats / (validation.length - 1)
  }

  close(): void {
    this.#program?.close()
  }
}
