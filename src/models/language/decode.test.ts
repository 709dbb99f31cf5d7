/** Decoding over a cache against the forward pass over the whole window, in both blocks, on both targets. */
import assert from 'node:assert/strict'
import { before, test } from 'node:test'
import { compile, leaves, valueType, type Program, type Tensorised } from '../../compiler/index.ts'
import { draw, worstError } from '../../compiler/testing.ts'
import { Decoder, type DecoderOptions } from '../decoder.ts'
import { dense } from './config.ts'
import { decodable } from './decode.ts'
import { forward, parameterTypes, type ModelConfig } from './model.ts'

const base = {
  size: 'nano',
  layers: 2,
  width: 24,
  heads: 4,
  context: 20,
  dropout: 0,
  vocab: 19,
  ...dense,
} as const
const experts = { experts: 5, topK: 2, sharedExperts: 1, expertHidden: 32 } as const
const models: Readonly<Record<string, ModelConfig>> = {
  modern: { ...base, block: 'modern', kvHeads: 2 },
  gpt2: { ...base, block: 'gpt2', kvHeads: 4 },
  experts: { ...base, block: 'modern', kvHeads: 2, ...experts },
}
const text = Array.from({ length: base.context }, (_, i) => (i * 7 + (i >> 2)) % base.vocab)

const fill = (model: ModelConfig, write: (path: string, values: Float64Array) => void): void =>
  leaves(parameterTypes(model)).forEach(([path, type], i) =>
    write(`params.${path}`, draw(type, i, [-0.4, 0.4])),
  )

async function openDecoder(model: ModelConfig, options: DecoderOptions): Promise<Decoder> {
  const decoder = await Decoder.open(decodable(model), options)
  fill(model, (path, values) => decoder.program.write(path, values))
  return decoder
}

/** The float64 meaning of the whole window. */
async function windowProgram(model: ModelConfig): Promise<Program> {
  const inputs = {
    params: parameterTypes(model),
    tokens: valueType('i32', [1, model.context], ['batch', 'time']),
  }
  const body = ({ params, tokens }: Tensorised<typeof inputs>) => ({ logits: forward(params, tokens, model) })
  const program = await compile(body, inputs, { target: 'reference' })
  fill(model, (path, values) => program.write(path, values))
  return program
}

const indexOfMax = (values: ArrayLike<number>): number => {
  let best = 0
  for (let i = 1; i < values.length; i++) if (values[i]! > values[best]!) best = i
  return best
}

for (const [block, model] of Object.entries(models)) {
  let reference: Program
  let logitsAt: (position: number) => ArrayLike<number>
  before(async () => {
    reference = await windowProgram(model)
    await reference.run({ tokens: text })
    const all = reference.view('logits').slice()
    logitsAt = (position) => all.slice(position * model.vocab, (position + 1) * model.vocab)
  })

  for (const [target, limit] of [
    ['reference', 1e-9],
    ['c', 2e-5],
  ] as const) {
    test(`${block}, ${target}: a prompt in chunks and steps gives the logits of the whole window`, async () => {
      const decoder = await openDecoder(model, { slots: 2, chunk: 4, target, threads: 2 })
      assert.ok(worstError(await decoder.prefill(1, text.slice(0, 7)), logitsAt(6)) < limit)
      for (let i = 7; i < 12; i++) {
        const logits = await decoder.step(new Map([[1, text[i]!]]))
        assert.ok(worstError(logits.get(1)!, logitsAt(i)) < limit, `position ${i}`)
      }
      // A further chunk may follow steps, and reach the very end.
      assert.ok(worstError(await decoder.prefill(1, text.slice(12)), logitsAt(19)) < limit)
      assert.equal(decoder.length(1), 20)
      assert.equal(decoder.length(0), 0)
      await assert.rejects(() => decoder.step(new Map([[1, 0]])), /exceed the context of 20/)
      await decoder.close()
    })
  }

  test(`${block}: greedy tokens equal those of recomputing the window, token for token`, async () => {
    const ids = text.slice(0, 3)
    const decoder = await openDecoder(model, { slots: 1, chunk: 4, threads: 2 })
    let next = indexOfMax(await decoder.prefill(0, ids))
    const got = [...ids, next]
    while (got.length < model.context) {
      next = indexOfMax((await decoder.step(new Map([[0, next]]))).get(0)!)
      got.push(next)
    }
    await decoder.close()
    const window = new Int32Array(model.context)
    while (ids.length < model.context) {
      window.set(ids)
      await reference.run({ tokens: window })
      const last = (ids.length - 1) * model.vocab
      ids.push(indexOfMax(reference.view('logits').slice(last, last + model.vocab)))
    }
    assert.deepEqual(got, ids)
    assert.ok(new Set(got).size > 3, 'a text that says something')
  })

  test(`${block}: sequences of different lengths do not touch one another, bit for bit`, async () => {
    const prompts = [text.slice(0, 9), text.slice(3, 5), text.slice(6, 17)]
    const steps = [0, 1, 2, 3]
    const run = async (which: readonly number[], threads: number): Promise<Map<string, Float32Array>> => {
      const decoder = await openDecoder(model, { slots: 3, chunk: 4, threads })
      const seen = new Map<string, Float32Array>()
      // Leftovers of an earlier sequence must not show.
      await decoder.prefill(which[0]!, text)
      decoder.reset(which[0]!)
      for (const slot of which) seen.set(`${slot}`, (await decoder.prefill(slot, prompts[slot]!)).slice())
      for (const i of steps) {
        // Slot 2 pauses every other step.
        const active = which.filter((slot) => slot !== 2 || i % 2 === 0)
        const logits = await decoder.step(new Map(active.map((slot) => [slot, text[i]!])))
        for (const slot of active) seen.set(`${slot} ${i}`, logits.get(slot)!.slice())
      }
      await decoder.close()
      return seen
    }
    const together = await run([0, 1, 2], 2)
    assert.equal(together.size, 3 + 4 + 4 + 2)
    for (const slot of [0, 1, 2])
      for (const [key, logits] of await run([slot], slot + 1))
        assert.deepEqual(logits, together.get(key), key)
  })
}

test('operations counted in a step are those declared when every sequence is at the last position', async () => {
  const model = models['modern']!
  const decoder = await openDecoder(model, { slots: 2, chunk: 4, threads: 2, checking: true })
  for (const slot of [0, 1]) await decoder.prefill(slot, text.slice(0, 19))
  assert.equal(decoder.program.countedFlops(), 0)
  await decoder.step(
    new Map([
      [0, 1],
      [1, 2],
    ]),
  )
  assert.equal(decoder.program.countedFlops(), decoder.program.flops)
  decoder.reset(0)
  await decoder.step(new Map([[0, 1]]))
  assert.ok(decoder.program.countedFlops() < 2 * decoder.program.flops)
  await decoder.close()
})
