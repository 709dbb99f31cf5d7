/** Acrobot: physics against what must be conserved, and rules against their definition. */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import {
  Acrobots,
  advance,
  arrived,
  energy,
  nextState,
  observationSize,
  stepLimit,
  type State,
} from './acrobot.ts'

const start: State = [1.2, -0.7, 0.4, -1.1]

/** Largest departure from the first energy over 4 s. */
function drift(time: number): number {
  let [state, worst] = [start, 0]
  for (let i = 0; i < Math.round(4 / time); i++) {
    state = advance(state, 0, time)
    worst = Math.max(worst, Math.abs(energy(state) - energy(start)))
  }
  return worst
}

test('without torque energy is conserved, the better the smaller the step, as order 4 must', () => {
  assert.ok(drift(0.002) < 1e-8, String(drift(0.002)))
  // Halving the step divides the error by 16 or more.
  const ratio = drift(0.02) / drift(0.01)
  assert.ok(ratio > 12 && ratio < 40, String(ratio))
})

test('the power of the motor is torque times the velocity of its joint', () => {
  const time = 1e-4
  for (const torque of [-1, 1]) {
    const gained = energy(advance(start, torque, time)) - energy(advance(start, torque, -time))
    assert.ok(Math.abs(gained / (2 * time) - torque * start[3]) < 1e-6)
  }
})

test('hanging still stays, and left is the mirror of right', () => {
  assert.deepEqual(nextState([0, 0, 0, 0], 1).map(Math.abs), [0, 0, 0, 0])
  const mirrored = start.map((x) => -x) as unknown as State
  const [right, left] = [nextState(start, 2), nextState(mirrored, 0)]
  right.forEach((x, i) => assert.ok(Math.abs(x + left[i]!) < 1e-12))
})

test('it has arrived when the tip is a link above the pivot', () => {
  assert.ok(arrived([Math.PI, 0, 0, 0]))
  assert.ok(!arrived([0, 0, 0, 0]))
  // First link level, second upright: exactly one link above, which is not more.
  assert.ok(!arrived([Math.PI / 2 - 1e-6, Math.PI / 2, 0, 0]))
  assert.ok(arrived([Math.PI / 2 + 1e-6, Math.PI / 2, 0, 0]))
})

test('angles stay within a turn and velocities within their limits', () => {
  let state: State = [3.1, 3.1, 12.5, 28]
  for (let i = 0; i < 200; i++) {
    state = nextState(state, i % 3)
    assert.ok(Math.abs(state[0]) <= Math.PI && Math.abs(state[1]) <= Math.PI)
    assert.ok(Math.abs(state[2]) <= 4 * Math.PI && Math.abs(state[3]) <= 9 * Math.PI)
  }
})

test('rows are independent, start near rest, swing up when pushed in time, and are cut off at the limit', () => {
  let drawn = 0
  const worlds = new Acrobots(2, () => (drawn++ % 7) / 7)
  assert.equal(drawn, 8)
  const seen = new Float32Array(2 * observationSize)
  worlds.observe(seen)
  for (const row of [0, 6]) assert.ok(seen[row]! > 0.99 && Math.abs(seen[row + 4]!) <= 0.1)
  let [pushed, idle] = [0, 0]
  for (let i = 1; i <= stepLimit; i++) {
    worlds.observe(seen)
    // Row 0 pushes along with its joint, which only adds energy; row 1 does nothing.
    const [one, two] = worlds.step([seen[5]! > 0 ? 2 : 0, 1])
    if (one === 'arrived' && pushed === 0) pushed = i
    if (two !== 'goes on' && idle === 0) {
      idle = i
      assert.equal(two, 'cut off')
    }
  }
  assert.ok(pushed > 10 && pushed < 200, String(pushed))
  assert.equal(idle, stepLimit)
  worlds.restart(1)
  assert.deepEqual(worlds.step([1, 1])[1], 'goes on')
})
