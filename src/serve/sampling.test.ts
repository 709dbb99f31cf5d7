/** Draws against the distributions they are meant to have. */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { probabilities, sample, type Sampling } from './sampling.ts'

const plain: Sampling = {
  temperature: 1,
  topP: 1,
  topK: 0,
  seed: 3,
  frequencyPenalty: 0,
  presencePenalty: 0,
  logitBias: new Map(),
}
const shares = [0.5, 0.25, 0.125, 0.0625, 0.0625]
const logits = Float32Array.from(shares, Math.log)

/** How often each token comes in `draws` draws. */
function frequencies(
  sampling: Partial<Sampling>,
  counts: ReadonlyMap<number, number> = new Map(),
  allowed?: Uint8Array,
): number[] {
  const draws = 4_000
  const seen = shares.map(() => 0)
  for (let i = 0; i < draws; i++)
    seen[sample(logits, { ...plain, ...sampling }, i, counts, allowed)]! += 1 / draws
  return seen
}

/** Within four standard deviations of a share. */
function near(got: readonly number[], expected: readonly number[]): void {
  const sum = expected.reduce((a, b) => a + b, 0)
  for (const [i, weight] of expected.entries()) {
    const share = weight / sum
    const limit = 4 * Math.sqrt((share * (1 - share)) / 4_000) + 1e-9
    assert.ok(Math.abs(got[i]! - share) <= limit, `token ${i}: ${got[i]}, not ${share}`)
  }
}

test('tokens come as often as the model says', () => near(frequencies({}), shares))

test('temperature raises probabilities to a power', () =>
  near(
    frequencies({ temperature: 0.5 }),
    shares.map((share) => share ** 2),
  ))

test('top k, top p and both', () => {
  near(frequencies({ topK: 2 }), [0.5, 0.25, 0, 0, 0])
  near(frequencies({ topP: 0.8 }), [0.5, 0.25, 0.125, 0, 0])
  near(frequencies({ topP: 0.5 }), [1, 0, 0, 0, 0])
  near(frequencies({ topK: 3, topP: 0.85 }), [0.5, 0.25, 0, 0, 0])
})

test('penalties and biases move logits', () => {
  const counts = new Map([[0, 3]])
  near(frequencies({ frequencyPenalty: Math.LN2 }, counts), [0.5 / 8, ...shares.slice(1)])
  near(frequencies({ presencePenalty: Math.LN2 }, counts), [0.5 / 2, ...shares.slice(1)])
  near(
    frequencies({
      logitBias: new Map([
        [4, Math.log(8)],
        [99, 5],
      ]),
    }),
    [...shares.slice(0, 4), 0.5],
  )
})

test('what is not allowed never comes, not even greedily', () => {
  const allowed = Uint8Array.of(0, 1, 0, 1, 0)
  near(frequencies({}, new Map(), allowed), [0, 0.25, 0, 0.0625, 0])
  assert.equal(sample(logits, { ...plain, temperature: 0 }, 0, new Map(), allowed), 1)
})

test('log probabilities are those of the model', () => {
  const { logprob, top } = probabilities(logits, 2, 2)
  assert.ok(Math.abs(logprob - Math.log(0.125)) < 1e-6)
  assert.deepEqual(
    top.map(({ id }) => id),
    [0, 1],
  )
  assert.ok(Math.abs(top[1]!.logprob - Math.log(0.25)) < 1e-6)
})
