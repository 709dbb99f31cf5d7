/** The public checkpoints on the C target, held to the same outside reference as the interpreter. */
import { test } from 'node:test'
import { checkpoints, reproduces } from './testing.ts'

for (const name of Object.keys(checkpoints)) {
  test(`${name}: the C target reproduces transformers`, () => reproduces(name, { target: 'c' }))
}
