/**
 * Damaged, incomplete and lying checkpoints: each is one line that names the file and says what to do, and the state that
 * was to be filled is as before.
 */
import assert from 'node:assert/strict'
import { spawnSync } from 'node:child_process'
import {
  copyFileSync,
  cpSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  readdirSync,
  renameSync,
  rmSync,
  symlinkSync,
  truncateSync,
  writeFileSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, test } from 'node:test'
import { UserError } from '../../errors.ts'
import { wholeBox } from './boxes.ts'
import { listCheckpoints } from './folder.ts'
import { MANIFEST, seal } from './manifest.ts'
import { openCheckpoint } from './open.ts'
import { planPieces } from './pieces.ts'
import { hold, ownedData, testTensor } from './testing.ts'
import { writeCheckpoint } from './write.ts'

const scratch = mkdtempSync(join(tmpdir(), 'anneal-damaged-'))
const mounts: string[] = []
after(() => {
  for (const place of mounts) spawnSync('umount', [place])
  rmSync(scratch, { recursive: true, force: true })
})

const tensors = [testTensor('params.w', 'F32', [8, 6], 1), testTensor('params.b', 'F32', [6], 2)]
const held = [
  [hold(tensors[0]!, { start: [0, 0], size: [4, 6] })],
  [hold(tensors[0]!, { start: [4, 0], size: [4, 6] }), hold(tensors[1]!, wholeBox([6]))],
]
const pieces = planPieces(held)
const save = (folder: string, step: number, attempt = '0001'): ReturnType<typeof writeCheckpoint> =>
  writeCheckpoint(
    { folder, step, attempt, metadata: { run: 'r' }, pieces, keep: 99, patienceSeconds: 0 },
    [0, 1].map((rank) => ({ rank, data: ownedData(tensors, pieces, rank) })),
  )
const original = join(scratch, 'original')
await save(original, 1)
const rankFile = (rank: number): string => `0001-rank-0000${rank}.safetensors`

let copies = 0
function freshCopy(): string {
  const path = join(scratch, `copy-${copies++}`)
  cpSync(join(original, 'step-00000001'), path, { recursive: true })
  return path
}

function flip(path: string, byte: (size: number) => number): void {
  const bytes = readFileSync(path)
  const at = byte(bytes.length)
  bytes[at] = bytes[at]! ^ 1
  writeFileSync(path, bytes)
}

/** Changes the manifest and gives it a checksum that fits: a lie, not an accident. */
function lie(path: string, change: (text: string) => string): void {
  const before = readFileSync(join(path, MANIFEST), 'utf8')
  const text = change(before)
  assert.notEqual(text, before)
  writeFileSync(join(path, MANIFEST), seal(text))
}

