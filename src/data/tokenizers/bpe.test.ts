/** Byte-level BPE against the Hugging Face library: the same ids, the same merges in the same order, the same file. */
import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { test } from 'node:test'
import fc from 'fast-check'
import { UserError } from '../../errors.ts'
import { trainBpe } from './bpe-train.ts'
import { compileSplit, forEachPiece } from './byte-level.ts'
import { bpeFromHuggingFace, byteLevelJson } from './huggingface.ts'

const userError = (pattern: RegExp) => (error: unknown) =>
  error instanceof UserError && !error.message.includes('\n') && pattern.test(error.message)

const root = new URL('../../../', import.meta.url)
const read = (path: string): string => readFileSync(new URL(path, root), 'utf8')
const fixture = JSON.parse(read('tests/fixtures/tokenizer/bpe-shakespeare-1024/tokenizer.json')) as Record<
  string,
  unknown
>
const reference = JSON.parse(read('tests/fixtures/tokenizer/bpe-shakespeare-1024/reference.json')) as {
  readonly cases: readonly { readonly text: string; readonly ids: number[]; readonly decoded: string }[]
  readonly whole_file_tokens: number
}
const shakespeare = read('data/text/tinyshakespeare.txt')

/** The fixture with one field of its model, or of itself, changed. */
const changed = (fields: object, model: object = {}): unknown => ({
  ...fixture,
  model: { ...(fixture['model'] as object), ...model },
  ...fields,
})

test('encodes and decodes the twelve reference texts exactly', () => {
  const tokenizer = bpeFromHuggingFace(fixture)
  assert.equal(reference.cases.length, 12)
  for (const { text, ids, decoded } of reference.cases) {
    assert.deepEqual([...tokenizer.encode(text)], ids)
    assert.equal(tokenizer.decode(ids), decoded)
  }
  assert.equal(tokenizer.endOfText, 0)
})

test('training on the same text gives the same file, merge for merge', () => {
  const trained = trainBpe([shakespeare], { vocabSize: 1024 })
  assert.deepEqual(trained.toHuggingFace(), fixture)
  const ids = trained.encode(shakespeare)
  assert.equal(ids.length, reference.whole_file_tokens)
  assert.equal(trained.decode(ids), shakespeare)
})

/** The definition, word for word: merge the earliest-ranked pair, leftmost first, until none applies. */
function encodeByDefinition(word: string, merges: readonly (readonly [string, string])[]): string[] {
  const symbols = Array.from(word)
  for (;;) {
    const ranks = symbols
      .slice(1)
      .map((right, i) => merges.findIndex(([a, b]) => a === symbols[i] && b === right))
    const best = Math.min(...ranks.filter((rank) => rank >= 0))
    if (best === Infinity) return symbols
    const at = ranks.indexOf(best)
    symbols.splice(at, 2, symbols[at]! + symbols[at + 1]!)
  }
}

test('the heap encoder and the incremental trainer agree with their definitions', () => {
  fc.assert(
    fc.property(
      fc.array(fc.string({ unit: fc.constantFrom('a', 'b', 'c'), minLength: 1, maxLength: 30 })),
      (words) => {
        const trained = trainBpe([words.join('\n')], { vocabSize: 280, specials: [] })
        const { merges } = trained.toHuggingFace()['model'] as {
          readonly merges: readonly (readonly [string, string])[]
        }
        const id = (token: string): number => trained.encode(token)[0]!
        for (const word of words) {
          const expected = encodeByDefinition(word, merges)
          assert.deepEqual(
            [...trained.encode(word)],
            expected.map((token) =>
              token.length === 1 ? id(token) : 256 + merges.findIndex(([a, b]) => a + b === token),
            ),
          )
        }
        assert.deepEqual(merges[0], mostFrequentPair(words))
      },
    ),
    { numRuns: 100 },
  )
})

/** The first merge by counting: most frequent, ties to the smallest letters. */
function mostFrequentPair(words: readonly string[]): string[] | undefined {
  const counts = new Map<string, number>()
  for (const word of words) {
    for (let i = 0; i + 1 < word.length; i++) {
      const pair = word.slice(i, i + 2)
      counts.set(pair, (counts.get(pair) ?? 0) + 1)
    }
  }
  const best = [...counts].toSorted(([a, m], [b, n]) => n - m || (a < b ? -1 : 1))[0]
  return best && Array.from(best[0])
}

test('a text without a space does not take quadratic time', () => {
  const tokenizer = bpeFromHuggingFace(fixture)
  const text = 'the'.repeat(30_000)
  const began = performance.now()
  assert.equal(tokenizer.decode(tokenizer.encode(text)), text)
  assert.ok(performance.now() - began < 2_000)
})

