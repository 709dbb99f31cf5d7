/** Preparing text: the split, the cache, separators between documents, and refusals. */
import assert from 'node:assert/strict'
import {
  appendFileSync,
  mkdtempSync,
  readFileSync,
  readdirSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, test } from 'node:test'
import { fileURLToPath } from 'node:url'
import fc from 'fast-check'
import { UserError } from '../errors.ts'
import type { TokenFile } from './token-file.ts'
import { bpeFromHuggingFace } from './tokenizers/huggingface.ts'
import { prepareTokens } from './tokens.ts'
import type { PrepareOptions, PreparedTokens } from './tokens.ts'

const root = mkdtempSync(join(tmpdir(), 'anneal-prepare-'))
after(() => rmSync(root, { recursive: true }))

const userError = (pattern: RegExp) => (error: unknown) =>
  error instanceof UserError && !error.message.includes('\n') && pattern.test(error.message)

const shakespeare = fileURLToPath(new URL('../../data/text/tinyshakespeare.txt', import.meta.url))

function folderOf(files: Readonly<Record<string, string>>): string {
  const folder = mkdtempSync(join(root, 'text-'))
  for (const [name, content] of Object.entries(files)) writeFileSync(join(folder, name), content)
  return folder
}

const prepare = (path: string, options: Partial<PrepareOptions> = {}): Promise<PreparedTokens> =>
  prepareTokens({ path, tokenizer: 'chars', cacheDir: join(root, 'cache'), ...options })

const idsOf = (file: TokenFile): number[] => Array.from({ length: file.length }, (_, i) => file.at(i))

function close({ train, validation }: PreparedTokens): void {
  train.close()
  validation.close()
}

test('splits tinyshakespeare as nanoGPT does, and finds it in the cache the second time', async () => {
  const first = await prepare(shakespeare)
  assert.equal(first.tokenizer.vocabSize, 65)
  assert.equal(first.train.length, 1_003_854)
  assert.equal(first.validation.length, 111_540)
  assert.equal(first.textBytes, 1_115_394)
  assert.equal(first.validationBytes, 111_540)
  assert.equal(first.validationChars, 111_540)
  assert.deepEqual(first.sources, ['tinyshakespeare.txt'])
  assert.equal(first.tokenizer.decode(idsOf(first.validation).slice(0, 13)), '?\n\nGREMIO:\nGo')
  close(first)

  const file = join(first.folder, 'train.tokens')
  const written = statSync(file).mtimeMs
  const second = await prepare(shakespeare)
  assert.equal(second.folder, first.folder)
  assert.equal(statSync(file).mtimeMs, written)
  assert.deepEqual(second.tokenizer.toJSON(), first.tokenizer.toJSON())
  assert.equal(second.validationChars, 111_540)
  close(second)
})

test('damaged or mixed-up cache files are made again', async () => {
  const path = folderOf({ 'a.txt': 'to be or not to be' })
  const first = await prepare(path, { tokenizer: 'bytes' })
  const expected = idsOf(first.train)
  close(first)
  for (const name of readdirSync(first.folder)) {
    appendFileSync(join(first.folder, name), 'x')
    const again = await prepare(path, { tokenizer: 'bytes' })
    assert.deepEqual(idsOf(again.train), expected)
    close(again)
  }
  writeFileSync(join(first.folder, 'tokenizer.json'), '{"kind":"chars","characters":["a"]}')
  const again = await prepare(path, { tokenizer: 'bytes' })
  assert.equal(again.tokenizer.kind, 'bytes')
  close(again)
})

test('the cache key follows text, tokenizer, vocabulary and split', async () => {
  const path = folderOf({ 'a.txt': 'abcabcabcabcabcabc' })
  const changes: readonly Partial<PrepareOptions>[] = [
    {},
    { tokenizer: 'bytes' },
    { tokenizer: 'bpe', vocab: 257 },
    { tokenizer: 'bpe', vocab: 258 },
    { validationFraction: 0.2 },
    { path: folderOf({ 'a.txt': 'abcabcabcabcabcabd' }) },
    // The same characters in two documents.
    { path: folderOf({ 'a.txt': 'abcabcabc', 'b.txt': 'abcabcabc' }), tokenizer: 'bpe', vocab: 257 },
  ]
  const folders = new Set<string>()
  for (const change of changes) {
    const prepared = await prepare(change.path ?? path, { minTokens: 0, ...change })
    folders.add(prepared.folder)
    close(prepared)
  }
  assert.equal(folders.size, changes.length)
})

