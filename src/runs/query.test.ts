/** The query language: every comparison, negation, order, what is left out, and mistakes with a hint. */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { searchRuns } from './query.ts'
import type { RunSummary } from './summary.ts'

const run = (id: string, loss: number, more: Partial<RunSummary> = {}): RunSummary => ({
  id,
  recipe: 'language',
  created: '2026-11-20T00:00:00.000Z',
  status: 'finished',
  step: 100,
  tokens: 4e5,
  seconds: 12,
  flops: 1.5e12,
  segments: 1,
  config: { model: { width: 64 }, optim: { name: 'muon' }, data: 'shakespeare', accumulate: true },
  tags: [],
  note: '',
  archived: false,
  parent: null,
  metrics: {
    loss: {
      count: 2,
      nonFinite: 0,
      last: { value: loss, step: 100 },
      min: { value: loss - 0.5, step: 90 },
      max: { value: 4, step: 1 },
    },
  },
  ...more,
})

const runs = [
  run('a', 1.5, { tags: ['good', 'long run'], note: 'the quick fox' }),
  run('b', 2, { status: 'running', step: 50, created: '2026-11-25T00:00:00.000Z' }),
  run('c', 3, { config: { model: { width: 128 }, optim: { name: 'sgd' } }, flops: 2e12 }),
  run('d', Number.NaN, { archived: true, parent: { run: 'a', step: 50 } }),
]

const cases: readonly [query: string, ids: string][] = [
  ['', 'abc'],
  ['fox', 'a'],
  ['-fox', 'bc'],
  ['"quick fox"', 'a'],
  ['status=running', 'b'],
  ['status!=running', 'ac'],
  ['-status=running', 'ac'],
  ['loss<2', 'a'],
  ['loss<=2', 'ab'],
  ['loss.min<2', 'ab'],
  ['loss.max>=4 step>50', 'ac'],
  ['flops>1.6T', 'c'],
  ['tokens=400k', 'abc'],
  ['model.width>=128', 'c'],
  ['optim.name=muon', 'ab'],
  ['optim.name~u status=finished', 'a'],
  ['accumulate=true', 'ab'],
  ['tag=good', 'a'],
  ['tag="long run"', 'a'],
  ['tag!=good', 'bc'],
  ['created>=2026-11-24', 'b'],
  ['archived', 'd'],
  ['archived=false', 'abc'],
  ['parent=a archived', 'd'],
  ['loss=nan archived', 'd'],
  ['sort=-loss', 'cba'],
  ['sort=status sort=-loss', 'cab'],
]

for (const [query, ids] of cases) {
  test(`query: ${query || '(nothing)'}`, () => {
    const found = searchRuns(runs, query).map(({ id }) => id)
    assert.equal(found.join(''), ids)
  })
}

test('a mistyped key, a missing value and an open quote are refused with a hint', () => {
  assert.throws(() => searchRuns(runs, 'lss<2'), /'lss<2', whose 'lss' no run has;.*did you mean loss\?/)
  assert.throws(() => searchRuns(runs, 'sort=-modle.width'), /did you mean model\.width\?/)
  assert.throws(() => searchRuns(runs, 'loss<'), /query: got 'loss<'/)
  assert.throws(() => searchRuns(runs, '"open'), /closing quote/)
  assert.deepEqual(searchRuns([], 'anything<3'), [])
  assert.throws(() => searchRuns(runs, '__proto__=3'), /no run has/)
})