test('stops early when no pair is left, and refuses a vocabulary without room for bytes', () => {
  assert.equal(trainBpe(['ab ab'], { vocabSize: 1000 }).vocabSize, 259)
  assert.equal(trainBpe([''], { vocabSize: 257 }).vocabSize, 257)
  assert.throws(() => trainBpe(['x'], { vocabSize: 256 }), userError(/got 256; expected an integer from 257/))
  assert.throws(() => trainBpe(['x'], { vocabSize: 300.5 }), userError(/300\.5/))
})

test('the longest special token wins where several begin', () => {
  const tokenizer = trainBpe(['abc'], { vocabSize: 300, specials: ['<|a|>', '<|a|>>', '$'] })
  assert.deepEqual([...tokenizer.encode('<|a|>><|a|>$')], [1, 0, 2])
})

test('pieces joined are the text, whatever the patterns', () => {
  const patterns = [String.raw`\p{N}{1,3}`, String.raw`\s+(?!\S)|\S+`, 'x*'].map((p) =>
    compileSplit(p, 'test'),
  )
  fc.assert(
    fc.property(fc.string({ unit: 'binary' }), (text) => {
      const pieces: string[] = []
      forEachPiece(text, patterns, (piece) => pieces.push(piece))
      assert.equal(pieces.join(''), text)
      assert.ok(!pieces.includes(''))
    }),
  )
})

test('reads the pre-tokenizer of Llama 3 and Qwen2, normalisation, and whole pieces', () => {
  const llama3 = String.raw`(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+`
  const pieces: string[] = []
  forEachPiece("I'LL pay 12345!\n\n x", [compileSplit(llama3, 'test')], (piece) => pieces.push(piece))
  assert.deepEqual(pieces, ['I', "'LL", ' pay', ' ', '123', '45', '!\n\n', ' x'])
  const tokenizer = bpeFromHuggingFace(
    changed({
      normalizer: { type: 'NFC' },
      pre_tokenizer: {
        type: 'Sequence',
        pretokenizers: [
          { type: 'Split', pattern: { Regex: llama3 }, behavior: 'Isolated', invert: false },
          { type: 'ByteLevel', add_prefix_space: false, use_regex: false },
        ],
      },
    }),
  )
  assert.equal(tokenizer.decode(tokenizer.encode('cafe\u0301')), 'caf\u00e9')
  // "the" is in no merge path here, yet is taken whole.
  const tokens = ['a', 'b', 'c', 'abc']
  const whole = { ...byteLevelJson({ tokens, merges: [], specials: [] }) }
  const model = { ...(whole['model'] as object), ignore_merges: true }
  assert.deepEqual([...bpeFromHuggingFace({ ...whole, model }).encode('abc')], [3])
  assert.throws(() => bpeFromHuggingFace(whole).encode('xyz'), userError(/the byte 0x78, which has no entry/))
})

test('reads merges written as one string, as older files have them', () => {
  const { merges } = fixture['model'] as { readonly merges: readonly (readonly string[])[] }
  const tokenizer = bpeFromHuggingFace(changed({}, { merges: merges.map((pair) => pair.join(' ')) }))
  assert.deepEqual([...tokenizer.encode(reference.cases[0]!.text)], reference.cases[0]!.ids)
})

test('refuses by name what it does not support or cannot be', () => {
  const refusals: readonly (readonly [unknown, RegExp])[] = [
    [null, /top level/],
    [changed({ model: 3 }), /model: got 3/],
    [changed({}, { type: 'Unigram' }), /model\.type: got "Unigram"; expected "BPE"/],
    [changed({}, { dropout: 0.1 }), /model\.dropout/],
    [changed({}, { byte_fallback: true }), /byte_fallback/],
    [changed({}, { vocab: {} }), /merges.*not in the vocabulary/],
    [changed({}, { vocab: { a: -1 } }), /id -1 for "a"/],
    [changed({}, { vocab: { a: 1, b: 1 } }), /id 1 for both "a" and "b"/],
    [changed({}, { merges: [['a']] }), /\["a"\] at place 0/],
    [changed({}, { merges: 'x' }), /expected a list/],
    [changed({ added_tokens: [{ id: 0, content: 'x', lstrip: true }] }), /lstrip/],
    [changed({ normalizer: { type: 'Lowercase' } }), /normalizer\.type: got "Lowercase"/],
    [changed({ pre_tokenizer: { type: 'Metaspace' } }), /pre_tokenizer: got type "Metaspace"/],
    [changed({ pre_tokenizer: { type: 'ByteLevel', add_prefix_space: true } }), /add_prefix_space/],
    [
      changed({ pre_tokenizer: { type: 'Split', pattern: { Regex: 'a++' }, behavior: 'Isolated' } }),
      /expression JavaScript cannot run/,
    ],
  ]
  for (const [json, pattern] of refusals) assert.throws(() => bpeFromHuggingFace(json), userError(pattern))
})
