/** What failures cost, against a run counted step by step. */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { bestStepsPerCheckpoint, failureCost, goodput, type RestartCosts } from './restart.ts'

const costs: RestartCosts = {
  stepSeconds: 10,
  stepsPerCheckpoint: 50,
  checkpointSeconds: 20,
  detectSeconds: 60,
  restartSeconds: 240,
}

test('a failure costs the steps since the last checkpoint, the step it broke, and the way back', () => {
  assert.deepEqual(failureCost(costs, 149, 7), { lostSteps: 49, lostSeconds: 497, downSeconds: 300 })
  assert.deepEqual(failureCost(costs, 150, 0), { lostSteps: 0, lostSeconds: 0, downSeconds: 300 })
})

test('goodput is near that of a run with failures at even distances', () => {
  const meanSeconds = 40_000
  const interval = costs.stepsPerCheckpoint * costs.stepSeconds + costs.checkpointSeconds
  // Failures once in 40,000 s, at every phase of an interval alike.
  let [kept, total] = [0, 0]
  for (let phase = 0; phase < interval; phase++) {
    const before = meanSeconds - costs.detectSeconds - costs.restartSeconds
    kept += Math.floor((before - phase) / interval) * costs.stepsPerCheckpoint * costs.stepSeconds
    total +=
      Math.floor((before - phase) / interval) * interval + phase + costs.detectSeconds + costs.restartSeconds
  }
  assert.ok(
    Math.abs(goodput(costs, meanSeconds) - kept / total) < 0.001,
    `${goodput(costs, meanSeconds)} ${kept / total}`,
  )
})

test('the best interval is a maximum', () => {
  const meanSeconds = 40_000
  const best = bestStepsPerCheckpoint(costs, meanSeconds)
  const at = (stepsPerCheckpoint: number): number => goodput({ ...costs, stepsPerCheckpoint }, meanSeconds)
  assert.ok(at(best) >= at(best * 2) && at(best) >= at(Math.round(best / 2)))
  assert.equal(best, 126)
})
