/** A long run's overview keeps every extreme and figure; its curves are those of the whole, thinned after smoothing. */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { Columns } from '../runs/columns.ts'
import { curveOf } from './curve-of.ts'
import { decodeColumns, encodeColumns } from './encode.ts'
import { decodeCurves, encodeCurves } from './encode-curves.ts'
import { drawing, overview, readView } from './overview.ts'
import { smooth } from './thinning.ts'

const points = 40_000
const lossAt = (step: number): number => 2 + Math.sin(step * 12.9898) / 5 + 3000 / (step + 1000)

function longRun(): Columns {
  const columns = new Columns()
  for (let step = 1; step <= points; step++) {
    const validation: Readonly<Record<string, number>> =
      step % 400 === 0 ? { validationLoss: lossAt(step) } : {}
    const metrics = { loss: step === 777 ? Number.NaN : lossAt(step), ...validation }
    columns.add({ kind: 'point', step, tokens: step * 64, seconds: step * 0.1, flops: step * 1e6, metrics })
  }
  return columns
}

const whole = longRun()
const sortedOf = (values: Float64Array): Float64Array => values.filter((v) => !Number.isNaN(v)).toSorted()

test('a short run is sent whole', () => {
  const columns = new Columns()
  columns.add({ kind: 'point', step: 1, tokens: 1, seconds: 1, flops: 1, metrics: { loss: 1 } })
  assert.equal(overview(columns), undefined)
})

test('an overview has the figures of the whole, only values that were there, and all of what is seldom measured', () => {
  const thinned = overview(whole)
  assert.ok(thinned)
  assert.ok(thinned.length < 9000, String(thinned.length))
  const [loss, all] = [thinned.metrics.get('loss')!, whole.metrics.get('loss')!]
  const [few, many] = [sortedOf(loss.values.values), sortedOf(all.values.values)]
  assert.equal(few[0], many[0])
  assert.equal(few.at(-1), many.at(-1))
  assert.ok(loss.values.values.some(Number.isNaN), 'the gap is kept')
  assert.equal(loss.values.at(loss.values.length - 1), all.values.at(all.values.length - 1))
  for (const [i, row] of loss.rows.values.entries()) {
    const step = thinned.axes.step.at(row)
    if (step !== 777) assert.equal(loss.values.at(i), lossAt(step))
    assert.equal(thinned.axes.tokens.at(row), step * 64)
  }
  assert.equal(thinned.metrics.get('validationLoss')!.values.length, points / 400)
  // The rate at the end is that of the whole.
  const rate = (columns: Columns): number => curveOf(columns, 'tokens / s', 'step')!.y.at(-1)!
  assert.equal(rate(thinned), rate(whole))
  const decoded = decodeColumns(encodeColumns(thinned, 'here', whole).buffer)
  assert.deepEqual(decoded.whole, { points, metrics: { loss: points, validationLoss: points / 400 } })
  assert.equal(decoded.columns.length, thinned.length)
})

test('a curve is smoothed over every point, then thinned; a part of it has the same values in more detail', () => {
  const exact = smooth(curveOf(whole, 'loss', 'step')!, 0.95).y
  const view = readView({ metric: 'loss', axis: 'step', smoothing: '0.95', buckets: '100' })
  for (const part of [view, { ...view, from: 10_000, to: 10_500 }, { ...view, logX: true }]) {
    const [raw, smoothed] = decodeCurves(encodeCurves(drawing(whole, part)).buffer)
    assert.ok(raw!.x.length > 100 && raw!.x.length < 310, String(raw!.x.length))
    for (const [i, step] of smoothed!.x.entries()) assert.ok(Object.is(smoothed!.y[i], exact[step - 1]))
  }
  const logged = drawing(whole, { ...view, logX: true })[0].x
  // Buckets of as many points each would leave five or so there.
  assert.ok(logged.filter((step) => step <= 1000).length > 60, 'a logarithmic axis shows its left')
  assert.deepEqual(drawing(whole, { ...view, metric: 'none' })[0].x, new Float64Array(0))
})

test('a view that is none is refused in words', () => {
  assert.throws(() => readView({ axis: 'colour' }), /axis/)
  assert.throws(() => readView({ from: 'x' }), /from/)
})
