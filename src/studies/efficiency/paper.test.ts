/**
 * The acceptance numbers of the 2020 analysis, worked out apart from this code (Python, double precision), and the files
 * of docs/studies, which must be what the command writes today.
 */
import assert from 'node:assert/strict'
import { createHash } from 'node:crypto'
import { cpSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, test } from 'node:test'
import { fileURLToPath } from 'node:url'
import { frontierOf, type Halving } from '../halving.ts'
import { reportHtml, reportMarkdown } from '../report.ts'
import { analysePaper } from './paper.ts'
import { paperFigure } from './paper-figure.ts'
import { paperReport, paperReportName } from './paper-report.ts'
import { efficiencyData, readPaperTables } from './tables.ts'

const tables = readPaperTables()
const analysis = analysePaper(tables)
const { halving, details, moore, variants } = analysis
const round = (digits: number, ...values: number[]): number[] =>
  values.map((value) => Number(value.toFixed(digits)))
const summary = ({ months, interval }: Halving): number[] => round(2, months, ...interval)

test('factor, slope, halving time, interval, R2', () => {
  assert.deepEqual(round(2, halving.factor, analysis.rederivedFactor), [44.35, 44.42])
  assert.deepEqual(round(7, halving.line.slope), [-0.0633677])
  assert.deepEqual(round(4, 12 * halving.line.slope * Math.log10(2)), [-0.2289])
  assert.deepEqual(
    round(3, 2 ** (-12 * halving.line.slope), halving.months, halving.span),
    [1.694, 15.781, 83.846],
  )
  assert.deepEqual(summary(halving), [15.78, 13.27, 19.46])
  assert.deepEqual(round(4, halving.line.r2), [0.9818])
})

test('exact bootstraps, Theil-Sen, endpoints, leaving one out', () => {
  const { pairs, residuals } = details
  assert.deepEqual([pairs.resamples, pairs.degenerate, pairs.exact], [46_656, 6, true])
  assert.deepEqual(round(2, pairs.low, pairs.median, pairs.high), [13.77, 15.78, 18.73])
  assert.deepEqual(round(2, residuals.low, residuals.median, residuals.high), [14.27, 15.77, 17.68])
  assert.deepEqual(round(2, details.theilSen, details.endpoints), [15.33, 15.33])
  assert.deepEqual(round(2, ...details.leaveOneOut), [16.98, 15.4, 15.6, 16.02, 15.58, 15.85])
})

test('the seeded bootstrap is near the exact one', () => {
  const { pairs, seededPairs } = details
  assert.deepEqual([seededPairs.exact, seededPairs.resamples], [false, 10_000])
  for (const key of ['low', 'median', 'high'] as const) {
    assert.ok(Math.abs(seededPairs[key] / pairs[key] - 1) < 0.02, `${key}: ${seededPairs[key]}`)
  }
})

test("Moore's Law", () => {
  assert.deepEqual(round(2, moore.factor, moore.t), [11.26, -5.03])
  assert.deepEqual([moore.freedom, ...round(4, moore.p)], [4, 0.0037])
})

test('the sensitivity table', () => {
  const [board, late, stopped, all] = variants.map((variant) => variant.halving) as [
    Halving,
    Halving,
    Halving,
    Halving,
  ]
  assert.deepEqual(round(7, board.line.slope), [-0.0637592])
  assert.deepEqual(round(3, board.months), [15.684])
  assert.deepEqual(summary(board), [15.68, 13.22, 19.28])
  assert.deepEqual(round(4, board.line.r2), [0.9823])
  assert.deepEqual(round(2, board.factor), [44.93])
  assert.deepEqual(summary(late), [15.86, 13.28, 19.68])
  assert.deepEqual(summary(stopped), [17.31, 14.53, 21.41])
  assert.deepEqual(round(1, Number(stopped.factor.toFixed(2))), [30.6])
  assert.deepEqual(summary(all), [13.73, 9.82, 22.79])
  assert.deepEqual(round(3, all.line.r2), [0.675])
})

