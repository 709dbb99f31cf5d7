/** Atomic writes survive failures of every kind with the earlier file intact; errors say what to do on one line. */
import assert from 'node:assert/strict'
import { execFileSync } from 'node:child_process'
import { mkdirSync, mkdtempSync, readFileSync, readdirSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, test } from 'node:test'
import { UserError } from '../errors.ts'
import { explainRead, missing, writeAtomically, writeTextAtomically } from './files.ts'

const folder = mkdtempSync(join(tmpdir(), 'anneal-files-'))
after(() => rmSync(folder, { recursive: true }))

const userError = (pattern: RegExp) => (error: unknown) =>
  error instanceof UserError && !error.message.includes('\n') && pattern.test(error.message)

test('replaces a file as a whole and leaves nothing beside it', () => {
  const place = mkdtempSync(join(folder, 'replace-'))
  const path = join(place, 'a')
  writeTextAtomically(path, 'one')
  writeAtomically(path, (file) => {
    file.append(Uint8Array.of(0, 0))
    file.append(new Uint16Array([0x6362]))
    file.overwrite(0, Uint8Array.of(0x61, 0x61))
  })
  assert.equal(readFileSync(path, 'utf8'), 'aabc')
  assert.deepEqual(readdirSync(place), ['a'])
})

test('a failure while writing keeps the earlier file and removes the unfinished one', () => {
  const place = mkdtempSync(join(folder, 'fail-'))
  const path = join(place, 'a')
  writeTextAtomically(path, 'earlier')
  assert.throws(
    () =>
      writeAtomically(path, (file) => {
        file.append(Uint8Array.of(1))
        throw new RangeError('ours')
      }),
    RangeError,
  )
  assert.equal(readFileSync(path, 'utf8'), 'earlier')
  assert.deepEqual(readdirSync(place), ['a'])
})

test(
  'a write that outgrows the disk says so and keeps the earlier checkpoint',
  { skip: process.platform === 'win32' },
  () => {
    // A file-size limit is the full disk an ordinary user can arrange: the failing write is the system's own.
    const place = mkdtempSync(join(folder, 'full-'))
    const path = join(place, 'model.safetensors')
    writeTextAtomically(path, 'earlier')
    const script = `
    const { writeSafetensors } = await import(${JSON.stringify(new URL('./safetensors.ts', import.meta.url).href)})
    const data = new Float32Array(1 << 18)
    try { writeSafetensors(${JSON.stringify(path)}, [{ name: 'w', dtype: 'F32', shape: [1 << 18], data }]) }
    catch (error) { console.log(error.name + ': ' + error.message) }`
    const limited = `ulimit -f 64; exec "$0" --input-type=module -e "$1"`
    const output = execFileSync('sh', ['-c', limited, process.execPath, script], { encoding: 'utf8' })
    assert.match(
      output,
      /^UserError: .*model\.safetensors: got .*(EFBIG|ENOSPC).*free some space.*earlier file is intact\n$/,
    )
    assert.equal(readFileSync(path, 'utf8'), 'earlier')
    assert.deepEqual(readdirSync(place), ['model.safetensors'])
  },
)

test('names the reason when a place cannot be written', () => {
  assert.throws(
    () => writeTextAtomically(join(folder, 'no', 'a'), ''),
    userError(/no such folder.*nothing was left/),
  )
  mkdirSync(join(folder, 'taken'))
  assert.throws(
    () => writeTextAtomically(join(folder, 'taken'), ''),
    userError(/a folder in the place of the file/),
  )
})

test('a missing path names its nearest sibling', () => {
  writeFileSync(join(folder, 'shakespeare.txt'), '')
  assert.match(missing(join(folder, 'shakespear.txt')).message, /did you mean shakespeare\.txt\?/)
  assert.match(missing(join(folder, 'nowhere', 'x')).message, /no such folder/)
})

test('errors that are not the system’s pass through', () => {
  const error = new TypeError('ours')
  assert.equal(explainRead(error, 'x'), error)
})
