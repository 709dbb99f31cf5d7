/** The public checkpoints on the reference target against Hugging Face transformers, and misuse of a loaded model. */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { UserError } from '../../errors.ts'
import { publicModel } from './model.ts'
import { checkpoints, fixture, referenceOf, reproduces, reproducesHiddenStates } from './testing.ts'

const target = 'reference'

for (const name of Object.keys(checkpoints)) {
  test(`${name}: the reference target reproduces transformers`, () => reproduces(name, { target }))
  test(`${name}: so do the hidden states`, () => reproducesHiddenStates(name, { target }))
}

test('rows of a batch do not see each other, and calls made at once do not mix', async () => {
  const model = publicModel(fixture('qwen2-tiny'), { target })
  const [a, b] = [
    [3, 17, 5, 42],
    [91, 60, 1, 33],
  ]
  const [both, first, second] = await Promise.all([
    model.logits([a, b]),
    model.logits([a]),
    model.logits([b]),
  ])
  assert.deepEqual(both.shape, [2, 4, 96])
  assert.deepEqual(both.values, Float32Array.of(...first.values, ...second.values))
  assert.notDeepEqual(first.values, second.values)
})

test('greedy: no tokens asked for, or the whole context', async () => {
  const model = publicModel(fixture('gpt2-tiny'), { target })
  assert.deepEqual(await model.greedy([5], 0), [5])
  const { input_ids: prompt, greedy } = referenceOf('gpt2-tiny')
  const full = await model.greedy(prompt, 32 - prompt.length)
  assert.equal(full.length, 32)
  assert.deepEqual(full.slice(0, greedy.length), greedy)
})

const refused = (work: Promise<unknown>, message: RegExp): Promise<void> =>
  assert.rejects(work, (error) => error instanceof UserError && message.test(error.message))

test('token ids and lengths that cannot be are refused', async () => {
  const model = publicModel(fixture('gpt2-tiny'), { target })
  await refused(model.logits([]), /no rows; expected rows of one length, 1 to 32 tokens/)
  await refused(model.logits([[1, 2], [3]]), /row 1: got 1 tokens/)
  await refused(model.logits([[1, 96]]), /row 0: got 96; expected token ids from 0 to 95/)
  await refused(model.logits([[1.5]]), /got 1\.5/)
  await refused(model.logits([Array.from({ length: 33 }, () => 1)]), /got 33 tokens/)
  await refused(model.lossAndGradients([[1]]), /2 to 32 tokens/)
  await refused(model.greedy([1, 2], 31), /2 \+ 31 tokens; expected at most 32 positions/)
  await refused(model.greedy([1], -1), /count: got -1/)
  assert.equal((await model.logits([[1, 2]])).values.length, 2 * 96)
})
