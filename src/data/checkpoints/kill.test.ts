/**
 * Killed at any moment: processes that save without pause, the pruning of older checkpoints included, are killed 50
 * times without notice, half of the time one process for both ranks, half of the time one of a pair. Whatever was
 * complete once is there and reads as it was written, or a newer one does.
 */
import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import type { ChildProcess } from 'node:child_process'
import { once } from 'node:events'
import { existsSync, mkdtempSync, readdirSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, test } from 'node:test'
import { setTimeout as sleep } from 'node:timers/promises'
import { listCheckpoints } from './folder.ts'
import { MANIFEST } from './manifest.ts'
import { openCheckpoint } from './open.ts'

const folder = mkdtempSync(join(tmpdir(), 'anneal-kill-'))
after(() => rmSync(folder, { recursive: true, force: true }))

const [rows, columns] = [256, 200]

/** Saves step after step from `first` on, for the ranks of this process; the state says which step it is of. */
function saveWithoutPause(local: readonly number[], attempt: number, first: number): ChildProcess {
  const source = `
    import { CheckpointSaver, listCheckpoints } from ${JSON.stringify(new URL('../checkpoints.ts', import.meta.url).href)}
    const half = ${rows / 2} * ${columns}
    const held = [0, 1].map((rank) => [
      { path: 'w', dtype: 'I32', globalShape: [${rows}, ${columns}], box: { start: [rank * ${rows / 2}, 0], size: [${rows / 2}, ${columns}] } },
      { path: 'step', dtype: 'I32', globalShape: [], box: { start: [], size: [] } },
    ])
    const state = held.map(() => [new Int32Array(half), new Int32Array(1)])
    const folder = ${JSON.stringify(folder)}
    const saver = new CheckpointSaver({
      folder,
      attempt: ${JSON.stringify(String(attempt))},
      keep: 2,
      held,
      local: ${JSON.stringify(local)},
      data: (rank, { path }) => state[rank][path === 'w' ? 0 : 1],
    })
    for (let step = ${first}; ; step++) {
      for (const [rank, [w, s]] of state.entries()) {
        for (let i = 0; i < half; i++) w[i] = step * 100003 + rank * half + i
        s[0] = step
      }
      await (await saver.save(step, { step: String(step) })).done
      while (listCheckpoints(folder).at(-1)?.step !== step) await new Promise((go) => setTimeout(go, 1))
    }`
  return spawn(process.execPath, ['--input-type=module', '--eval', source], {
    stdio: ['ignore', 'ignore', 'inherit'],
  })
}

const newestStep = (): number => listCheckpoints(folder).at(-1)?.step ?? 0

function assertReadable(): void {
  const newest = listCheckpoints(folder).at(-1)
  if (!newest) return
  const checkpoint = openCheckpoint(join(folder, newest.name))
  const [w, step] = [new Int32Array(rows * columns), new Int32Array(1)]
  const whole = { start: [0, 0], size: [rows, columns] }
  checkpoint.load([
    { path: 'w', dtype: 'I32', globalShape: [rows, columns], box: whole, data: w },
    { path: 'step', dtype: 'I32', globalShape: [], box: { start: [], size: [] }, data: step },
  ])
  checkpoint.close()
  assert.equal(step[0], newest.step)
  assert.equal(checkpoint.metadata['step'], String(newest.step))
  assert.equal(
    w.findIndex((value, i) => value !== newest.step * 100003 + i),
    -1,
  )
}

/** Folders whose writer did not come to the end. */
const unfinished = (): number =>
  readdirSync(folder).filter((name) => !existsSync(join(folder, name, MANIFEST))).length

test('50 kills leave the last complete checkpoint readable', async (t) => {
  let random = 12345
  const uniform = (): number => (random = (Math.imul(random, 1664525) + 1013904223) >>> 0) / 2 ** 32
  let whileWriting = 0
  for (let kill = 0; kill < 50; kill++) {
    const before = newestStep()
    const jobs = (kill % 2 === 0 ? [[0, 1]] : [[0], [1]]).map((local) =>
      saveWithoutPause(local, kill, before + 1),
    )
    const ended = jobs.map((job) => once(job, 'exit'))
    let complete = 0
    try {
      while (newestStep() <= before + uniform() * 4) {
        for (const { exitCode } of jobs) assert.equal(exitCode, null, 'it ended by itself')
        await sleep(1)
      }
      await sleep(uniform() * 15)
      complete = newestStep()
      jobs[Math.floor(uniform() * jobs.length)]!.kill('SIGKILL')
    } finally {
      for (const job of jobs) job.kill('SIGKILL')
      await Promise.all(ended)
    }
    if (unfinished() > 0) whileWriting++
    assert.ok(newestStep() >= complete, `step ${complete} was complete, now the newest is ${newestStep()}`)
    assertReadable()
  }
  t.diagnostic(
    `${whileWriting} of 50 kills left an unfinished checkpoint; the last complete one was step ${newestStep()}`,
  )
  assert.ok(whileWriting >= 10, `only ${whileWriting} kills came inside the writing of a checkpoint`)
  assert.ok(readdirSync(folder).length <= 4, 'what killed writers left is cleaned up by later ones')
})
