/**
 * Saving beside the training: the copy is the state of its moment whatever happens to the state after, checkpoints keep
 * their order, errors come out one call late, and processes that write one checkpoint together meet in its folder.
 */
import assert from 'node:assert/strict'
import { existsSync, mkdirSync, mkdtempSync, readdirSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, test } from 'node:test'
import { UserError } from '../../errors.ts'
import { CheckpointSaver } from './background.ts'
import type { SaverOptions } from './background.ts'
import { wholeBox } from './boxes.ts'
import { listCheckpoints, nameOf } from './folder.ts'
import { openCheckpoint } from './open.ts'
import type { Holding } from './pieces.ts'
import { hold, testTensor } from './testing.ts'
import type { TestTensor } from './testing.ts'

const scratch = mkdtempSync(join(tmpdir(), 'anneal-background-'))
after(() => rmSync(scratch, { recursive: true, force: true }))

const tensors: TestTensor[] = [
  testTensor('params.w', 'F32', [64, 48], 1),
  testTensor('params.b', 'BF16', [10], 2),
]

/** Two ranks that split `w` by columns; `b` is on both. */
const ranks = [0, 1].map((rank) => [
  hold(tensors[0]!, { start: [0, 24 * rank], size: [64, 24] }),
  hold(tensors[1]!, wholeBox([10])),
])

let folders = 0
const options = (more: Partial<SaverOptions> = {}): SaverOptions => ({
  folder: join(scratch, String(folders++)),
  attempt: '0001',
  keep: 2,
  held: ranks,
  data: (_, held) => (held as Holding).data,
  ...more,
})

/** Every tensor of a checkpoint, whole. */
function contents(path: string): Uint8Array[] {
  const checkpoint = openCheckpoint(path)
  const wanted = tensors.map((tensor) => hold(tensor, wholeBox(tensor.shape), 0))
  checkpoint.load(wanted)
  checkpoint.close()
  return wanted.map(({ data }) => data)
}

const original = tensors.map(({ bytes }) => bytes)

test('what changes right after a snapshot is not in its checkpoint', async () => {
  const state = ranks.map((held) => held.map((one) => ({ ...one, data: one.data.slice() })))
  const { folder, ...rest } = options({ held: state })
  const saver = new CheckpointSaver({ folder, ...rest })
  const first = await saver.save(1, {})
  for (const { data } of state.flat()) data.fill(0xee)
  const second = await saver.save(2, {})
  for (const { data } of state.flat()) data.fill(0x11)
  assert.equal((await first?.done)?.step, 1)
  assert.equal((await second?.done)?.name, nameOf(2))
  await saver.close()
  assert.deepEqual(contents(join(folder, nameOf(1))), original)
  assert.deepEqual(
    contents(join(folder, nameOf(2))),
    original.map(({ length }) => new Uint8Array(length).fill(0xee)),
  )
  const written = original.reduce((sum, { length }) => sum + length, 0)
  assert.equal(first?.bytes, written)
  assert.ok(saver.shadowBytes >= written && saver.shadowBytes < written + 64 * 4)
})

test('while one is being written, the next waits or is skipped; older ones beyond `keep` go', async () => {
  const { folder, ...rest } = options()
  const saver = new CheckpointSaver({ folder, ...rest })
  const first = await saver.save(1, {})
  assert.equal(await saver.save(2, {}, 'skip'), undefined)
  let settled = false
  first?.done.then(
    () => (settled = true),
    () => assert.fail(),
  )
  await saver.save(3, {})
  assert.ok(settled, 'it came back before the one before was written')
  const warnings: string[] = []
  const listen = ({ message }: Error): void => void warnings.push(message)
  process.on('warning', listen)
  for (let step = 4; step < 30; step++) await saver.save(step, {})
  await saver.settle()
  await saver.close()
  process.off('warning', listen)
  assert.deepEqual(warnings, [])
  assert.deepEqual(readdirSync(folder).toSorted(), [nameOf(28), nameOf(29)])
  await assert.rejects(
    async () => (await saver.save(30, {}))?.done,
    /the thread that writes checkpoints has ended/,
  )
})

test('an error of the thread is thrown by the next call, once, and saving can go on', async () => {
  const { folder, ...rest } = options()
  mkdirSync(folder)
  writeFileSync(join(folder, nameOf(1)), 'a file where the folder should be')
  const saver = new CheckpointSaver({ folder, ...rest })
  const snapshot = await saver.save(1, {})
  await assert.rejects(saver.save(2, {}), /step-00000001: got a file in the place of the folder/)
  await assert.rejects(async () => snapshot?.done, UserError)
  await saver.save(3, {})
  await saver.close()
  assert.deepEqual(contents(join(folder, nameOf(3))), original)
})

test('processes write one checkpoint together: the manifest comes when all files are there', async () => {
  const { folder, ...rest } = options()
  const zero = new CheckpointSaver({ folder, ...rest, local: [0] })
  const one = new CheckpointSaver({ folder, ...rest, local: [1] })
  const first = await zero.save(5, { run: 'x' })
  const path = join(folder, nameOf(5))
  const file = join(path, '0001-rank-00000.safetensors')
  while (!existsSync(file)) await new Promise((resolve) => setTimeout(resolve, 1))
  assert.deepEqual(listCheckpoints(folder), [], 'not a checkpoint before rank 1 has written')
  const second = await one.save(5, { run: 'x' })
  assert.equal(await second?.done, undefined)
  const entry = await first?.done
  assert.equal(entry?.files, 2)
  await Promise.all([zero.close(), one.close()])
  assert.deepEqual(contents(path), original)
  assert.deepEqual(readdirSync(path).toSorted(), [
    '0001-rank-00000.safetensors',
    '0001-rank-00001.safetensors',
    'manifest.json',
  ])
})

test('a rank that does not come is named, and nothing half-written stays', async () => {
  const { folder, ...rest } = options({ patienceSeconds: 0.05 })
  const zero = new CheckpointSaver({ folder, ...rest, local: [0] })
  await zero.save(5, {})
  await assert.rejects(
    zero.settle(),
    /step-00000005: got nothing from rank 1 in 0\.05 s; expected the files of all 2/,
  )
  await zero.close()
  assert.deepEqual(readdirSync(folder), [])
})

test('what an earlier start left in the folder is not taken for this one', async () => {
  const { folder, ...rest } = options()
  const stale = new CheckpointSaver({ folder, ...rest, local: [1], attempt: '0001' })
  await (
    await stale.save(5, {})
  )?.done
  await stale.close()
  const saver = new CheckpointSaver({ folder, ...rest, local: [0], attempt: '0002', patienceSeconds: 0.05 })
  await saver.save(5, {})
  await assert.rejects(saver.settle(), /nothing from rank 1/)
  await saver.close()
  const whole = new CheckpointSaver({ folder, ...rest, attempt: '0003' })
  await whole.save(5, {})
  await whole.close()
  assert.deepEqual(readdirSync(join(folder, nameOf(5))).toSorted(), [
    '0003-rank-00000.safetensors',
    '0003-rank-00001.safetensors',
    'manifest.json',
  ])
  assert.deepEqual(contents(join(folder, nameOf(5))), original)
})
