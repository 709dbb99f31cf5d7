/** Predictions and stored runs: what is read back, and what was tampered with and is refused. */
import assert from 'node:assert/strict'
import { readFileSync, writeFileSync } from 'node:fs'
import { test } from 'node:test'
import { check, readRegistration, register } from './registration.ts'
import { readStoredRun, runPath } from './store.ts'
import { finish, seriesFor } from './test-series.ts'

const edit = (path: string, from: string | RegExp, to: string): void => {
  const before = readFileSync(path, 'utf8')
  const after = before.replace(from, to)
  assert.notEqual(after, before, 'the test edits nothing')
  writeFileSync(path, after)
}

test('a prediction is registered with its date and hash, read back, and compared with the run', (t) => {
  const { folder, work, plan } = seriesFor(t)
  const made = register(folder, work, new Date('2026-11-25T12:00:00.123Z'))
  assert.equal(made.registered, '2026-11-25T12:00:00Z')
  assert.deepEqual(readRegistration(folder), made)
  finish(folder, plan.target)
  const found = check(folder)
  assert.ok(Math.abs(found.relativeError) < 0.005 && found.inside, JSON.stringify(found))
  assert.ok(Math.abs(found.constantError) < 0.02, JSON.stringify(found))
  assert.ok(Math.abs(found.powerRelativeError) > Math.abs(found.relativeError))
})

test('no prediction after the run, nor a second one', (t) => {
  const { folder, work, plan } = seriesFor(t)
  register(folder, work, new Date())
  assert.throws(() => register(folder, work, new Date()), /got a registered prediction; expected none/)
  finish(folder, plan.target)
  assert.throws(
    () => register(folder, work, new Date()),
    /1e\+14\.json: got a run that is done; expected a prediction registered before/,
  )
})

test('a prediction edited after its registration is refused with the line and the reason', (t) => {
  const { folder, work, path } = seriesFor(t)
  const made = register(folder, work, new Date())
  const line = 1 + readFileSync(path, 'utf8').split('\n').indexOf('  "forecast": {')
  edit(path, `"loss": ${made.forecast.loss}`, `"loss": ${made.forecast.loss + 0.01}`)
  assert.throws(
    () => check(folder),
    new RegExp(
      `prediction.json, line ${line}: got 'forecast' with hash \\w+; expected \\w+, as registered: it was edited`,
    ),
  )
})

test('so is one whose date was moved, and one whose hashes were made again after an edit of a run', (t) => {
  const { folder, work, path, plan } = seriesFor(t)
  const made = register(folder, work, new Date('2026-11-25T12:00:00Z'))
  edit(path, '2026-11-25', '2026-11-24')
  assert.throws(() => readRegistration(folder), /line 2: got 'registered' with hash/)
  edit(path, '2026-11-24', '2026-11-25')
  assert.deepEqual(readRegistration(folder), made)
  const last = plan.fit.at(-1)!
  edit(runPath(folder, last.name), /"loss": [\d.]+/, '"loss": 1.2')
  assert.throws(() => readRegistration(folder), /got a 'runs' that the stored runs do not give/)
})

test('a curve with NaN, one that is cut off, and a run that is not of the plan are refused with file and line', (t) => {
  const { folder, plan } = seriesFor(t)
  const run = plan.fit[1]!
  const curve = runPath(folder, run.name).replace('.json', '.csv')
  const whole = readFileSync(curve, 'utf8')
  edit(curve, /2,.*/, '2,NaN')
  assert.throws(() => readStoredRun(folder, run), /\.csv, line 3, loss: got 'NaN'; expected a finite number/)
  writeFileSync(curve, whole.split('\n').slice(0, 2).join('\n'))
  assert.throws(
    () => readStoredRun(folder, run),
    /\.csv, line 2: got a curve that ends at step 1; expected step 2/,
  )
  writeFileSync(curve, whole)
  edit(runPath(folder, run.name), '"width": 8', '"width": 16')
  assert.throws(
    () => readStoredRun(folder, run),
    /line 3, settings: got other settings; expected those of the plan/,
  )
})
