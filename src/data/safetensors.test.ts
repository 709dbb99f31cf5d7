/**
 * safetensors from the outside: round trips, published checkpoints, shards and their index. Damaged and lying files are
 * in safetensors/format.test.ts.
 */
import assert from 'node:assert/strict'
import { copyFileSync, cpSync, mkdtempSync, readFileSync, readdirSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, test } from 'node:test'
import { fileURLToPath } from 'node:url'
import fc from 'fast-check'
import { InternalError, UserError } from '../errors.ts'
import { DTYPE_BYTES, openCheckpointFolder, openSafetensors, writeSafetensors } from './safetensors.ts'
import type { Dtype, TensorData } from './safetensors.ts'

const folder = mkdtempSync(join(tmpdir(), 'anneal-safetensors-'))
after(() => rmSync(folder, { recursive: true }))
const path = join(folder, 'model.safetensors')

const userError = (pattern: RegExp) => (error: unknown) =>
  error instanceof UserError && !error.message.includes('\n') && pattern.test(error.message)

const fixture = (name: string): string =>
  fileURLToPath(new URL(`../../tests/fixtures/checkpoints/${name}`, import.meta.url))

test('reads back any tensors of any dtype, aligned, in a fixed order', () => {
  const tensor = fc
    .record({
      dtype: fc.constantFrom(...(Object.keys(DTYPE_BYTES) as Dtype[])),
      shape: fc.array(fc.nat({ max: 4 }), { maxLength: 3 }),
      seed: fc.nat(),
    })
    .map(({ dtype, shape, seed }) => {
      const bytes = shape.reduce((a, b) => a * b, 1) * DTYPE_BYTES[dtype]
      return { dtype, shape, data: Uint8Array.from({ length: bytes }, (_, i) => (seed + i * 37) & 255) }
    })
  const names = fc.oneof(
    fc.string(),
    fc.string({ unit: 'grapheme' }),
    fc.constantFrom('__proto__', '0', 'constructor'),
  )
  const file = fc.dictionary(
    names.filter((name) => name !== '__metadata__' && name.isWellFormed()),
    tensor,
    { noNullPrototype: true },
  )
  fc.assert(
    fc.property(
      file,
      fc.dictionary(fc.string(), fc.string(), { noNullPrototype: true }),
      (byName, metadata) => {
        const tensors = Object.entries(byName).map(([name, { dtype, shape, data }]) => ({
          name,
          dtype,
          shape,
          data,
        }))
        writeSafetensors(path, tensors, metadata)
        const written = readFileSync(path)
        const opened = openSafetensors(path)
        assert.equal(opened.tensors.size, tensors.length)
        assert.equal(opened.verify(), true)
        for (const [key, value] of Object.entries(metadata)) assert.equal(opened.metadata[key], value)
        for (const { name, dtype, shape, data } of tensors) {
          const info = opened.tensors.get(name)!
          assert.deepEqual([info.dtype, info.shape, info.bytes], [dtype, shape, data.length])
          assert.deepEqual(opened.read(name), data)
        }
        opened.close()
        assert.equal(written.readUInt32LE(0) % 8, 0)
        writeSafetensors(path, tensors.toReversed(), metadata)
        assert.deepEqual(readFileSync(path), written)
      },
    ),
    { numRuns: 60 },
  )
})

test('converts stored floats to float32 exactly', () => {
  const halves = Uint16Array.from({ length: 65_536 }, (_, i) => i)
  const doubles = Float64Array.of(0.1, -1e300, 1e-50, 3)
  writeSafetensors(path, [
    { name: 'f16', dtype: 'F16', shape: [65_536], data: halves },
    { name: 'bf16', dtype: 'BF16', shape: [65_536], data: halves },
    { name: 'f64', dtype: 'F64', shape: [4], data: doubles },
    { name: 'f32', dtype: 'F32', shape: [], data: Float32Array.of(0.1) },
    { name: 'i32', dtype: 'I32', shape: [1], data: Int32Array.of(1) },
  ])
  const file = openSafetensors(path)
  const f16 = file.readF32('f16')
  for (let bits = 0; bits < 65_536; bits++) {
    const exponent = (bits >> 10) & 31
    const fraction = bits & 1023
    const size =
      exponent === 31
        ? fraction
          ? Number.NaN
          : Infinity
        : exponent === 0
          ? fraction * 2 ** -24
          : (1024 + fraction) * 2 ** (exponent - 25)
    if (!Object.is(f16[bits], bits & 0x8000 ? -size : size))
      assert.fail(`F16 ${bits.toString(16)}: ${f16[bits]}`)
  }
  const bf16 = new Uint32Array(file.readF32('bf16').buffer)
  assert.ok(bf16.every((bits, i) => bits === i * 65_536))
  assert.deepEqual(file.readF32('f64'), Float32Array.from(doubles))
  assert.deepEqual(file.readF32('f32'), Float32Array.of(0.1))
  assert.throws(() => file.readF32('i32'), userError(/tensor "i32": got I32.*expected F32/))
  assert.throws(() => file.read('bf166'), userError(/no such tensor.*did you mean bf16\?/))
  file.close()
  file.close()
  assert.throws(() => file.read('f16'), InternalError)
})

