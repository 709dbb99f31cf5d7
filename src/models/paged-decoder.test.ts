/** Rows over a paged cache: the bits depend neither on the program they run in, nor on neighbours, nor on the pages. */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { compile, leaves, valueType, type Tensorised } from '../compiler/index.ts'
import { draw, worstError } from '../compiler/testing.ts'
import { dense } from './language/config.ts'
import { decodable } from './language/decode.ts'
import { forward, parameterTypes, type ModelConfig } from './language/model.ts'
import { PagedDecoder, type Row } from './paged-decoder.ts'

const base = { size: 'nano', layers: 2, heads: 4, context: 40, dropout: 0, vocab: 37, ...dense } as const
const models: Readonly<Record<string, ModelConfig>> = {
  modern: { ...base, block: 'modern', width: 136, kvHeads: 2 },
  gpt2: { ...base, block: 'gpt2', width: 120, kvHeads: 4 },
}
const text = Array.from({ length: base.context }, (_, i) => (i * 7 + (i >> 2)) % base.vocab)

for (const [block, model] of Object.entries(models)) {
  const fill = (write: (path: string, values: Float64Array) => void): void =>
    leaves(parameterTypes(model)).forEach(([path, type], i) =>
      write(`params.${path}`, draw(type, i, [-0.3, 0.3])),
    )
  const open = async (threads: number): Promise<PagedDecoder> => {
    const sizes = { pages: 12, pageSize: 8, rows: 24, wanted: 5 }
    const decoder = await PagedDecoder.open(decodable(model), { ...sizes, threads })
    fill((path, values) => decoder.program.write(path, values))
    return decoder
  }
  const rowsOf = (pages: readonly number[], from: number, to: number): Row[] =>
    text.slice(from, to).map((token, i) => ({ token, position: from + i, pages }))

  test(`${block}: any way of reading a text gives the same bits, near those of the whole window`, async () => {
    const inputs = {
      params: parameterTypes(model),
      tokens: valueType('i32', [1, model.context], ['batch', 'time']),
    }
    const body = ({ params, tokens }: Tensorised<typeof inputs>) => ({
      logits: forward(params, tokens, model),
    })
    const window = await compile(body, inputs, { target: 'reference' })
    fill((path, values) => window.write(path, values))
    await window.run({ tokens: text })
    const exact = window.view('logits').slice(29 * model.vocab, 30 * model.vocab)

    const decoder = await open(2)
    const last = async (rows: readonly Row[]): Promise<Float32Array> =>
      (await decoder.run(rows, [rows.length - 1])).logits[0]!.slice()
    // Token by token.
    let single!: Float32Array
    for (let i = 0; i < 30; i++) single = await last(rowsOf([3, 1, 7, 2], i, i + 1))
    assert.ok(worstError(single, exact) < 2e-5)
    // In chunks through the largest program, into other pages.
    await last(rowsOf([0, 11, 5, 4], 0, 24))
    assert.deepEqual(await last(rowsOf([0, 11, 5, 4], 24, 30)), single)
    // From pages that another sequence wrote token by token, a page of its own after them.
    assert.deepEqual(await last(rowsOf([3, 1, 7, 9], 24, 30)), single)
    // In company of other sequences, in the same call, in any order.
    const other = rowsOf([6, 8, 10], 0, 11)
    const mine = rowsOf([3, 1, 7, 2], 24, 30)
    const { logits } = await decoder.run([...other, ...mine], [10, 16])
    assert.deepEqual(logits[1], single)
    assert.notDeepEqual(logits[0], single)
    await decoder.close()

    const alone = await open(1)
    await alone.run(rowsOf([1, 2, 3, 4], 0, 12), [])
    await alone.run(rowsOf([1, 2, 3, 4], 12, 13), [])
    const { logits: again } = await alone.run(rowsOf([1, 2, 3, 4], 13, 30), [16])
    assert.deepEqual(again[0], single)
    await alone.close()
  })
}
