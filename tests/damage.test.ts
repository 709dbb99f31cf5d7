/**
 * What goes wrong outside our control, end to end: damaged checkpoints, a full disk, text that cannot be read, commands
 * that cannot be meant. Each time there must be one error line that names place, got, expected and remedy, the exit
 * code of the contract (1 failed, 2 bad usage), and everything saved earlier must still be readable.
 */
import assert from 'node:assert/strict'
import { spawnSync } from 'node:child_process'
import {
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
import { openSafetensors } from '../src/data/safetensors.ts'
import { readRun } from '../src/runs/index.ts'
import { listCheckpoints } from '../src/train/checkpoint.ts'
import { anneal, errorLine, launcher, run } from './launch.ts'
import type { Outcome } from './launch.ts'

const scratch = mkdtempSync(join(tmpdir(), 'anneal-damage-'))
const mounts: string[] = []
after(() => {
  for (const place of mounts) spawnSync('umount', [place])
  rmSync(scratch, { recursive: true, force: true })
})

const text = join(scratch, 'text.txt')
writeFileSync(text, 'All that glisters is not gold.\n'.repeat(100))
const tiny = ['batch=2', 'threads=1', 'model.context=16', 'model.layers=1', 'model.width=32', 'eval.every=0']
const settings = [...tiny, `data=${text}`, 'save.every=2', 'save.keep=9', 'sample.tokens=4', 'sample.every=0']

/** A finished run of six steps with checkpoints at 2, 4 and 6, made once and copied for every kind of damage. */
const original = join(scratch, 'original')
const made = anneal('train', 'language', ...settings, 'steps=6', '--runs', original)
const id = readdirSync(original).find((name) => name.includes('language')) ?? ''

interface Copy {
  readonly runsDir: string
  readonly dir: string
  /** Path of the checkpoint of a step. */
  readonly checkpoint: (step: number) => string
}

let copies = 0
function freshCopy(): Copy {
  const runsDir = join(scratch, `copy-${copies++}`)
  cpSync(original, runsDir, { recursive: true })
  const dir = join(runsDir, id)
  return { runsDir, dir, checkpoint: (step) => join(dir, 'checkpoints', `step-0000000${step}.safetensors`) }
}

const resume = ({ runsDir }: Pick<Copy, 'runsDir'>, ...more: string[]): Outcome =>
  anneal('resume', id, ...more, '--runs', runsDir)

/** Checks code and error line, and that the line names everything a person needs. */
function assertFails(outcome: Outcome, code: 1 | 2, ...says: readonly RegExp[]): void {
  assert.equal(outcome.code, code, outcome.err)
  const line = errorLine(outcome)
  assert.match(line, /^error: .+: got .+; expected .+; .+/)
  for (const pattern of says) assert.match(line, pattern)
}

function flipBit(path: string, byte: (size: number) => number): void {
  const bytes = readFileSync(path)
  const at = byte(bytes.length)
  bytes[at] = bytes[at]! ^ 4
  writeFileSync(path, bytes)
}

/** Swaps the offsets of two tensors of equal size and leaves the checksums out: only the rules of the format remain. */
function lieAboutOffsets(path: string): void {
  const bytes = readFileSync(path)
  const length = Number(bytes.readBigUInt64LE())
  const header = JSON.parse(bytes.toString('utf8', 8, 8 + length)) as Record<
    string,
    { data_offsets: [number, number] }
  >
  delete header['__metadata__']
  for (const entry of Object.values(header)) entry.data_offsets[1] += 64
  const lie = Buffer.from(JSON.stringify(header).padEnd(length))
  writeFileSync(path, Buffer.concat([bytes.subarray(0, 8), lie, bytes.subarray(8 + length)]))
}

const damages: Readonly<Record<string, (path: string) => void>> = {
  truncated: (path) => truncateSync(path, 3000),
  empty: (path) => truncateSync(path, 0),
  'one bit of a tensor flipped': (path) => flipBit(path, (size) => size - 99),
  'one bit of the header flipped': (path) => flipBit(path, () => 300),
  'a header that lies about offsets': lieAboutOffsets,
  'a folder in its place': (path) => {
    rmSync(path)
    mkdirSync(path)
  },
}

test('the run to be damaged is whole', () => {
  assert.equal(made.code, 0, made.err)
  assert.deepEqual(
    listCheckpoints(join(original, id)).map(({ step }) => step),
    [2, 4, 6],
  )
})

for (const [name, damage] of Object.entries(damages)) {
  test(`${name}: sampling goes back to the checkpoint before, with a note`, () => {
    const copy = freshCopy()
    damage(copy.checkpoint(6))
    const { code, err } = anneal('sample', id, '--tokens', '2', '--prompt', 'A', '--runs', copy.runsDir)
    assert.equal(code, 0, err)
    assert.match(err, /^note: passing over .*step-00000006\.safetensors.*: got .*; expected .*$/m)
  })
}

test('a resume goes back past damaged checkpoints and ends where an undamaged run does', () => {
  const copy = freshCopy()
  damages['truncated']!(copy.checkpoint(6))
  damages['one bit of a tensor flipped']!(copy.checkpoint(4))
  const { code, err } = resume(copy)
  assert.equal(code, 0, err)
  assert.match(err, /^note: passing over .*step-00000006/m)
  assert.match(err, /^note: passing over .*step-00000004.*SHA-256/m)
  const [again, expected] = [copy.dir, join(original, id)].map((dir) => {
    const file = openSafetensors(join(dir, listCheckpoints(dir).at(-1)!.file))
    const bytes = [...file.tensors.keys()].toSorted().map((tensor) => Buffer.from(file.read(tensor)))
    file.close()
    return Buffer.concat(bytes).toString('base64')
  })
  assert.equal(again, expected)
  const series = (runsDir: string): unknown =>
    readRun(runsDir, id).points.map(({ step, metrics }) => [step, metrics])
  assert.deepEqual(series(copy.runsDir), series(original))
})

test('when every checkpoint is damaged, one error names the newest, and the history is untouched', () => {
  const copy = freshCopy()
  for (const step of [2, 4, 6]) damages['truncated']!(copy.checkpoint(step))
  const before = readRun(copy.runsDir, id)
  assertFails(resume(copy), 1, /step-00000006\.safetensors/, /2 older/, /restore/)
  assert.deepEqual(readRun(copy.runsDir, id).points, before.points)
  assert.equal(readRun(copy.runsDir, id).segments.length, 1)
})

test('a damaged or missing description of a run', () => {
  const copy = freshCopy()
  const path = join(copy.dir, 'run.json')
  const description = readFileSync(path, 'utf8')
  writeFileSync(path, description.slice(0, 200))
  assertFails(resume(copy), 1, /run\.json: got text that is not JSON/)
  writeFileSync(path, description.replace('"steps": 6', '"steps": "six"'))
  assertFails(resume(copy), 1, /steps: got .*six.*expected .*number.*run\.json/)
  rmSync(path)
  assertFails(resume(copy), 2, /fits no run/)
  assertFails(anneal('resume', 'zzzz', '--runs', original), 2, /fits no run/, /anneal runs/)
})

test('commands that cannot be meant exit with 2 and suggest what was', () => {
  assertFails(anneal('train', 'language', 'steps=-1'), 2, /steps=-1; expected at least 1/)
  assertFails(anneal('train', 'language', 'modle.width=32'), 2, /did you mean model\.width/)
  assertFails(anneal('resume', id, 'stesp=9', '--runs', original), 2, /did you mean steps/)
})

const train = (data: string): Outcome =>
  anneal('train', 'language', ...tiny, `data=${data}`, 'steps=2', '--runs', join(scratch, 'none'))

test('text that cannot be read is one error that names it, before anything is trained', () => {
  const place = (name: string): string => join(scratch, name)
  mkdirSync(place('empty'))
  writeFileSync(place('noise.txt'), Buffer.from([1, 2, 0, 255, 254]))
  writeFileSync(place('short.txt'), 'too short')
  writeFileSync(place('nothing.txt'), '')
  writeFileSync(place('bad.jsonl'), '{"text":"fine"}\n{"text":\n')
  symlinkSync(place('gone'), place('link.txt'))
  assertFails(train(place('empty')), 1, /empty: got an empty folder/)
  assertFails(train(place('noise.txt')), 1, /noise\.txt: got a binary file/)
  assertFails(
    train(place('short.txt')),
    1,
    /short\.txt: got a training part of \d tokens; expected at least 17/,
  )
  assertFails(train(place('nothing.txt')), 1, /nothing\.txt: got an empty file/)
  assertFails(train(place('bad.jsonl')), 1, /bad\.jsonl:2: got no valid JSON/)
  assertFails(train(place('link.txt')), 1, /link\.txt: got a link to .*gone/)
  assertFails(train(place('txt.txt')), 1, /no such file or folder.*did you mean text\.txt/)
  assertFails(train(join(text, 'inside')), 1, /inside: got no such/)
  assert.throws(() => readdirSync(join(scratch, 'none')), /ENOENT/, 'no run was made')
})

/** A place too small for the run; `relieve` makes room. Falls back to a file size limit where mounting is not allowed. */
interface SmallDisk {
  readonly kind: string
  readonly runsDir: string
  /** Runs anneal under the constraint. */
  readonly anneal: (...args: string[]) => Outcome
  readonly fill: () => void
  readonly relieve: () => void
}

function smallDisk(): SmallDisk {
  const runsDir = join(scratch, 'small')
  mkdirSync(runsDir)
  const { bytes } = listCheckpoints(join(original, id))[0]!
  const size = `${Math.ceil((5.5 * bytes) / 1024)}k`
  if (spawnSync('mount', ['-t', 'tmpfs', '-o', `size=${size}`, 'tmpfs', runsDir]).status === 0) {
    mounts.push(runsDir)
    const filler = join(runsDir, '.filler')
    return {
      kind: `a tmpfs of ${size}`,
      runsDir,
      anneal,
      fill: () => void spawnSync('dd', ['if=/dev/zero', `of=${filler}`, 'bs=4k']),
      relieve: () => {
        rmSync(filler, { force: true })
        assert.equal(spawnSync('mount', ['-o', 'remount,size=64m', runsDir]).status, 0)
      },
    }
  }
  let blocks = Math.floor(bytes / 1024) - 1
  return {
    kind: 'a limit on the size of files',
    runsDir,
    anneal: (...args) =>
      run('bash', ['-c', `ulimit -f ${blocks}; exec "$@"`, 'bash', process.execPath, launcher, ...args]),
    fill: () => (blocks = 0),
    relieve: () => undefined,
  }
}

test('a full disk ends the run with one error; what was saved before is intact, and with room it goes on', (t) => {
  const disk = smallDisk()
  t.diagnostic(`tried with ${disk.kind}`)
  const { runsDir } = disk
  cpSync(original, runsDir, { recursive: true })
  const dir = join(runsDir, id)
  const more = ['steps=60', 'save.every=1', 'save.keep=99', '--runs', runsDir]
  assertFails(
    disk.anneal('resume', id, ...more),
    1,
    /step-\d+\.safetensors: got a (full disk|size limit)/,
    /free/,
  )

  const kept = listCheckpoints(dir)
  assert.ok(kept.length >= 3 && kept.length < 57, `${kept.length} checkpoints`)
  for (const { file } of kept) {
    const opened = openSafetensors(join(dir, file))
    assert.equal(opened.verify(), true)
    opened.close()
  }
  assert.deepEqual(
    readdirSync(join(dir, 'checkpoints')).filter((name) => name.includes('.tmp-')),
    [],
  )
  const failed = readRun(runsDir, id)
  assert.equal(failed.status, 'failed')
  assert.match(failed.reason ?? '', /full disk|size limit/)
  const last = kept.at(-1)!.step
  assert.deepEqual(
    failed.points.filter(({ step, metrics }) => step <= last && 'loss' in metrics).map(({ step }) => step),
    Array.from({ length: last }, (_, i) => i + 1),
  )

  // Not even the first line of a log fits: still one line, and no half-made run is left.
  disk.fill()
  const runsBefore = readdirSync(runsDir)
  const started = disk.anneal('train', 'language', ...settings, 'steps=6', '--runs', runsDir)
  assertFails(started, 1, /ENOSPC|EFBIG/, /free some space/)
  assert.deepEqual(readdirSync(runsDir), runsBefore)
  assertFails(disk.anneal('resume', id, '--runs', runsDir), 1, /ENOSPC|EFBIG|full disk/)

  disk.relieve()
  const rest = anneal('resume', id, 'steps=60', '--runs', runsDir)
  assert.equal(rest.code, 0, rest.err)
  const whole = readRun(runsDir, id)
  assert.deepEqual(
    whole.points.filter(({ metrics }) => 'loss' in metrics).map(({ step }) => step),
    Array.from({ length: 60 }, (_, i) => i + 1),
  )
})

test('a run that was moved away says so, and comes back whole', () => {
  const copy = freshCopy()
  const aside = join(scratch, 'aside')
  renameSync(copy.dir, aside)
  assertFails(resume(copy), 2, /none yet|fits no run/)
  renameSync(aside, copy.dir)
  assert.deepEqual(readRun(copy.runsDir, id).points, readRun(original, id).points)
})
