/**
 * Compiles the training step of GPT-2 124M and prints what it took, as JSON. Run by `npm run bench startup` in a process of
 * its own, since a second compilation in one process would find the tracer warmed up.
 */
import { compileStep } from '../src/train/step.ts'
import { gpt2Config, vocab } from './gpt2.ts'

const program = await compileStep(gpt2Config(0), vocab)
console.log(JSON.stringify({ compileSeconds: program.compileSeconds, cached: program.cached }))
program.close()
