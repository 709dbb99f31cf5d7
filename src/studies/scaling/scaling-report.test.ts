/** The report of a series before and after the run it predicts. */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { reportHtml, reportMarkdown } from '../report.ts'
import { register } from './registration.ts'
import { scalingReport } from './scaling-report.ts'
import { finish, seriesFor } from './test-series.ts'

test('a report shows the prediction, and the outcome only once the run is there', (t) => {
  const { folder, work, plan } = seriesFor(t)
  const made = register(folder, work, new Date('2026-11-25T12:00:00Z'))
  const before = scalingReport(folder, 'short')
  const text = reportMarkdown(before.report)
  assert.ok(text.includes(`Registered 2026-11-25T12:00:00Z with hash ${made.sha256['all']}`))
  assert.ok(text.includes('is not finished') && !text.includes('inside the 90 %'))
  assert.ok(text.includes('anneal study scaling run --target --series short'))
  const figure = before.pictures['scaling-short.svg']!
  assert.equal(figure.match(/<circle/g)?.length, plan.fit.length)
  assert.ok(!figure.includes('measured') && !figure.includes('NaN'))

  finish(folder, plan.target)
  const { report, pictures } = scalingReport(folder, 'short')
  assert.match(reportMarkdown(report), /\| inside the 90 % interval \| yes \|/)
  assert.match(pictures['scaling-short.svg']!, /measured 1\.\d{4}/)
  assert.ok(reportHtml(report, pictures).includes('<svg'))
})
