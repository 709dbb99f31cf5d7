/**
 * `anneal up` from outside: the address comes at once, the run trains beside the server, survives the server's sudden
 * death, and Ctrl-C ends both with a checkpoint saved.
 */
import assert from 'node:assert/strict'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { after, test } from 'node:test'
import { lockHolder, listRuns, readRun } from '../src/runs/index.ts'
import { start } from './launch.ts'
import type { Started } from './launch.ts'

const scratch = mkdtempSync(join(tmpdir(), 'anneal-up-'))
after(() => {
  // Whatever a failed test left training.
  for (const { id } of listRuns(join(scratch, 'runs')).runs) {
    const pid = lockHolder(join(scratch, 'runs', id))
    if (pid !== undefined) process.kill(pid, 'SIGKILL')
  }
  rmSync(scratch, { recursive: true, force: true })
})

/** Waits for something that must come; the limit is only there so that a broken test ends. */
async function until<T>(look: () => T | undefined | false): Promise<T> {
  for (let i = 0; i < 1200; i++) {
    const found = look()
    if (found !== undefined && found !== false) return found
    await sleep(50)
  }
  throw new Error('it never came')
}

async function addressOf(started: Started): Promise<string> {
  let out = ''
  started.process.stdout!.on('data', (text: Buffer) => (out += text.toString()))
  return until(() => /http:\/\/\S+/.exec(out)?.[0])
}

test('the server dies and training goes on; the next one finds it; Ctrl-C saves', async () => {
  const runsDir = join(scratch, 'runs')
  const first = start('up', '--port', '0', '--runs', runsDir)
  const address = await addressOf(first)
  assert.match(await (await fetch(address)).text(), /<div id="app">/)
  const run = await until(() => listRuns(runsDir).runs.find(({ step }) => step > 0)?.id)
  const trainer = lockHolder(join(runsDir, run))!
  assert.notEqual(trainer, first.process.pid)

  first.process.kill('SIGKILL')
  // Its streams stay open: the trainer has them.
  await until(() => first.process.signalCode !== null)
  const step = readRun(runsDir, run).points.at(-1)!.step
  await until(() => readRun(runsDir, run).points.at(-1)!.step > step)

  const second = start('up', '--port', '0', '--runs', runsDir)
  const again = await addressOf(second)
  await until(() => second.err().includes(`a model is being trained already: ${run}`))
  const stopped = await fetch(`${again}/api/runs/${run}/stop`, { method: 'POST' })
  assert.equal(stopped.status, 202)
  await until(() => readRun(runsDir, run).status === 'interrupted')
  assert.equal(readRun(runsDir, run).checkpoints.at(-1)?.present, true)
  second.process.kill('SIGINT')
  assert.equal((await second.ended).code, 0)

  const third = start('up', '--port', '0', '--runs', runsDir)
  await addressOf(third)
  await until(() => third.err().includes(`going on with ${run}`))
  await until(() => readRun(runsDir, run).status === 'running')
  await until(() => readRun(runsDir, run).segments.at(-1)!.points.length > 0)
  third.process.kill('SIGINT')
  assert.equal((await third.ended).code, 130)
  const end = readRun(runsDir, run)
  assert.deepEqual([end.status, end.segments.length], ['interrupted', 2])
})
