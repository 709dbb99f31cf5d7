/** What every tokenizer must do, run over all kinds, then what is particular to bytes and chars. */
import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { describe, test } from 'node:test'
import fc from 'fast-check'
import { UserError } from '../../errors.ts'
import { trainBpe } from './bpe-train.ts'
import { bytesTokenizer } from './bytes.ts'
import { charsTokenizer, distinctCharacters } from './chars.ts'
import { streamDecoder } from './decode.ts'
import { tokenizerFromJSON } from './tokenizer.ts'
import type { Tokenizer } from './tokenizer.ts'

const userError = (pattern: RegExp) => (error: unknown) =>
  error instanceof UserError && !error.message.includes('\n') && pattern.test(error.message)

const sample = 'A naïve café — 日本語, 안녕, हिन्दी, 👩‍👩‍👧 \uFEFF\r\n\t1234\0'
const tokenizers: readonly Tokenizer[] = [
  bytesTokenizer(),
  charsTokenizer(distinctCharacters([sample])),
  trainBpe([sample, 'the cat, the hat, the bat'], { vocabSize: 290 }),
]

for (const tokenizer of tokenizers) {
  describe(tokenizer.kind, () => {
    /** chars can only spell its own alphabet. */
    const texts =
      tokenizer.kind === 'chars'
        ? fc.array(fc.constantFrom(...Array.from(sample)), { maxLength: 60 }).map((parts) => parts.join(''))
        : fc.oneof(fc.string({ unit: 'binary' }), fc.string({ unit: 'grapheme' }), fc.string())

    test('decode undoes encode, ids stay inside the vocabulary', () => {
      fc.assert(
        fc.property(texts, (text) => {
          const ids = tokenizer.encode(text)
          assert.equal(tokenizer.decode(ids), text)
          assert.ok(ids.every((id) => id >= 0 && id < tokenizer.vocabSize))
          const bytes = Buffer.concat(Array.from(ids, tokenizer.bytesOf))
          assert.equal(bytes.toString('utf8'), text)
        }),
        { numRuns: 300 },
      )
    })

    test('a byte order mark, the empty text and one of everything survive', () => {
      assert.equal(tokenizer.decode(tokenizer.encode('\uFEFF' + sample)), '\uFEFF' + sample)
      assert.equal(tokenizer.encode('').length, 0)
      assert.equal(tokenizer.decode([]), '')
    })

    test('streamed pieces join to the whole and never show half a character', () => {
      const decoder = streamDecoder(tokenizer)
      const pieces = Array.from(tokenizer.encode(sample), decoder.push)
      assert.ok(pieces.every((piece) => !piece.includes('\uFFFD')))
      assert.equal(pieces.join('') + decoder.flush(), sample)
    })

    test('comes back from its JSON', () => {
      const again = tokenizerFromJSON(JSON.parse(JSON.stringify(tokenizer)))
      assert.equal(again.kind, tokenizer.kind)
      assert.equal(again.vocabSize, tokenizer.vocabSize)
      assert.deepEqual(again.encode(sample), tokenizer.encode(sample))
      assert.deepEqual(again.toJSON(), tokenizer.toJSON())
    })

    test('refuses ids it does not have', () => {
      for (const id of [-1, tokenizer.vocabSize, 0.5, Number.NaN]) {
        assert.throws(() => tokenizer.decode([id]), userError(/token id .*expected an integer from 0/))
      }
    })
  })
}

test('a stream that stops within a character ends in a replacement character', () => {
  const decoder = streamDecoder(bytesTokenizer())
  assert.equal(decoder.push(0xe6) + decoder.push(0x97), '')
  assert.equal(decoder.flush(), '\uFFFD')
})

test('lone surrogates become U+FFFD, as in any UTF-8', () => {
  assert.equal(bytesTokenizer().decode(bytesTokenizer().encode('a\uD800b')), 'a\uFFFDb')
})

test('chars gives the ids of nanoGPT', () => {
  const text = readFileSync(new URL('../../../data/text/tinyshakespeare.txt', import.meta.url), 'utf8')
  const chars = charsTokenizer(distinctCharacters([text]))
  assert.equal(chars.vocabSize, 65)
  // From data/shakespeare_char/prepare.py: newline, space, ..., z.
  assert.deepEqual([...chars.encode('\n z')], [0, 1, 64])
  assert.deepEqual([...chars.encode('First')], [18, 47, 56, 57, 58])
})

test('chars names the character it does not know and where it is', () => {
  const chars = charsTokenizer(['a', 'b', '😀'])
  assert.throws(
    () => chars.encode('a😀bé'),
    userError(/position 4: got the character "é" \(U\+00E9\).*tokenizer=bytes/),
  )
  assert.throws(() => chars.encode('🙂'), userError(/U\+1F642/))
})

test('tokenizerFromJSON refuses what is no tokenizer', () => {
  for (const json of [
    null,
    3,
    'x',
    [],
    {},
    { kind: 'words' },
    { kind: 'bpe' },
    { kind: 'bpe', huggingFace: {} },
  ]) {
    assert.throws(() => tokenizerFromJSON(json), userError(/tokenizer\.json/))
  }
  for (const characters of [undefined, [], ['ab'], ['a', 'a'], [''], [1]]) {
    assert.throws(
      () => tokenizerFromJSON({ kind: 'chars', characters }, 'run/tokenizer.json'),
      userError(/run\/tokenizer/),
    )
  }
})