test('reads checkpoints of other tools, which carry no checksum', () => {
  const file = openCheckpointFolder(fixture('gpt2-tiny'))
  assert.deepEqual(file.metadata, { format: 'pt' })
  assert.equal(file.verify(), false)
  assert.deepEqual(file.tensors.get('transformer.h.0.attn.c_attn.weight')?.shape, [32, 96])
  for (const [name, { shape }] of file.tensors) {
    const values = file.readF32(name)
    assert.equal(
      values.length,
      shape.reduce((a, b) => a * b, 1),
    )
    assert.ok(values.every(Number.isFinite))
  }
  file.close()
})

test('a sharded checkpoint is the whole one, rounded to BF16', () => {
  const whole = openCheckpointFolder(fixture('smollm2-tiny'))
  const sharded = openCheckpointFolder(fixture('smollm2-tiny-bf16-sharded'))
  assert.deepEqual([...sharded.tensors.keys()].toSorted(), [...whole.tensors.keys()].toSorted())
  for (const name of whole.tensors.keys()) {
    const exact = whole.readF32(name)
    const rounded = sharded.readF32(name)
    assert.ok(exact.every((value, i) => Math.abs(value - rounded[i]!) <= Math.abs(value) * 2 ** -8))
  }
  assert.throws(() => sharded.read('model.norm.weigh'), userError(/did you mean model\.norm\.weight\?/))
  whole.close()
  sharded.close()
})

test('the writer refuses tensors that do not fit their shape or name', () => {
  const data = Float32Array.of(1)
  const write = (tensor: Partial<TensorData>) => () =>
    writeSafetensors(path, [
      { name: 'a', dtype: 'F32', shape: [1], data },
      { name: 'b', dtype: 'F32', shape: [1], data, ...tensor },
    ])
  assert.throws(write({ shape: [2] }), userError(/tensor "b": got 4 bytes of data; expected 8 for F32 \[2\]/))
  assert.throws(write({ name: 'a' }), userError(/the name twice/))
  assert.throws(write({ name: '__metadata__' }), userError(/cannot be stored/))
})

/** A copy of the sharded fixture with its index changed. */
function shardedCopy(change: (map: Record<string, unknown>) => unknown): string {
  const copy = mkdtempSync(join(folder, 'sharded-'))
  cpSync(fixture('smollm2-tiny-bf16-sharded'), copy, { recursive: true })
  const index = join(copy, 'model.safetensors.index.json')
  const json = JSON.parse(readFileSync(index, 'utf8')) as { weight_map: Record<string, unknown> }
  writeFileSync(index, JSON.stringify({ weight_map: change(json.weight_map) }))
  return copy
}

test('refuses an index that does not agree with its shards', () => {
  const norm = 'model.norm.weight'
  const other = 'model-00001-of-00003.safetensors'
  const lies: readonly (readonly [(map: Record<string, unknown>) => unknown, RegExp])[] = [
    [() => 3, /weight_map: got 3/],
    [() => ({}), /no tensors/],
    [(map) => ({ ...map, [norm]: '../x.safetensors' }), /tensor "model\.norm\.weight": got "\.\.\/x/],
    [(map) => ({ ...map, [norm]: 1 }), /got 1; expected the name of/],
    [
      (map) => ({ ...map, [norm]: 'model-00004-of-00003.safetensors' }),
      /model-00004.*no such file.*did you mean/,
    ],
    [(map) => ({ ...map, [norm]: other }), /which the index places in model-00001/],
    [(map) => ({ ...map, extra: other }), /tensor "extra" placed in model-00001.*does not hold it/],
    [
      (map) => Object.fromEntries(Object.entries(map).filter(([name]) => name !== norm)),
      /which the index does not list/,
    ],
  ]
  for (const [change, pattern] of lies) {
    assert.throws(() => openCheckpointFolder(shardedCopy(change)), userError(pattern), String(pattern))
  }
  const copy = shardedCopy((map) => map)
  writeFileSync(join(copy, 'model.safetensors.index.json'), '{"weight_map": {\n')
  assert.throws(() => openCheckpointFolder(copy), userError(/index\.json: got no valid JSON/))
})

test('a folder without weights says what it found', () => {
  const empty = mkdtempSync(join(folder, 'empty-'))
  assert.throws(() => openCheckpointFolder(empty), userError(/a folder without weights/))
  writeFileSync(join(empty, 'pytorch_model.bin'), '')
  assert.throws(
    () => openCheckpointFolder(empty),
    userError(/pytorch_model\.bin.*save the model as safetensors/),
  )
  copyFileSync(join(fixture('gpt2-tiny'), 'model.safetensors'), join(empty, 'step-2.safetensors'))
  assert.throws(() => openCheckpointFolder(empty), userError(/name the file itself/))
  openCheckpointFolder(join(empty, 'step-2.safetensors')).close()
  assert.throws(
    () => openCheckpointFolder(join(empty, 'step-1.safetensors')),
    userError(/did you mean step-2/),
  )
  assert.throws(() => openSafetensors(empty), userError(/got a folder/))
  assert.equal(readdirSync(empty).length, 2)
})
