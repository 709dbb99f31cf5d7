/** The bundled digits, and what is refused: files of another format, cut short, changed, or of another set. */
import assert from 'node:assert/strict'
import { cpSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, test } from 'node:test'
import { gzipSync } from 'node:zlib'
import { digitsFolder, readDigits } from './digits.ts'
import { parseIdx, readIdx } from './idx.ts'

const scratch = mkdtempSync(join(tmpdir(), 'anneal-digits-'))
after(() => rmSync(scratch, { recursive: true, force: true }))

const idx = (extents: readonly number[], bytes: readonly number[], type = 8): Uint8Array => {
  const words = extents.flatMap((extent) => [
    extent >>> 24,
    (extent >>> 16) & 255,
    (extent >>> 8) & 255,
    extent & 255,
  ])
  return Uint8Array.from([0, 0, type, extents.length, ...words, ...bytes])
}

test('IDX of any rank is read, compressed or not', () => {
  assert.deepEqual(parseIdx(idx([2, 3], [1, 2, 3, 4, 5, 6]), 'a'), {
    extents: [2, 3],
    bytes: Uint8Array.of(1, 2, 3, 4, 5, 6),
  })
  assert.deepEqual(parseIdx(idx([300], Array(300).fill(7)), 'a').extents, [300])
  const [plain, packed] = [join(scratch, 'plain'), join(scratch, 'packed.gz')]
  writeFileSync(plain, idx([2], [8, 9]))
  writeFileSync(packed, gzipSync(idx([2], [8, 9])))
  for (const path of [plain, packed]) assert.deepEqual([...readIdx(path).bytes], [8, 9])
})

test('a file that is not IDX of bytes, or not whole, is refused with its name and what is wrong', () => {
  const cases: readonly [Uint8Array, RegExp][] = [
    [Uint8Array.of(0, 0, 8), /digits: got 3 bytes; expected at least the 4/],
    [idx([1], [1], 13), /digits: got magic 00000d01; expected 000008/],
    [Uint8Array.of(1, 0, 8, 1), /magic 01000801/],
    [Uint8Array.of(0, 0, 8, 0), /magic 00000800/],
    [idx([2, 3], []).subarray(0, 9), /got 9 bytes; expected 12, a header of 2 axes/],
    [idx([2, 3], [1, 2, 3, 4, 5]), /got 17 bytes; expected 18 for extents 2 x 3/],
    [idx([2], [1, 2, 3]), /got 11 bytes; expected 10/],
  ]
  for (const [bytes, message] of cases) assert.throws(() => parseIdx(bytes, 'digits'), message)
  const cut = join(scratch, 'cut.gz')
  writeFileSync(cut, gzipSync(idx([2], [8, 9])).subarray(0, 20))
  assert.throws(() => readIdx(cut), /cut\.gz: got .*; expected a whole gzip file; restore the file/)
})

test('the bundled digits are all there, with as many of each as published', () => {
  const [train, held] = [readDigits('train'), readDigits('test')]
  assert.deepEqual([train.count, held.count, train.pixels], [8000, 2000, [28, 28]])
  assert.deepEqual([train.images.length, held.images.length], [8000 * 784, 2000 * 784])
  const counts = Array(10).fill(0) as number[]
  for (const label of [...train.labels, ...held.labels]) counts[label]!++
  assert.deepEqual(counts, [1001, 1127, 991, 1032, 980, 863, 1014, 1070, 944, 978])
})

test('a byte that changed, labels of the other part, and images that are labels are refused', () => {
  const folder = join(scratch, 'copy')
  cpSync(digitsFolder, folder, { recursive: true })
  const [images, labels] = ['train-images-idx3-ubyte.gz', 'train-labels-idx1-ubyte.gz'] as const
  const bytes = readFileSync(join(folder, images))
  bytes[1000]! ^= 1
  writeFileSync(join(folder, images), bytes)
  assert.throws(() => readDigits('train', folder), /train-images.*got sha256 [0-9a-f]{64}; expected 5222bd84/)
  assert.equal(readDigits('test', folder).count, 2000)

  // Consistent with their hashes, but not with each other.
  const replace = (name: string, by: string): void => {
    const sums = readFileSync(join(folder, 'SHA256SUMS'), 'utf8').split('\n')
    const [hash] = sums.find((line) => line.endsWith(by))!.split('  ')
    writeFileSync(join(folder, name), readFileSync(join(digitsFolder, by)))
    writeFileSync(
      join(folder, 'SHA256SUMS'),
      sums.map((line) => (line.endsWith(name) ? `${hash}  ${name}` : line)).join('\n'),
    )
  }
  replace(images, images)
  replace(labels, 'test-labels-idx1-ubyte.gz')
  assert.throws(() => readDigits('train', folder), /train-labels.*got extents 2000; expected 8000/)
  replace(images, 'test-labels-idx1-ubyte.gz')
  assert.throws(() => readDigits('train', folder), /train-images.*got 1 axes; expected 3/)
})
