/** Tables that are damaged are refused with the line and the reason; sound ones come back as typed. */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { UserError } from '../errors.ts'
import { parseTable } from './csv.ts'

const columns = { name: 'text', date: 'date', tflops_days: 'amount', seconds: 'amount?' } as const
const heading = 'name,date,tflops_days,seconds'
const read = (...lines: string[]) => parseTable(lines.join('\n'), 'costs.csv', columns)

test('cells come back with their types, in quotes or not, and with their line', () => {
  const rows = read(heading, '"a ""b"", c\nd",2012-06-01,3.08,', '', 'e,2019-05-28,6.9e-2,12\r', '')
  assert.deepEqual(rows, [
    { name: 'a "b", c\nd', date: '2012-06-01', tflops_days: 3.08, seconds: null, line: 2 },
    { name: 'e', date: '2019-05-28', tflops_days: 0.069, seconds: 12, line: 5 },
  ])
})

const damaged: readonly [what: string, lines: readonly string[], message: RegExp][] = [
  [
    'an unknown unit',
    ['name,date,gflops_days,seconds', 'a,2012-06-01,1,2'],
    /^costs\.csv, line 1: got column 'gflops_days', whose unit.*did you mean tflops_days\?/,
  ],
  ['a column lost', ['name,date,seconds', 'a,2012-06-01,1'], /line 1: got no column 'tflops_days'/],
  ['a column twice', [`${heading},name`, 'a,2012-06-01,1,2,a'], /line 1: got column 'name' twice/],
  ['NaN', [heading, 'a,2012-06-01,1,2', 'b,2012-06-02,NaN,2'], /line 3, tflops_days: got 'NaN'/],
  ['infinity', [heading, 'a,2012-06-01,1e999,2'], /line 2, tflops_days: got '1e999'/],
  ['a negative cost', [heading, 'a,2012-06-01,-1,2'], /line 2, tflops_days: got '-1'/],
  ['an empty cost', [heading, 'a,2012-06-01,,2'], /line 2, tflops_days: got ''/],
  ['a day that is not', [heading, 'a,2018-02-30,1,2'], /line 2, date: got '2018-02-30'/],
  ['a cell too few', [heading, 'a,2012-06-01,1'], /line 2: got 3 cells; expected 4/],
  ['an open quote', [heading, '"a,2012-06-01,1,2'], /line 2: got a double quote that is never closed/],
]

for (const [what, lines, message] of damaged) {
  test(`refused: ${what}`, () => {
    assert.throws(
      () => read(...lines),
      (error) => error instanceof UserError && message.test(error.message) && error.exitCode === 1,
    )
  })
}
