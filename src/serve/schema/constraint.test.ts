/** Answers under a schema by a model that knows nothing: every one is valid, within its tokens, whatever is drawn. */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { z } from 'zod'
import { philoxUniform } from '../../compiler/index.ts'
import { bytesTokenizer } from '../../data/tokenizers/bytes.ts'
import { trainBpe } from '../../data/tokenizers/bpe-train.ts'
import { charsTokenizer } from '../../data/tokenizers/chars.ts'
import type { Tokenizer } from '../../data/tokenizers/tokenizer.ts'
import { compileSchema } from './constraint.ts'
import { TokenTable } from './tokens.ts'

const bytes = bytesTokenizer()
const table = (tokenizer: Tokenizer, stop: number[] = []): TokenTable =>
  new TokenTable(tokenizer, tokenizer.vocabSize, new Set(stop))

/** A text drawn evenly from what is allowed. */
function draw(
  schema: unknown,
  tokens: TokenTable,
  most: number,
  seed: number,
): { text: string; tokens: number } {
  const constraint = compileSchema(schema, tokens, 'schema').begin()
  const ids: number[] = []
  while (!constraint.complete) {
    const allowed = constraint.allowed(most - ids.length)
    const choices = Array.from(allowed.keys()).filter((id) => allowed[id])
    assert.ok(choices.length > 0, `nothing may follow ${tokens.tokenizer.decode(ids)}`)
    const at = philoxUniform({ seed, step: ids.length, stream: 0, salt: 0 }, 0) * choices.length
    const id = choices[Math.floor(at)]!
    if (tokens.stopIds.has(id)) break
    ids.push(id)
    constraint.push(id)
    if (ids.length === most) break
  }
  return { text: tokens.tokenizer.decode(ids), tokens: ids.length }
}

const shape = z.object({
  name: z.string().min(2).max(20),
  'größe "x"': z.number(),
  kind: z.enum(['a', 'b c', 'ü']),
  tags: z.array(z.string()).min(1).max(4),
  at: z.object({ line: z.int().min(-17).max(2045), ok: z.boolean() }).nullable(),
  other: z.union([z.int(), z.literal('none')]).optional(),
})

const node = z.object({
  value: z.int(),
  get next() {
    return z.union([node, z.null()])
  },
})

for (const [name, kind] of Object.entries({ shape, node, list: z.array(z.tuple([z.int(), z.string()])) })) {
  test(`${name}: what is drawn is valid and ends in time`, () => {
    const schema: unknown = z.toJSONSchema(kind)
    const tokens = table(bytes)
    const { least } = compileSchema(schema, tokens, 'schema')
    for (let seed = 0; seed < 60; seed++) {
      const most = least + (seed % 4) * 40
      const { text, tokens: used } = draw(schema, tokens, most, seed)
      assert.ok(used <= most)
      const result = kind.safeParse(JSON.parse(text))
      assert.ok(result.success, `${text}: ${result.error?.message}`)
    }
  })
}

test('any object is JSON, with tokens of many bytes, too', () => {
  const text = 'The {"key": [1, 2.5e3, true, null, "a"]}, and "so on": {"x": {}}.\n'.repeat(40)
  const bpe = trainBpe([text], { vocabSize: 300, specials: ['<|endoftext|>'] })
  const tokens = table(bpe, [bpe.endOfText!])
  for (let seed = 0; seed < 40; seed++) {
    const value: unknown = JSON.parse(draw(undefined, tokens, 2 + seed, seed).text)
    assert.ok(typeof value === 'object' && value !== null && !Array.isArray(value))
  }
})

test('integers keep to their bounds, all of them can be written', () => {
  const tokens = table(bytes)
  for (const [low, high] of [
    [0, 9],
    [-3, 12],
    [7, 1203],
    [-450, -38],
    [99, 100],
  ] as const) {
    const schema = {
      type: 'array',
      items: { type: 'integer', minimum: low, maximum: high },
      minItems: 1,
      maxItems: 1,
    }
    const compiled = compileSchema(schema, tokens, 'schema')
    for (let value = low - 5; value <= high + 5; value++) {
      const constraint = compiled.begin()
      const accepted = [...new TextEncoder().encode(`[${value}]`)].every((byte) => {
        if (!constraint.allowed(50)[byte]) return false
        constraint.push(byte)
        return true
      })
      assert.equal(
        accepted && constraint.complete,
        value >= low && value <= high,
        `${value} of ${low}..${high}`,
      )
    }
  }
})

test('what is not supported is refused by name, and so is what the tokens cannot spell', () => {
  const refuses = (schema: unknown, message: RegExp, tokens = table(bytes)): void => {
    assert.throws(() => compileSchema(schema, tokens, 'schema'), message)
  }
  refuses({ type: 'string', pattern: 'a+' }, /schema\.pattern: this keyword is not supported/)
  refuses(
    { type: 'object', properties: { a: { type: 'number', minimum: 1 } } },
    /schema\.properties\.a\.minimum/,
  )
  refuses({ oneOf: [{ type: 'string' }, { type: 'string' }] }, /use anyOf/)
  refuses({ $ref: '#/$defs/none' }, /is not there/)
  refuses({ $ref: '#' }, /in finite length/)
  refuses({ type: 'strin' }, /is not a type of JSON/)
  refuses(undefined, /this model's tokens \(chars\)/, table(charsTokenizer(['a', 'b'])))
})
