/**
 * Numbers, pictures and the status line as people see them. The status writes to a recorded screen under a clock
 * that the test turns.
 */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import type { TrainPlan, TrainPoint } from '../train/events.ts'
import {
  formatBytes,
  formatCount,
  formatDuration,
  formatFlopRate,
  formatFlops,
  formatMetric,
  formatPercent,
  formatTable,
} from './format.ts'
import { plot, sparkline } from './plot.ts'
import { createStatus, describePlan, describeProgress } from './status.ts'
import type { Screen } from './status.ts'

const plan: TrainPlan = {
  parameters: 156_032,
  activeParameters: 156_032,
  tokens: 6_000_640,
  flops: 9.01e12,
  flopsPerStep: 6.15e9,
  operations: {
    forward: 2e9,
    backward: 4e9,
    recompute: 0,
    optimizer: 1.5e8,
    data: 0,
    total: 6.15e9,
    model: 5.4e9,
    paper2020: 2.7e9,
    evaluation: 5.5e10,
  },
  arenaBytes: 12.25 * 2 ** 20,
  offloadedBytes: 0,
  movedBytes: 0,
  processBytes: 150 * 2 ** 20,
  steps: 1465,
  peakFlops: 6e10,
  threads: 2,
  etaSeconds: 192,
  compileSeconds: 2.3,
  cached: false,
  data: {
    name: 'shakespeare',
    trainTokens: 1_003_854,
    validationTokens: 111_540,
    vocabSize: 65,
    tokenizer: 'chars',
    skipped: [{ name: 'a.png', reason: 'binary' }],
  },
}

/** Ten steps a second, 4096 tokens and 6 GFLOP each. */
const point = (step: number): TrainPoint => ({
  step,
  tokens: step * 4096,
  seconds: step / 10,
  flops: step * 6e9,
  metrics: { loss: 4 - step / 1000 },
})

test('numbers have three digits and a unit', () => {
  assert.deepEqual([1.2e13, 9.999e14, 6.15e9, 999, 0].map(formatFlops), [
    '12.0 TFLOP',
    '1.00 PFLOP',
    '6.15 GFLOP',
    '999 FLOP',
    '0 FLOP',
  ])
  assert.equal(formatFlopRate(5.5e10), '55.0 GFLOP/s')
  assert.deepEqual([0, 65, 999, 1000, 156_032, 999_700, 6_000_640].map(formatCount), [
    '0',
    '65',
    '999',
    '1.00 K',
    '156 K',
    '1.00 M',
    '6.00 M',
  ])
  assert.deepEqual([512, 1023, 1024, 1572864, 2 ** 40].map(formatBytes), [
    '512 B',
    '1023 B',
    '1.00 KiB',
    '1.50 MiB',
    '1.00 TiB',
  ])
  assert.deepEqual([0.04, 9.96, 42, 59.7, 192, 3600, 86_399, 200_000, Number.NaN].map(formatDuration), [
    '0.0 s',
    '10 s',
    '42 s',
    '1 min 00 s',
    '3 min 12 s',
    '1 h 00 min',
    '1 d 00 h',
    '2 d 08 h',
    '?',
  ])
  assert.deepEqual([1.8234, 0.03, 1.2e-5, 0, Number.NaN, 4.17439, 123456, -2.5].map(formatMetric), [
    '1.823',
    '0.03',
    '1.2e-5',
    '0',
    'NaN',
    '4.174',
    '1.23e+5',
    '-2.500',
  ])
  assert.equal(formatPercent(0.314), '31%')
  assert.equal(
    formatTable([
      ['a', 'bb', ''],
      ['ccc', 'd', 'e'],
    ]),
    'a    bb\nccc  d   e',
  )
})

test('a sparkline falls with its values and a plot places its extremes', () => {
  assert.equal(sparkline([8, 7, 6, 5, 4, 3, 2, 1]), '█▇▆▅▄▃▂▁')
  assert.equal(sparkline([1, Number.NaN, 1]), '▁▁')
  assert.equal(sparkline([]), '')
  assert.equal(sparkline(Array.from({ length: 1000 }, (_, i) => i)).length, 40)
  const points = Array.from({ length: 100 }, (_, i) => ({ step: i + 1, value: 100 - i }))
  const picture = plot([{ mark: '*', name: 'loss', points }], { width: 20, height: 5 }).split('\n')
  assert.equal(picture.length, 8)
  assert.match(picture[0]!, /^ *\d.* │\*/)
  assert.match(picture[4]!, / {10}\*+$/)
  assert.match(picture[6]!, /step 1 +100$/)
  assert.equal(plot([{ mark: '*', name: 'loss', points: [{ step: 1, value: Number.NaN }] }]), '')
  assert.ok(plot([{ mark: '*', name: 'loss', points: [{ step: 1, value: 2 }] }]).includes('*'))
})

