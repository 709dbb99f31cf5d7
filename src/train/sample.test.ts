/** Sampling: what comes after the context is full, several texts at once, and draws that depend on the seed alone. */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { compile, philoxUniform, valueType, type Program, type Tensorised } from '../compiler/index.ts'
import { draw } from '../compiler/testing.ts'
import { charsTokenizer } from '../data/tokenizers/chars.ts'
import { dense } from '../models/language/config.ts'
import { forward, parameterTypes, type ModelConfig } from '../models/language/model.ts'
import { choose, likeliest, type Choice } from './choose.ts'
import { specsOf } from './state.ts'
import { Sampler, type SampleOptions } from './sample.ts'

const tokenizer = charsTokenizer([...'abcdefghijklmnopqrst'])
const model: ModelConfig = {
  size: 'nano',
  block: 'modern',
  layers: 2,
  width: 24,
  heads: 2,
  kvHeads: 1,
  context: 16,
  dropout: 0.1,
  ...dense,
  vocab: tokenizer.vocabSize,
}
const greedy = (prompt: string, tokens: number): SampleOptions => ({
  prompt,
  tokens,
  temperature: 0,
  topK: 0,
  seed: 1,
})
const drawn = (prompt: string, tokens: number, seed: number): SampleOptions => ({
  ...greedy(prompt, tokens),
  temperature: 0.7,
  topK: 5,
  seed,
})

const fill = (program: Program): void =>
  specsOf(model).forEach(([path, spec], i) => program.write(`params.${path}`, draw(spec, i, [-0.6, 0.6])))

async function withSampler<T>(slots: number, use: (sampler: Sampler) => Promise<T>): Promise<T> {
  const sampler = new Sampler(model, tokenizer, { threads: 2, slots })
  try {
    fill(await sampler.program())
    return await use(sampler)
  } finally {
    await sampler.close()
  }
}

test('greedy text equals recomputing everything, also after the context was full twice', async () => {
  const inputs = { params: parameterTypes(model), tokens: valueType('i32', [1, 16], ['batch', 'time']) }
  const body = ({ params, tokens }: Tensorised<typeof inputs>) => ({ logits: forward(params, tokens, model) })
  const reference = await compile(body, inputs, { target: 'reference' })
  fill(reference)
  for (const prompt of ['bca', 'abcdefghijklmnopqrstsrqponm']) {
    const ids = [...tokenizer.encode(prompt)]
    let start = Math.max(0, ids.length - 16)
    const want: number[] = []
    while (want.length < 30) {
      if (ids.length - start > 16) start = ids.length - 8
      const window = new Int32Array(16)
      window.set(ids.slice(start))
      await reference.run({ tokens: window })
      const at = (ids.length - start - 1) * model.vocab
      const next = likeliest(reference.view('logits').slice(at, at + model.vocab))
      want.push(next)
      ids.push(next)
    }
    const { text, tokens } = await withSampler(1, (sampler) => sampler.generate(greedy(prompt, 30)))
    assert.equal(text, tokenizer.decode(want))
    assert.equal(tokens, 30)
    assert.ok(new Set(want).size > 3)
  }
})

test('texts written together are those written alone, also with fewer slots than texts', async () => {
  const requests = [
    drawn('abc', 25, 3),
    greedy('t', 1),
    drawn('abc', 25, 4),
    drawn('hijklmnopq', 9, 3),
    greedy('sr', 0),
    drawn('g', 40, 5),
  ]
  const texts = await withSampler(3, async (sampler) => {
    const together = (await sampler.generateAll(requests)).map(({ text }) => text)
    for (const [i, request] of requests.entries())
      assert.equal((await sampler.generate(request)).text, together[i])
    return together
  })
  texts.forEach((text, i) => assert.equal(text.length, requests[i]!.tokens))
  assert.notEqual(texts[0], texts[2], 'another seed, another text')
})

test('pieces handed out as they come are the text', async () => {
  const pieces: string[] = []
  const { text } = await withSampler(1, (sampler) =>
    sampler.generate({ ...drawn('ab', 20, 8), onToken: (piece) => pieces.push(piece) }),
  )
  assert.equal(pieces.join(''), text)
  assert.ok(pieces.length > 1)
})

/** The plain way to draw: sort everything. */
function chooseBySorting(
  logits: readonly number[],
  { temperature, topK, seed }: Choice,
  index: number,
): number {
  const ids = logits.map((_, id) => id).toSorted((a, b) => logits[b]! - logits[a]! || a - b)
  if (temperature === 0) return ids[0]!
  const kept = topK > 0 ? ids.slice(0, topK) : ids
  const weights = kept.map((id) => Math.exp((logits[id]! - logits[ids[0]!]!) / temperature))
  const u = philoxUniform({ seed, step: index, stream: 0x5a, salt: 0 }, 0)
  let left = u * weights.reduce((a, b) => a + b, 0)
  return kept.find((_, i) => (left -= weights[i]!) < 0) ?? kept.at(-1)!
}

test('choose equals sorting the whole vocabulary', () => {
  fc.assert(
    fc.property(
      fc.array(
        fc.integer({ min: -8, max: 8 }).map((x) => x / 2),
        { minLength: 1, maxLength: 40 },
      ),
      fc.record({
        temperature: fc.constantFrom(0, 0.3, 1, 2.5),
        topK: fc.integer({ min: 0, max: 45 }),
        seed: fc.nat(1000),
      }),
      fc.nat(1000),
      (logits, choice, index) => choose(logits, choice, index) === chooseBySorting(logits, choice, index),
    ),
    { numRuns: 500, seed: 1 },
  )
})