/** What is done to a checkpoint, and what the error must say of it. */
const damages: Readonly<Record<string, readonly [(path: string) => void, RegExp]>> = {
  'a file cut short': [
    (path) => truncateSync(join(path, rankFile(1)), 300),
    /rank-00001\.safetensors: got 300 bytes; expected the \d+ bytes that manifest\.json names; restore/,
  ],
  'a missing file': [
    (path) => rmSync(join(path, rankFile(1))),
    /rank-00001\.safetensors: got no such file; expected .*; restore the file/,
  ],
  'a link to nowhere': [
    (path) => {
      rmSync(join(path, rankFile(0)))
      symlinkSync(join(path, 'gone'), join(path, rankFile(0)))
    },
    /rank-00000\.safetensors: got no such file/,
  ],
  'a folder in the place of a file': [
    (path) => {
      rmSync(join(path, rankFile(0)))
      mkdirSync(join(path, rankFile(0)))
    },
    /rank-00000\.safetensors: got/,
  ],
  'the file of another rank': [
    (path) => copyFileSync(join(path, rankFile(0)), join(path, rankFile(1))),
    /rank-00001\.safetensors: got/,
  ],
  'one bit of a tensor flipped': [
    (path) => flip(join(path, rankFile(1)), (size) => size - 5),
    /rank-00001\.safetensors: tensor "params\.[wb].*": got data with SHA-256 .*; expected .* as written/,
  ],
  'one bit of a header flipped': [
    (path) => flip(join(path, rankFile(0)), (size) => size - 100),
    /rank-00000\.safetensors/,
  ],
  'one bit of the manifest flipped': [(path) => flip(join(path, MANIFEST), () => 80), /manifest\.json: got/],
  'a manifest cut short': [
    (path) => truncateSync(join(path, MANIFEST), 200),
    /manifest\.json: got no valid JSON/,
  ],
  'an empty manifest': [(path) => truncateSync(join(path, MANIFEST), 0), /manifest\.json: got no valid JSON/],
  'no manifest': [
    (path) => rmSync(join(path, MANIFEST)),
    /got a folder without manifest\.json; expected a finished checkpoint; .*earlier/,
  ],
  'a later version': [
    (path) => lie(path, (text) => text.replace('"version": 1', '"version": 2')),
    /manifest\.json: got format version 2; expected version 1.*; read it with the Anneal that wrote it/,
  ],
  'another format': [
    (path) => lie(path, (text) => text.replace('anneal checkpoint', 'something')),
    /got format "something"/,
  ],
  'boxes that overlap': [
    (path) => lie(path, (text) => text.replace('"start":[4,0]', '"start":[3,0]')),
    /tensor "params\.w": got pieces \[0:4,0:6\] and \[3:7,0:6\], which overlap/,
  ],
  'boxes with a gap': [
    (path) => lie(path, (text) => text.replace('"size":[4,6]', '"size":[3,6]')),
    /tensor "params\.w": got pieces 42 of its 48 elements/,
  ],
  'boxes outside': [
    (path) => lie(path, (text) => text.replace('"start":[4,0]', '"start":[5,0]')),
    /got pieces \[5:9,0:6\], which is no part/,
  ],
  'boxes of another rank': [
    (path) => lie(path, (text) => text.replace('"start":[4,0]', '"start":[4]')),
    /which is no part/,
  ],
  'negative places': [
    (path) => lie(path, (text) => text.replace('"start":[4,0]', '"start":[-4,0]')),
    /got a piece at \[-4,0\]/,
  ],
  'boxes that the files do not have': [
    (path) =>
      lie(path, (text) =>
        text
          .replace('"start":[0,0],"size":[4,6]', '"start":[0,0],"size":[2,6]')
          .replace('"start":[4,0],"size":[4,6]', '"start":[2,0],"size":[6,6]'),
      ),
    /rank-0000\d\.safetensors: tensor "params\.w.*": got F32 \[4, 6\]; expected F32 \[2, 6\], as manifest\.json says/,
  ],
  'another type': [
    (path) => lie(path, (text) => text.replace('"dtype":"F32"', '"dtype":"I32"')),
    /got I32|got F32/,
  ],
  'an unknown type': [
    (path) => lie(path, (text) => text.replace('"dtype":"F32"', '"dtype":"F31"')),
    /got dtype "F31"/,
  ],
  'a key that is not there': [
    (path) => lie(path, (text) => text.replace('"key":"params.b"', '"key":"params.c"')),
    /tensor "params\.c": got no such tensor/,
  ],
  'a file it does not list': [
    (path) => lie(path, (text) => text.replace(`"file":"${rankFile(0)}"`, '"file":"other.safetensors"')),
    /got a piece in "other\.safetensors"/,
  ],
  'a file outside': [
    (path) => lie(path, (text) => text.replaceAll(rankFile(0), '../x.safetensors')),
    /files: got "\.\.\/x\.safetensors"/,
  ],
  'a tensor twice': [
    (path) => lie(path, (text) => text.replace('"params.b": {', '"params.w": {')),
    /got the key "params\.w" twice/,
  ],
  'no tensors': [
    (path) => lie(path, (text) => text.replace('"tensors"', '"tenors"')),
    /manifest\.json: tensors: got nothing/,
  ],
}

for (const [name, [damage, says]] of Object.entries(damages)) {
  test(name, () => {
    const path = freshCopy()
    damage(path)
    const wanted = tensors.map((tensor) => hold(tensor, wholeBox(tensor.shape), 7))
    assert.throws(
      () => {
        const checkpoint = openCheckpoint(path)
        try {
          checkpoint.load(wanted)
        } finally {
          checkpoint.close()
        }
      },
      (error) => {
        assert.ok(error instanceof UserError, String(error))
        assert.doesNotMatch(error.message, /\n/)
        assert.match(error.message, says)
        assert.ok(error.message.includes(path), 'it names the place')
        return true
      },
    )
    for (const { data } of wanted)
      assert.ok(
        data.every((byte) => byte === 7),
        'nothing was written',
      )
  })
}

test('one bit flipped in any byte is an error, or changes nothing that is loaded', () => {
  const path = freshCopy()
  let errors = 0
  for (const name of readdirSync(path)) {
    const bytes = readFileSync(join(path, name))
    for (let at = 0; at < bytes.length; at++) {
      const damaged = Buffer.from(bytes)
      damaged[at] = damaged[at]! ^ (1 << (at % 8))
      writeFileSync(join(path, name), damaged)
      const wanted = tensors.map((tensor) => hold(tensor, wholeBox(tensor.shape), 7))
      try {
        const checkpoint = openCheckpoint(path)
        try {
          checkpoint.load(wanted)
        } finally {
          checkpoint.close()
        }
        assert.deepEqual(
          wanted.map(({ data }) => data),
          tensors.map((tensor) => tensor.bytes),
        )
        assert.notEqual(name, MANIFEST, 'every bit of the manifest counts')
      } catch (error) {
        assert.ok(error instanceof UserError && error.message.includes(name), String(error))
        errors++
      }
    }
    writeFileSync(join(path, name), bytes)
  }
  assert.ok(errors > 1000, `${errors} errors`)
})

