/**
 * Checkpoints of a run across plans: what one device wrote is cut up among ranks in several ways, and the run goes on
 * from each of them to the same bits as from its own file. Damaged ones are passed over like files, and a listing says
 * what is there.
 */
import assert from 'node:assert/strict'
import { cpSync, mkdtempSync, readFileSync, readdirSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, test } from 'node:test'
import { CheckpointSaver, openCheckpoint, wholeBox } from '../src/data/checkpoints.ts'
import type { Box, Holding } from '../src/data/checkpoints.ts'
import { createRun, readRun } from '../src/runs/index.ts'
import { listCheckpoints } from '../src/train/checkpoint.ts'
import { anneal } from './launch.ts'

const scratch = mkdtempSync(join(tmpdir(), 'anneal-checkpoints-'))
after(() => rmSync(scratch, { recursive: true, force: true }))

const text = join(scratch, 'text.txt')
writeFileSync(text, 'All that glisters is not gold.\n'.repeat(100))
const settings = [
  'batch=2',
  'threads=1',
  'model.context=16',
  'model.layers=2',
  'model.width=32',
  `data=${text}`,
]
const schedule = [
  'eval.every=0',
  'sample.every=0',
  'sample.tokens=4',
  'save.every=3',
  'save.keep=9',
  'steps=6',
]

const original = join(scratch, 'original')
const made = anneal('train', 'language', ...settings, ...schedule, '--runs', original)
const id = readdirSync(original).find((name) => name.includes('language')) ?? ''

/** A checkpoint's tensors, whole. */
function contents(path: string): Record<string, Uint8Array> {
  const checkpoint = openCheckpoint(path)
  const wanted = Array.from(
    checkpoint.tensors,
    ([name, { dtype, shape }]): Holding & { data: Uint8Array } => {
      const bytes = shape.reduce((product, n) => product * n, 4)
      return { path: name, dtype, globalShape: shape, box: wholeBox(shape), data: new Uint8Array(bytes) }
    },
  )
  checkpoint.load(wanted)
  checkpoint.close()
  return Object.fromEntries(wanted.map(({ path: name, data }) => [name, data]))
}

/** Writes a checkpoint again as ranks would that hold the boxes a plan gives them. */
async function reshard(path: string, step: number, ranks: number, plan: Plan): Promise<void> {
  const checkpoint = openCheckpoint(path)
  const held = Array.from({ length: ranks }, (_, rank) =>
    Array.from(checkpoint.tensors, ([name, { dtype, shape }]): Holding => {
      const box = plan(shape, rank, ranks)
      const bytes = box.size.reduce((product, n) => product * n, 4)
      return { path: name, dtype, globalShape: shape, box, data: new Uint8Array(bytes) }
    }),
  )
  for (const holdings of held) checkpoint.load(holdings)
  checkpoint.close()
  const saver = new CheckpointSaver({
    folder: join(path, '..'),
    attempt: 'reshard',
    keep: 99,
    held,
    data: (_, one) => (one as Holding).data,
  })
  await saver.save(step, checkpoint.metadata)
  await saver.close()
  rmSync(path)
}

/** The box of a tensor that a rank holds. */
type Plan = (shape: readonly number[], rank: number, ranks: number) => Box

/** An even share along an axis, where that is possible. */
function share(axis: number): Plan {
  return (shape, rank, ranks) => {
    const at = axis < 0 ? shape.length + axis : axis
    const part = (shape[at] ?? 0) / ranks
    if (!Number.isInteger(part) || part === 0) return wholeBox(shape)
    return { start: shape.map((_, i) => (i === at ? rank * part : 0)), size: shape.with(at, part) }
  }
}

const plans: Readonly<Record<string, readonly [number, Plan]>> = {
  'copies on two ranks': [2, wholeBox],
  'layers on two ranks': [2, share(0)],
  'columns on four ranks': [4, share(-1)],
  'rows on eight ranks': [8, share(-2)],
}

test('the run to be cut up is whole', () => {
  assert.equal(made.code, 0, made.err)
})

