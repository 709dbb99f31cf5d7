/** Public checkpoints over a paged cache: greedy text is what Hugging Face transformers wrote, however it is read. */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { PagedDecoder, type Row } from '../paged-decoder.ts'
import { readPublicConfig } from './config.ts'
import { publicDecodable, writePublicWeights } from './decode.ts'
import { publicModel } from './model.ts'
import { checkpoints, fixture, referenceOf } from './testing.ts'

const likeliest = (logits: Float32Array): number => logits.indexOf(Math.max(...logits))

for (const name of Object.keys(checkpoints)) {
  test(`${name}: greedy text over the cache is that of transformers, and of the model without a cache`, async () => {
    const folder = fixture(name)
    const { input_ids: prompt, greedy } = referenceOf(name)
    const model = publicDecodable(readPublicConfig(folder))
    const decoder = await PagedDecoder.open(model, {
      pages: 64,
      pageSize: 8,
      rows: 24,
      wanted: 4,
      threads: 2,
    })
    writePublicWeights(folder, decoder.program)
    const write = async (pages: readonly number[], chunk: number): Promise<number[]> => {
      const text = [...prompt]
      let done = 0
      while (text.length < Math.min(model.context, greedy.length + 8)) {
        const end = Math.min(text.length, done + chunk)
        const rows = text.slice(done, end).map((token, i): Row => ({ token, position: done + i, pages }))
        const { logits } = await decoder.run(rows, [rows.length - 1])
        done = end
        if (done === text.length) text.push(likeliest(logits[0]!))
      }
      return text
    }
    // As many pages as a context takes.
    const pages = (first: number, step: number): number[] =>
      Array.from({ length: decoder.pagesPerSequence }, (_, i) => (first + i * step) % 64)
    const written = await write(pages(0, 1), 24)
    assert.deepEqual(written.slice(0, greedy.length), greedy)
    assert.deepEqual(await write(pages(23, 7), 1), written)
    const whole = publicModel(folder, { target: 'c', threads: 2 })
    assert.deepEqual(await whole.greedy(prompt, written.length - prompt.length), written)
    whole.close()
    await decoder.close()
  })
}
