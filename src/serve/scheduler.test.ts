/** What the scheduler owes to those who wait when it closes: an end, whatever it was in the middle of. */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { drawWeights, randomEngine, smallModel } from './testing.ts'

const isClosing = (error: unknown): boolean =>
  (error as { details?: { code?: string } }).details?.code === 'closing'

test('close ends texts, requests that wait, and weights that wait for their turn', async () => {
  const engine = await randomEngine(smallModel, { slots: 2 })
  const sampling = {
    temperature: 1,
    topP: 1,
    topK: 0,
    seed: 1,
    frequencyPenalty: 0,
    presencePenalty: 0,
    logitBias: new Map<number, number>(),
  }
  const answers = engine.generate({ prompt: [1, 2, 3], maxTokens: 900, sampling }, 4)
  const read = async (answer: AsyncIterable<unknown>): Promise<void> => {
    for await (const token of answer) void token
  }
  const ends = answers.map((answer) => assert.rejects(read(answer), isClosing))
  while (engine.scheduler.running < 2) await new Promise((resolve) => setTimeout(resolve, 1))
  const weights = ['two', 'three'].map((version, i) =>
    assert.rejects(engine.load(version, drawWeights(smallModel, i)), isClosing),
  )
  await engine.close()
  await Promise.all([...ends, ...weights])
  await assert.rejects(engine.load('late', drawWeights(smallModel, 4)), isClosing)
  assert.throws(() => engine.generate({ prompt: [1], maxTokens: 1, sampling }), isClosing)
  assert.equal(engine.version, 'seed-1')
})

test('weights that cannot be written fail their caller, and the next are written', async () => {
  const engine = await randomEngine(smallModel, { slots: 2 })
  const failing = engine.load('broken', () => Promise.reject(new Error('no such file')))
  const next = engine.load('seed-2', drawWeights(smallModel, 2))
  await assert.rejects(failing, /no such file/)
  await next
  assert.equal(engine.version, 'seed-2')
  await engine.close()
})
