/**
 * Files that are damaged or lie. The rule: a UserError on one line, never a crash, and with our checksums present never a
 * wrong byte.
 */
import assert from 'node:assert/strict'
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, test } from 'node:test'
import fc from 'fast-check'
import { UserError } from '../../errors.ts'
import { openSafetensors } from './reader.ts'
import { writeSafetensors } from './writer.ts'
import type { TensorData } from './writer.ts'

const folder = mkdtempSync(join(tmpdir(), 'anneal-format-'))
after(() => rmSync(folder, { recursive: true }))
const path = join(folder, 'model.safetensors')

const userError = (pattern: RegExp) => (error: unknown) =>
  error instanceof UserError && !error.message.includes('\n') && pattern.test(error.message)

const published = new URL('../../../tests/fixtures/checkpoints/gpt2-tiny/model.safetensors', import.meta.url)

/** Everything a file says: metadata, names, shapes, bytes. */
function readAll(file: string): unknown {
  const opened = openSafetensors(file)
  try {
    const tensors = Array.from(opened.tensors, ([name, info]) => [name, info, [...opened.read(name)]])
    return { metadata: opened.metadata, tensors }
  } finally {
    opened.close()
  }
}

/** A file with any header over any buffer. */
function craft(header: unknown, buffer: Uint8Array = new Uint8Array(0)): void {
  const json = Buffer.from(typeof header === 'string' ? header : JSON.stringify(header))
  const prefix = Buffer.alloc(8)
  prefix.writeBigUInt64LE(BigInt(json.length))
  writeFileSync(path, Buffer.concat([prefix, json, buffer]))
}

const small: readonly TensorData[] = [
  { name: 'bias', dtype: 'F32', shape: [2], data: Float32Array.of(1.5, -2) },
  { name: 'ids', dtype: 'I64', shape: [1], data: BigInt64Array.of(-1n) },
  { name: 'half', dtype: 'BF16', shape: [1, 3], data: Uint16Array.of(0x3f80, 0xc000, 1) },
]

test('a flipped bit anywhere in a file of ours is noticed before a byte is handed out', () => {
  writeSafetensors(path, small, { step: '200' })
  const good = readFileSync(path)
  const truth = readAll(path)
  // One bit of every byte, a different one from byte to byte.
  for (let at = 0; at < good.length; at++) {
    const bad = Buffer.from(good)
    bad[at]! ^= 1 << ((at * 5 + 3) % 8)
    writeFileSync(path, bad)
    assert.throws(() => readAll(path), userError(/model\.safetensors.*earlier checkpoint/), `byte ${at}`)
  }
  writeFileSync(path, good)
  assert.deepEqual(readAll(path), truth)
})

test('every truncation, and anything appended, is noticed', () => {
  writeSafetensors(path, small)
  const good = readFileSync(path)
  for (let length = 0; length < good.length; length++) {
    writeFileSync(path, good.subarray(0, length))
    assert.throws(() => openSafetensors(path), userError(/model\.safetensors/), `length ${length}`)
  }
  writeFileSync(path, Buffer.concat([good, Uint8Array.of(0)]))
  assert.throws(
    () => openSafetensors(path),
    userError(/bytes of data; expected the 22 bytes its tensors take/),
  )
})

test('files of other tools, damaged anywhere, are read or refused but never crash', () => {
  const good = readFileSync(published)
  const headerEnd = 8 + good.readUInt32LE(0)
  fc.assert(
    fc.property(fc.nat({ max: headerEnd + 64 }), fc.integer({ min: 1, max: 255 }), (at, flip) => {
      const bad = Buffer.from(good)
      bad[at]! ^= flip
      writeFileSync(path, bad)
      try {
        readAll(path)
      } catch (error) {
        assert.ok(userError(/model\.safetensors/)(error), String(error))
      }
    }),
    { numRuns: 80 },
  )
})