test('all sixteen rows are derived again within 0.6 %, and the frontier is the one marked', () => {
  assert.equal(analysis.rows.length, 16)
  for (const { name, deviation } of analysis.rows) assert.ok(Math.abs(deviation) < 0.006, name)
  assert.deepEqual(
    analysis.rows.filter(({ onFrontier }) => onFrontier).map(({ name }) => name),
    tables.networks.filter((row) => row.on_frontier === 1).map(({ model }) => model),
  )
  for (const { network, efficiency, rederived, cost } of analysis.rows) {
    assert.deepEqual(round(2, efficiency, rederived), [
      network.efficiency_vs_alexnet,
      network.recomputed_petaflop_3x_forward,
    ])
    assert.deepEqual(round(4, (cost * 1e15) / (1e12 * 86_400)), [network.tflops_days])
  }
  assert.equal(frontierOf(analysis.rows).length, 6)
})

test('61x, 9x and 8x from their own numbers', () => {
  assert.deepEqual(
    analysis.ratios.map(({ printed, computed }) => [printed, ...round(2, computed)]),
    [
      [61, 60.61],
      [9, 8.95],
      [8, 7.9],
    ],
  )
})

test('the nanoGPT speedrun: records 1 to 21, 22 to 89, all', () => {
  assert.deepEqual(
    analysis.speedrun.map(({ name, halving: one }) => [name, ...round(2, one.months)]),
    [
      ['records 1 to 21', 1.83],
      ['records 22 to 89', 8.5],
      ['records 1 to 89', 6.53],
    ],
  )
})

test('intervals are labelled as computed here, wherever they stand', () => {
  const report = paperReport(analysis)
  for (const { title, table: [heading = []] = [] } of report.sections) {
    const hasInterval = heading.includes('low') && heading.includes('high')
    if (hasInterval) assert.match(title, /computed here/)
  }
  assert.equal(report.sections.filter(({ table }) => table?.[0]?.includes('low')).length, 3)
  assert.match(reportMarkdown(report), /The paper publishes no interval/)
})

test('the committed report, page and picture are what the command writes', () => {
  const picture = { [`${paperReportName}.svg`]: paperFigure(analysis) }
  const report = paperReport(analysis)
  const files = {
    ...picture,
    [`${paperReportName}.md`]: reportMarkdown(report),
    [`${paperReportName}.html`]: reportHtml(report, picture),
  }
  for (const [file, text] of Object.entries(files)) {
    const path = fileURLToPath(new URL(`../../../docs/studies/${file}`, import.meta.url))
    assert.equal(readFileSync(path, 'utf8'), text, file)
  }
})

test('every table has its hash in the data folder’s README', () => {
  const readme = readFileSync(join(efficiencyData, 'README.md'), 'utf8')
  const files = readdirSync(efficiencyData).filter((file) => file.endsWith('.csv'))
  assert.equal(files.length, 12)
  for (const file of files) {
    const hash = createHash('sha256')
      .update(readFileSync(join(efficiencyData, file)))
      .digest('hex')
    assert.ok(readme.includes(`| ${file} |`) && readme.includes(hash), file)
  }
})

const scratch = mkdtempSync(join(tmpdir(), 'anneal-study-'))
after(() => rmSync(scratch, { recursive: true, force: true }))

const tampered: readonly [what: string, file: string, from: string, to: string, message: RegExp][] = [
  [
    'NaN',
    'paper_alexnet_level.csv',
    '7.98,367.7',
    '7.98,NaN',
    /alexnet_level\.csv, line 3, printed_value: got 'NaN'/,
  ],
  [
    'a unit',
    'paper_public_sota.csv',
    'tflops_days',
    'gflops_days',
    /public_sota\.csv, line 1: got column 'gflops_days'/,
  ],
  [
    'a mark on no cell',
    'disputed.csv',
    'sota.csv,13',
    'sota.csv,14',
    /disputed\.csv, line 14: got paper_public_sota\.csv, line 14/,
  ],
]
for (const [what, file, from, to, message] of tampered) {
  test(`tables are refused: ${what}`, () => {
    const folder = mkdtempSync(join(scratch, 'data-'))
    cpSync(efficiencyData, folder, { recursive: true })
    const text = readFileSync(join(folder, file), 'utf8')
    assert.ok(text.includes(from))
    writeFileSync(join(folder, file), text.replace(from, to))
    assert.throws(() => readPaperTables(folder), message)
  })
}