test('documents are separated: by a newline, or by <|endoftext|> for BPE', async () => {
  const path = folderOf({ 'a.txt': 'aaaa', 'b.txt': 'bbbb', 'c.txt': 'cc' })
  const chars = await prepare(path, { validationFraction: 0.25 })
  assert.equal(chars.tokenizer.decode(idsOf(chars.train)), 'aaaa\nbbbb')
  assert.equal(chars.tokenizer.decode(idsOf(chars.validation)), '\ncc')
  close(chars)
  const bpe = await prepare(path, { tokenizer: 'bpe', vocab: 257, validationFraction: 0.4 })
  assert.equal(bpe.tokenizer.decode(idsOf(bpe.train)), 'aaaa<|endoftext|>bb')
  assert.equal(bpe.tokenizer.decode(idsOf(bpe.validation)), 'bb<|endoftext|>cc')
  assert.equal(bpe.validationChars, 4)
  close(bpe)
})

test('BPE learns from the training part only', async () => {
  const path = folderOf({ 'a.txt': `${'ab '.repeat(30)}${'xyz'.repeat(3)}` })
  const { tokenizer, ...rest } = await prepare(path, { tokenizer: 'bpe', vocab: 300 })
  assert.equal(tokenizer.encode('xyz').length, 3)
  assert.equal(tokenizer.encode('ab').length, 1)
  close({ tokenizer, ...rest })
})

test('takes a finished tokenizer', async () => {
  const json = new URL('../../tests/fixtures/tokenizer/bpe-shakespeare-1024/tokenizer.json', import.meta.url)
  const tokenizer = bpeFromHuggingFace(JSON.parse(readFileSync(json, 'utf8')))
  const path = folderOf({ 'a.txt': 'First Citizen: speak', 'b.txt': 'speak', 'c.txt': 'hear me' })
  const prepared = await prepare(path, { tokenizer, validationFraction: 0.25 })
  assert.equal(prepared.tokenizer, tokenizer)
  assert.equal(tokenizer.decode(idsOf(prepared.train)), 'First Citizen: speak<|endoftext|>spea')
  assert.equal(tokenizer.decode(idsOf(prepared.validation)), 'k<|endoftext|>hear me')
  close(prepared)
})

/** Prepares documents as bytes and holds the two parts against the joined text. */
async function checkSplit(documents: readonly string[], fraction: number): Promise<void> {
  const files = documents.map((text, i) => [`${i}.jsonl`, JSON.stringify({ text })] as const)
  const prepared = await prepare(folderOf(Object.fromEntries(files)), {
    tokenizer: 'bytes',
    validationFraction: fraction,
    minTokens: 0,
    cacheDir: mkdtempSync(join(root, 'cache-')),
  })
  const { tokenizer, train, validation } = prepared
  const [first, second] = [tokenizer.decode(idsOf(train)), tokenizer.decode(idsOf(validation))]
  const whole = documents.join('\n')
  assert.equal(first + second, whole)
  const characters = Array.from(whole).length
  assert.equal(Array.from(first).length, Math.floor(characters * (1 - fraction)))
  assert.equal(prepared.validationChars, Array.from(second).length)
  assert.equal(prepared.validationBytes, Buffer.byteLength(second))
  close(prepared)
}

test('the split never falls inside a character and loses nothing', async () => {
  const texts = fc.array(fc.string({ unit: 'binary', minLength: 1, maxLength: 8 }), {
    minLength: 1,
    maxLength: 3,
  })
  await fc.assert(fc.asyncProperty(texts, fc.constantFrom(0.1, 0.5, 0.9), checkSplit), { numRuns: 8 })
})

test('refuses a part too short for a window, and a fraction that leaves none', async () => {
  const path = folderOf({ 'a.txt': 'x'.repeat(100) })
  await assert.rejects(
    prepare(path, { minTokens: 65 }),
    userError(/validation part of 10 tokens; expected at least 65/),
  )
  await assert.rejects(prepare(path, { minTokens: 91 }), userError(/training part of 90 tokens/))
  for (const validationFraction of [0, 1, -1, Number.NaN]) {
    await assert.rejects(prepare(path, { validationFraction }), userError(/validation fraction/))
  }
})

test('a cache that cannot be made is a clear error', async () => {
  const path = folderOf({ 'a.txt': 'x'.repeat(100) })
  await assert.rejects(
    prepare(path, { cacheDir: join(path, 'a.txt') }),
    userError(/a\.txt.*not a folder|in the place of/),
  )
})