test('only the pieces that are touched are checked, or all of them on request, or a share', () => {
  const path = freshCopy()
  flip(join(path, rankFile(1)), (size) => size - 5)
  const top = hold(tensors[0]!, { start: [1, 0], size: [3, 6] }, 0)
  const load = (): unknown => {
    const checkpoint = openCheckpoint(path)
    const report = checkpoint.load([top])
    checkpoint.close()
    return report
  }
  assert.deepEqual(load(), { bytesRead: 3 * 6 * 4, bytesVerified: 4 * 6 * 4 })
  assert.deepEqual(top, hold(tensors[0]!, { start: [1, 0], size: [3, 6] }))
  const checkpoint = openCheckpoint(path)
  assert.throws(() => checkpoint.verify(), /SHA-256/)
  checkpoint.close()
  const intact = openCheckpoint(freshCopy())
  const all = tensors.reduce((sum, { bytes }) => sum + bytes.length, 0)
  const shares = [0, 1, 2].map((part) => intact.verify({ part, parts: 3 }))
  assert.equal(
    shares.reduce((a, b) => a + b),
    all,
  )
  assert.equal(intact.verify(), 0, 'what was checked is not checked again')
  intact.close()
})

test('a tensor that is not there, or is another, is named', () => {
  const checkpoint = openCheckpoint(freshCopy())
  const wanted =
    (path: string, shape: number[]): (() => unknown) =>
    () =>
      checkpoint.load([hold({ ...testTensor('x', 'F32', shape), path }, wholeBox(shape))])
  assert.throws(
    wanted('params.ww', [8, 6]),
    /params\.ww": got no such tensor; expected one of params\.b, params\.w; did you mean params\.w\?/,
  )
  assert.throws(
    wanted('params.w', [6, 8]),
    /tensor 'params\.w': got F32 \[8, 6\]; expected F32 \[6, 8\]; resume with the settings/,
  )
  checkpoint.close()
})

test('a full disk: one line, nothing half-written, and the checkpoints before are intact', async (t) => {
  const folder = join(scratch, 'small')
  mkdirSync(folder)
  if (spawnSync('mount', ['-t', 'tmpfs', '-o', 'size=64k', 'tmpfs', folder]).status !== 0) {
    t.diagnostic('mounting is not allowed here: tried with a folder that is not one')
    writeFileSync(join(folder, 'step-00000009'), '')
    await assert.rejects(save(folder, 9), /step-00000009: got a file in the place of the folder/)
    return
  }
  mounts.push(folder)
  let complete = 0
  await assert.rejects(
    async () => {
      for (let step = 1; ; step++) {
        await save(folder, step)
        complete = step
      }
    },
    (error) =>
      error instanceof UserError &&
      /step-0000.*: got a full disk \(ENOSPC\).*free some space/.test(error.message),
  )
  assert.ok(complete > 0)
  const steps = Array.from({ length: complete }, (_, i) => i + 1)
  assert.deepEqual(
    listCheckpoints(folder).map(({ step }) => step),
    steps,
  )
  assert.equal(readdirSync(folder).length, complete, 'nothing half-written is left')
  for (const { name } of listCheckpoints(folder)) {
    const checkpoint = openCheckpoint(join(folder, name))
    checkpoint.verify()
    checkpoint.close()
  }
})

test('a checkpoint that is written again replaces the one before only when it is complete', async () => {
  const folder = join(scratch, 'again')
  await save(folder, 1)
  const path = join(folder, 'step-00000001')
  await assert.rejects(
    writeCheckpoint({ folder, step: 1, attempt: '0002', metadata: {}, pieces, keep: 9, patienceSeconds: 0 }, [
      { rank: 0, data: ownedData(tensors, pieces, 0) },
    ]),
    /nothing from rank 1/,
  )
  const files = [rankFile(0), rankFile(1), MANIFEST]
  assert.deepEqual(readdirSync(path).toSorted(), files)
  openCheckpoint(path).verify()
  await save(folder, 1, '0003')
  assert.deepEqual(
    readdirSync(path).toSorted(),
    files.map((name) => name.replace('0001', '0003')),
  )
  renameSync(path, join(folder, 'step-00000002'))
  assert.deepEqual(
    listCheckpoints(folder).map(({ step, files: count }) => [step, count]),
    [[2, 2]],
  )
})
