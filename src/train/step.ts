/** The training step of a run, compiled for this machine: on one device, or spread over the ranks of its mesh. */
import { compile, type CompileOptions, type Program } from '../compiler/index.ts'
import type { Parallel } from '../compiler/ranked.ts'
import type { LanguageConfig } from '../models/language/config.ts'
import { parallelOptions } from './parallel.ts'
import { compileOptions, memoryOptions, stepSource } from './programs.ts'

export function compileStep(
  config: LanguageConfig,
  vocab: number,
  options: CompileOptions = {},
  transport: Parallel['transport'] = 'threads',
): Promise<Program> {
  const { name, inputs, body } = stepSource(config, vocab)
  return compile(body, inputs, {
    ...compileOptions(config, { name, ...memoryOptions(config), ...options }),
    ...parallelOptions(config, vocab, transport),
  })
}
