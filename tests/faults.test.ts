/**
 * What a run over processes survives: a rank that is killed, one that is stopped, one that does not come
 * back. Each time the rank is named, and the run goes on from the last checkpoint, with fewer ranks if it
 * must, to the bits of a run to which nothing happened.
 */
import assert from 'node:assert/strict'
import { join } from 'node:path'
import { before, test } from 'node:test'
import { withoutMpi } from '../src/compiler/runtime/mpi.ts'
import { readRun } from '../src/runs/index.ts'
import { folderIn, host, scratch, trainThrough, undisturbed, wentOn, type State } from './faulty.ts'

const skip = await withoutMpi()
// Long enough to be hurt after its first checkpoint.
const steps = 400
let whole: State

before(() => {
  if (!skip) whole = undisturbed('whole', steps)
})

test('a rank that is killed is named, and the run goes on', { skip }, async () => {
  const runs = join(scratch, 'killed')
  const outcome = await trainThrough(runs, steps, [], (pid) => process.kill(pid, 'SIGKILL'))
  wentOn(runs, whole, outcome, new RegExp(`rank 1 on ${host}, after step \\d+: was ended by signal 9`))
})

test('a rank that hangs is named after a patience, and the run goes on', { skip }, async () => {
  const runs = join(scratch, 'stopped')
  const outcome = await trainThrough(runs, steps, ['parallel.patience=2'], (pid) =>
    process.kill(pid, 'SIGSTOP'),
  )
  wentOn(runs, whole, outcome, new RegExp(`rank 1 on ${host}, step \\d+: did not come to .* within 2 s`))
})

test('a rank that may not come back is left out, and the run goes on with the others', { skip }, async () => {
  const runs = join(scratch, 'fewer')
  const allowed = ['parallel.restarts=0', 'parallel.shrink=true']
  const outcome = await trainThrough(runs, steps, allowed, (pid) => process.kill(pid, 'SIGKILL'))
  const fault = new RegExp(`rank 1 on ${host}, after step \\d+: was ended by signal 9`)
  wentOn(runs, whole, outcome, fault, /with 1 of 2 ranks: mesh\.data=1 \(the widest data axis/)
  const { config } = readRun(runs, folderIn(runs).slice(runs.length + 1))
  assert.equal((config['mesh'] as Record<string, unknown>)['data'], 1)
})

test('where nothing may be tried again, the last line names the rank', { skip }, async () => {
  const runs = join(scratch, 'ended')
  const { code, err } = await trainThrough(runs, steps, ['parallel.restarts=0'], (pid) =>
    process.kill(pid, 'SIGKILL'),
  )
  assert.equal(code, 1)
  const last = err.trimEnd().split('\n').at(-1)!
  assert.match(last, new RegExp(`^error: rank 1 on ${host}, after step \\d+: got was ended by signal 9`))
})
