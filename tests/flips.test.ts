/**
 * A bit that flips in the memory of one rank, as a broken one does it: found, the rank named where it can be known, and no
 * checkpoint is made of it. The run goes on to the bits of one to which nothing happened.
 */
import assert from 'node:assert/strict'
import { join } from 'node:path'
import { test } from 'node:test'
import { withoutMpi } from '../src/compiler/runtime/mpi.ts'
import { host, scratch, trainThrough, undisturbed, wentOn, type State } from './faulty.ts'
import type { Outcome } from './launch.ts'

const skip = await withoutMpi()
const steps = 120

let known: State | undefined
const whole = (): State => (known ??= undisturbed('whole', steps))

/** Flips a bit of rank 1 between a step and the next. */
async function flippedAfter(step: number, runs: string, more: string[]): Promise<Outcome> {
  process.env['ANNEAL_TEST_FLIP'] = `1,${step}`
  try {
    return await trainThrough(runs, steps, more)
  } finally {
    delete process.env['ANNEAL_TEST_FLIP']
  }
}

test(
  'a flipped bit is found at the next comparison; two ranks that differ are both named',
  { skip },
  async () => {
    const runs = join(scratch, 'flipped')
    const outcome = await flippedAfter(55, runs, ['parallel.check=20'])
    const fault = `rank 0 on ${host} or rank 1 on ${host}, step 60, 'state\\.params.*other bits`
    wentOn(runs, whole(), outcome, new RegExp(fault))
  },
)

test('no checkpoint is made of a state that differs', { skip }, async () => {
  const runs = join(scratch, 'flipped-before-saving')
  const outcome = await flippedAfter(70, runs, ['parallel.check=1000'])
  wentOn(runs, whole(), outcome, new RegExp(`rank 0 on ${host} or rank 1 on ${host}, step 80, .*other bits`))
  assert.match(outcome.err, /going on from step 40/)
})

test('a rank whose bits flip after a comparison names itself, also under ZeRO', { skip }, async () => {
  const runs = join(scratch, 'flipped-alone')
  const outcome = await flippedAfter(55, runs, ['parallel.check=1', 'parallel.zero=1'])
  const fault = `note: rank 1 on ${host}, step 55, 'state\\.params.*other bits than after the step`
  wentOn(runs, undisturbed('whole-zero', steps, ['parallel.zero=1']), outcome, new RegExp(fault))
})