for (const [name, [ranks, plan]] of Object.entries(plans)) {
  test(`${name}: the run goes on to the same bits`, async () => {
    const runsDir = join(scratch, name.replaceAll(' ', '-'))
    cpSync(original, runsDir, { recursive: true })
    const dir = join(runsDir, id)
    const [first, last] = listCheckpoints(dir)
    const expected = contents(join(dir, last!.file))
    rmSync(join(dir, last!.file))
    await reshard(join(dir, first!.file), 3, ranks, plan)
    const [cut] = listCheckpoints(dir)
    assert.equal(cut?.file, join('checkpoints', 'step-00000003'))
    assert.equal(cut.files, ranks)

    const sampled = anneal('sample', id, '--tokens', '2', '--prompt', 'A', '--runs', runsDir)
    assert.equal(sampled.code, 0, sampled.err)
    const resumed = anneal('resume', id, '--runs', runsDir)
    assert.equal(resumed.code, 0, resumed.err)
    const again = listCheckpoints(dir).at(-1)!
    assert.equal(again.step, 6)
    assert.deepEqual(contents(join(dir, again.file)), expected)
    const losses = (runs: string): unknown =>
      readRun(runs, id).points.map(({ step, metrics }) => [step, metrics])
    assert.deepEqual(losses(runsDir), losses(original))

    const shown = anneal('show', id, '--runs', runsDir)
    assert.match(shown.out, new RegExp(`step-00000003 +\\S+ \\S+ in ${ranks} files`))
  })
}

test('a damaged sharded checkpoint is passed over with a note; a folder without manifest is none', async () => {
  const runsDir = join(scratch, 'damaged')
  cpSync(original, runsDir, { recursive: true })
  const dir = join(runsDir, id)
  await reshard(join(dir, listCheckpoints(dir).at(-1)!.file), 6, 2, share(0))
  const path = join(dir, listCheckpoints(dir).at(-1)!.file)
  const file = join(path, 'reshard-rank-00001.safetensors')
  const bytes = readFileSync(file)
  bytes[bytes.length - 9]! ^= 2
  writeFileSync(file, bytes)
  const { code, err } = anneal('sample', id, '--tokens', '2', '--prompt', 'A', '--runs', runsDir)
  assert.equal(code, 0, err)
  assert.match(
    err,
    /^note: passing over .*step-00000006.*rank-00001.*: got data with SHA-256 .*; expected .*$/m,
  )
  rmSync(join(path, 'manifest.json'))
  const silent = anneal('sample', id, '--tokens', '2', '--prompt', 'A', '--runs', runsDir)
  assert.equal(silent.code, 0, silent.err)
  assert.doesNotMatch(silent.err, /passing over/)
})

test('both forms grow old together', async () => {
  const runsDir = join(scratch, 'old')
  cpSync(original, runsDir, { recursive: true })
  const dir = join(runsDir, id)
  await reshard(join(dir, listCheckpoints(dir)[0]!.file), 3, 2, share(0))
  const steps = (): number[] => listCheckpoints(dir).map(({ step }) => step)
  assert.deepEqual(steps(), [3, 6])
  for (const [until, keep] of [
    [8, 3],
    [10, 2],
  ] as const) {
    const more = [`steps=${until}`, 'save.every=0', `save.keep=${keep}`]
    const { code, err } = anneal('resume', id, ...more, '--runs', runsDir)
    assert.equal(code, 0, err)
  }
  assert.deepEqual(steps(), [8, 10])
  assert.equal(readdirSync(join(dir, 'checkpoints')).length, 2, 'and nothing of the others is left')
})

test('the log of a run knows a sharded checkpoint, and whether it is still there', async () => {
  const root = join(scratch, 'log')
  const writer = createRun(root, { recipe: 'language', config: {}, plan: {}, machine: {} })
  const folder = join(writer.dir, 'checkpoints')
  const data = new Float32Array(6)
  const held = [[{ path: 'w', dtype: 'F32' as const, globalShape: [6], box: wholeBox([6]) }]]
  const saver = new CheckpointSaver({ folder, attempt: '0001', keep: 1, held, data: () => data })
  for (const step of [1, 2]) {
    const entry = await (await saver.save(step, {}))?.done
    writer.checkpoint({
      step,
      file: join('checkpoints', entry!.name),
      bytes: entry!.bytes,
      files: entry!.files,
    })
  }
  await saver.close()
  writer.close('finished')
  const { checkpoints } = readRun(root, writer.id)
  assert.deepEqual(
    checkpoints.map(({ step, files, present }) => [step, files, present]),
    [
      [1, 1, false],
      [2, 1, true],
    ],
  )
})