test('the progress line names step, loss, speed, share of peak and time left', () => {
  assert.equal(
    describeProgress([point(400), point(420)], plan),
    'step 420/1465  loss 3.580  41.0 K tokens/s  60.0 GFLOP/s (100% of peak)  ETA 1 min 45 s',
  )
  assert.equal(describeProgress([point(1)], plan), 'step 1/1465  loss 3.999  ETA 3 min 12 s')
})

function record(isTTY: boolean): { screen: Screen; text: () => string; wait: (ms: number) => void } {
  let written = ''
  let clock = 0
  return {
    screen: { isTTY, columns: 100, write: (text) => void (written += text), now: () => clock },
    text: () => written,
    wait: (ms) => void (clock += ms),
  }
}

test('into a file: plain lines, one every five seconds, evaluations and samples in between', () => {
  const { screen, text, wait } = record(false)
  const status = createStatus(screen)
  status.plan(plan)
  status.phase('compiling the training step')
  wait(2000)
  for (let step = 1; step <= 120; step++) {
    wait(100)
    status.point(point(step))
  }
  status.evaluation({ ...point(120), metrics: { validationLoss: 2.01 } })
  status.sample({ step: 120, prompt: 'ROMEO:', text: '\nHow \u001b[31mnow?' })
  status.checkpoint({ step: 120, file: 'x', bytes: 100 })
  status.end()
  assert.ok(!text().includes('\u001b') && !text().includes('\r'))
  const lines = text().trimEnd().split('\n')
  assert.equal(
    lines[0],
    'data     shakespeare: 1.00 M training and 112 K validation tokens, vocabulary 65 (chars)',
  )
  assert.equal(lines[1], '  left out a.png: binary')
  assert.match(
    text(),
    /compute {2}1465 steps, 6\.00 M tokens, 9\.01 TFLOP \(6\.15 GFLOP a step\)\na step {3}forward 2\.00 GFLOP, backward 4\.00 GFLOP, optimizer 150 MFLOP; .*55\.0 GFLOP, not in the sum\nmachine {2}2 threads/,
  )
  assert.match(text(), /\ncompiling the training step…\nstep 30\/1465 /)
  assert.equal(lines.filter((line) => /^step \d+\//.test(line)).length, 2)
  assert.match(
    text(),
    /\nstep 120 {2}validation loss 2\.010 {2}after 720 GFLOP, 12 s\nstep 120 {2}sample:\n {4}ROMEO:\n {4}How now\?\n$/,
  )
})

test('on a terminal: one line, redrawn at most ten times a second, gone at the end', () => {
  const { screen, text, wait } = record(true)
  const status = createStatus(screen)
  for (let step = 1; step <= 1000; step++) {
    wait(10)
    status.point(point(step))
  }
  const redraws = text().split('\r').length - 1
  assert.ok(redraws >= 90 && redraws <= 101, `${redraws} redraws in ten seconds`)
  assert.ok(!text().includes('\n'))
  status.evaluation({ ...point(1000), metrics: { validationLoss: 2 } })
  assert.match(
    text().replaceAll('\u001b[K', '<clear>'),
    /\r<clear>step 1000 {2}validation loss 2\.000.*\n\rstep \d+ .*<clear>$/,
  )
  status.end()
  assert.ok(text().endsWith('\r\u001b[K'))
  for (const row of text().split(/[\r\n]/)) assert.ok(row.length < 100 + 3)
})

test('the plan says what is computed again, and what that costs', () => {
  const recompute = {
    extraFlops: 1.15e9,
    extraSeconds: 0.1,
    keptBytes: 36 * 2 ** 20,
    allBytes: 576 * 2 ** 20,
    kept: ['input f32[4, 4], 36.0 MiB'],
    recomputed: 12,
    optimal: true,
  }
  const line = describePlan({ ...plan, recompute }).find((text) => text.startsWith('memory'))
  assert.equal(
    line,
    'memory   layers keep 36.0 MiB of 576 MiB for the backward pass, 12 values a layer are computed again: 23% more compute',
  )
  const unsure = describePlan({ ...plan, recompute: { ...recompute, optimal: false } })
  assert.ok(unsure.some((text) => text.endsWith('(a cheaper choice may exist)')))
})

test('what lies in a file, and what a step moves, is a line of the plan', () => {
  const lineOf = (given: TrainPlan): string | undefined =>
    describePlan(given).find((text) => text.startsWith('file'))
  assert.equal(lineOf(plan), undefined)
  assert.equal(
    lineOf({ ...plan, offloadedBytes: 82 * 2 ** 20, movedBytes: 160 * 2 ** 20 }),
    'file     82.0 MiB lie in a file, a step moves 160 MiB to it and from it',
  )
})