test('arbitrary bytes are refused', () => {
  const header = fc.json().map((json) => Buffer.from(json))
  const junk = fc.oneof(
    fc.uint8Array({ maxLength: 200 }).map((bytes) => Buffer.from(bytes)),
    header,
  )
  fc.assert(
    fc.property(junk, fc.option(fc.nat({ max: 300 })), (bytes, claimed) => {
      craft(bytes.toString('latin1'))
      if (claimed !== null) {
        const file = readFileSync(path)
        file.writeUInt32LE(claimed)
        writeFileSync(path, file)
      }
      try {
        assert.deepEqual(readAll(path), { metadata: {}, tensors: [] })
      } catch (error) {
        assert.ok(userError(/model\.safetensors/)(error), String(error))
      }
    }),
    { numRuns: 80 },
  )
})

/** A header entry, true or not. */
const f32 = (shape: unknown, data_offsets: unknown, dtype: unknown = 'F32'): object => ({
  dtype,
  shape,
  data_offsets,
})

test('refuses headers that lie, naming the tensor and the rule', () => {
  const lies: readonly (readonly [unknown, number, RegExp])[] = [
    [' {}', 0, /does not begin with \{/],
    ['{"a"', 0, /no JSON/],
    ['{"a":\n\n x}', 0, /no JSON/],
    ['{}}', 0, /no JSON/],
    [
      '{"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},"\\u0061":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}}',
      1,
      /the key "a" twice/,
    ],
    ['{"a":{"dtype":"U8","dtype":"I8","shape":[1],"data_offsets":[0,1]}}', 1, /the key "dtype" twice/],
    [{ __metadata__: { a: 1 } }, 0, /__metadata__: got \{"a":1\}; expected an object of strings/],
    [{ a: 3 }, 0, /tensor "a": got 3/],
    [{ a: f32([1], [0, 4], 'F31') }, 4, /dtype "F31"; expected one of BOOL/],
    [{ a: f32([1], [0, 4], 'toString') }, 4, /dtype "toString"/],
    [{ a: f32([-1], [0, 4]) }, 4, /shape \[-1\]/],
    [{ a: f32([1.5], [0, 4]) }, 4, /shape \[1\.5\]/],
    [{ a: f32([2 ** 40, 2 ** 40], [0, 4]) }, 4, /sizes that can be stored/],
    [{ a: f32('2', [0, 4]) }, 4, /shape "2"/],
    [{ a: f32([1], [0]) }, 4, /data_offsets \[0\]/],
    [{ a: f32([1], [4, 0]) }, 4, /two rising byte positions/],
    [{ a: f32([1], [-4, 0]) }, 4, /data_offsets \[-4,0\]/],
    [{ a: f32([1], [4, 8]) }, 4, /positions within the 4 bytes/],
    [{ a: f32([2], [0, 4]) }, 4, /tensor "a": got 4 bytes of data; expected 8 for F32 \[2\]/],
    [{ a: f32([1], [0, 4]), b: f32([1], [8, 12]) }, 12, /tensor "b": .*leaving 4 bytes unused/],
    [{ a: f32([1], [0, 4]), b: f32([1], [0, 4]) }, 4, /tensor "b": .*overlapping/],
    [{ a: f32([2], [0, 8]), b: f32([1], [4, 8]) }, 8, /overlapping/],
    [{ a: f32([1], [0, 4]) }, 5, /got 5 bytes of data; expected the 4/],
    [{ __metadata__: { 'anneal.sha256': '0'.repeat(64) } }, 0, /without one of its two checksums/],
  ]
  for (const [header, bytes, pattern] of lies) {
    craft(header, new Uint8Array(bytes))
    assert.throws(() => openSafetensors(path), userError(pattern), JSON.stringify(header))
  }
  writeFileSync(path, Buffer.from('ffffffffffffffff7b7d', 'hex'))
  assert.throws(() => openSafetensors(path), userError(/a header of 18446744073709552000 bytes/))
})

test('accepts what the format allows: scalars, empty tensors, padding, spaces, an empty file', () => {
  craft(
    '{"b": {"shape":[],"dtype":"U8","data_offsets":[0,1]}, "a":{"dtype":"F64","shape":[0,3],"data_offsets":[0,0]}}   ',
    Uint8Array.of(7),
  )
  const file = openSafetensors(path)
  assert.deepEqual(file.read('b'), Uint8Array.of(7))
  assert.equal(file.readF32('a').length, 0)
  file.close()
  craft({})
  assert.deepEqual(readAll(path), { metadata: {}, tensors: [] })
})
