/** Token files: what is written is read back, and any damage is an error before an id is handed out. */
import assert from 'node:assert/strict'
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, test } from 'node:test'
import fc from 'fast-check'
import { InternalError, UserError } from '../errors.ts'
import { openTokens, writeTokens } from './token-file.ts'

const folder = mkdtempSync(join(tmpdir(), 'anneal-tokens-'))
after(() => rmSync(folder, { recursive: true }))

const userError = (pattern: RegExp) => (error: unknown) =>
  error instanceof UserError && !error.message.includes('\n') && pattern.test(error.message)

const hash = 'ab'.repeat(32)
const path = join(folder, 'a.tokens')

test('reads back what was written, in 16 bits where they suffice', () => {
  const chunks = fc.array(fc.array(fc.nat({ max: 65_535 }), { maxLength: 20 }), { maxLength: 5 })
  fc.assert(
    fc.property(chunks, fc.boolean(), (chunks, wide) => {
      writeTokens(path, chunks, { vocabSize: wide ? 65_537 : 65_536, tokenizerHash: hash })
      const file = openTokens(path)
      const ids = chunks.flat()
      assert.equal(file.length, ids.length)
      assert.equal(file.dtype, wide ? 'u32' : 'u16')
      assert.equal(file.tokenizerHash, hash)
      file.verify()
      const all = new Int32Array(ids.length + 1)
      file.copyInto(all, 1, 0, ids.length)
      assert.deepEqual([...all], [0, ...ids])
      ids.forEach((id, i) => assert.equal(file.at(i), id))
      file.close()
    }),
    { numRuns: 50 },
  )
})

test('reading outside the file, or after closing, is a broken invariant and never foreign memory', () => {
  writeTokens(path, [[1, 2, 3]], { vocabSize: 10, tokenizerHash: hash })
  const file = openTokens(path)
  const target = new Int32Array(10)
  for (const [start, count] of [
    [-1, 2],
    [2, 2],
    [0, -1],
    [Number.NaN, 1],
  ] as const) {
    assert.throws(() => file.copyInto(target, 0, start, count), InternalError)
  }
  assert.throws(() => file.at(3), InternalError)
  file.close()
  file.close()
  assert.throws(() => file.at(0), InternalError)
  assert.throws(() => file.copyInto(target, 0, 0, 1), InternalError)
})

test('replacing a file leaves an open one as it was', () => {
  writeTokens(path, [[1]], { vocabSize: 10, tokenizerHash: hash })
  const file = openTokens(path)
  writeTokens(path, [[2, 3]], { vocabSize: 10, tokenizerHash: hash })
  assert.equal(file.at(0), 1)
  file.close()
})

test('every flipped bit and every truncation is noticed', () => {
  writeTokens(path, [[1, 2, 3]], { vocabSize: 10, tokenizerHash: hash })
  const good = readFileSync(path)
  const opens = (bytes: Uint8Array): void => {
    writeFileSync(path, bytes)
    const file = openTokens(path)
    try {
      file.verify()
    } finally {
      file.close()
    }
  }
  for (let bit = 0; bit < good.length * 8; bit++) {
    const bad = Buffer.from(good)
    bad[bit >> 3]! ^= 1 << (bit & 7)
    assert.throws(() => opens(bad), userError(/a\.tokens: got .*delete it/))
  }
  for (let length = 0; length < good.length; length++) {
    assert.throws(() => opens(good.subarray(0, length)), userError(/a\.tokens/))
  }
  assert.throws(() => opens(Buffer.concat([good, good])), userError(/bytes; expected 70/))
  assert.throws(() => openTokens(join(folder, 'a.token')), userError(/did you mean a\.tokens\?/))
})
