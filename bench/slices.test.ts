/** Turns, medians and ratios on contestants whose speed is known, options, and the peer's protocol against a real process. */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { UserError } from '../src/errors.ts'
import { chosen, readOptions } from './options.ts'
import { startPeer } from './peer.ts'
import { disturbances } from './quiet.ts'
import { alternate, median, speedRatio } from './slices.ts'
import type { Contestant, Timing } from './slices.ts'

test('something may be done before every round', async () => {
  let rounds = 0
  const beforeRound = async (): Promise<void> => {
    rounds++
  }
  await alternate([{ name: 'a', run: async (k) => k }], { rounds: 3, seconds: 1, beforeRound })
  assert.equal(rounds, 3)
})

test('contestants take turns, the order reverses, slices have the length asked for', async () => {
  const turns: string[] = []
  const contestant = (name: string, secondsPerStep: number): Contestant => ({
    name,
    async run(k) {
      turns.push(name)
      return k * secondsPerStep
    },
  })
  const timings = await alternate([contestant('a', 0.01), contestant('b', 0.04)], { rounds: 3, seconds: 1 })
  assert.equal(turns.slice(-12).join(''), 'aabbbbaaaabb', 'each once to warm up, once to be timed')
  assert.deepEqual(
    timings.map(({ stepsPerSlice }) => stepsPerSlice),
    [100, 25],
  )
  const ratio = speedRatio(timings[0]!, timings[1]!)
  assert.ok(Math.abs(ratio.median - 4) < 1e-9 && Math.abs(ratio.low - 4) < 1e-9)
})

test('the spread is over rounds, the ratio over medians', () => {
  const timing = (name: string, secondsPerStep: number[]): Timing => ({
    name,
    stepsPerSlice: 1,
    secondsPerStep,
  })
  const ratio = speedRatio(timing('ours', [1, 1, 2]), timing('theirs', [3, 2, 2]))
  assert.deepEqual(ratio, { median: 2, low: 1, high: 3 })
  assert.equal(median([4, 1, 3, 2]), 2.5)
  assert.ok(Number.isNaN(median([])))
})

test('a peer answers orders, and its last words are reported when it dies', async () => {
  const program = `
    console.log(JSON.stringify({ ready: true, version: '1', parameters: 3, threads: 2 }))
    require('node:readline').createInterface({ input: process.stdin }).on('line', (line) => {
      if (line === 'quit') process.exit()
      if (line === 'hello') return console.log('not for the benchmark')
      const k = Number(line.split(' ')[1])
      if (k > 9) { console.error('first\\nout of memory'); process.exit(1) }
      console.log(JSON.stringify({ seconds: k / 2 }))
    })`
  const peer = await startPeer('peer', process.execPath, ['-e', program])
  assert.deepEqual([peer.version, peer.parameters, peer.threads], ['1', 3, 2])
  peer.order('hello')
  assert.equal(await peer.run(4), 2)
  await assert.rejects(
    peer.run(10),
    (error) => error instanceof UserError && /out of memory/.test(error.message),
  )
  peer.close()
  await assert.rejects(startPeer('gone', '/nonexistent', []), UserError)
})

test('options are read, and what cannot be meant is a mistake of usage', () => {
  const defaults = { rounds: 7, seconds: 1, flags: { compile: true, bf16: false } }
  const given = readOptions(['--rounds', '3', '--no-compile', '--only', 'a,b'], defaults)
  assert.deepEqual([given.rounds, given.seconds, given.only], [3, 1, ['a', 'b']])
  assert.deepEqual(given.flags, { compile: false, bf16: false })
  assert.throws(() => readOptions(['--rounds', 'many'], defaults), UserError)
  assert.deepEqual(chosen(['a', 'b', 'c'], []), ['a', 'b', 'c'])
  assert.deepEqual(chosen(['a', 'b', 'c'], ['c']), ['c'])
  assert.throws(() => chosen(['a', 'b'], ['d']), UserError)
})

test('a busy machine or a peak that wavers is said', () => {
  assert.deepEqual(disturbances(0.1, [100, 95, 98]), [])
  assert.deepEqual(disturbances(0), [])
  assert.match(disturbances(1.04)[0]!, /1\.0 cores busy/)
  assert.match(disturbances(0, [100, 60])[0]!, /fell to 60%/)
})
