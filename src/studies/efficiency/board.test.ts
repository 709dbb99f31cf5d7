/** Boards in folders: what is refused, what is generated, and that the committed ones are true. */
import assert from 'node:assert/strict'
import { cpSync, existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, test } from 'node:test'
import { fileURLToPath } from 'node:url'
import { UserError } from '../../errors.ts'
import {
  appendRun,
  appendTrial,
  entryFolder,
  leaderboards,
  readEntries,
  readEntry,
  readRuns,
  repairLines,
  writeEntry,
} from './board-files.ts'
import {
  boardPages,
  checkBoard,
  checkPages,
  checkPublished,
  publishedPages,
  readBoard,
  writeBoard,
} from './board.ts'
import { fitTable } from './fit-table.ts'
import { tasks } from './tasks/index.ts'
import { missingTrials } from './tune.ts'
import { madeEntry, madeRecipe, madeRun, madeTask } from './testing.ts'

const scratch = mkdtempSync(join(tmpdir(), 'anneal-boards-'))
after(() => rmSync(scratch, { recursive: true, force: true }))

// oxlint-disable-next-line require-yield -- nothing here is trained
const task = madeTask([], async function* () {
  throw new Error('not to be trained')
})

function write(boards: string, id: string, adopted: string, cost: number): string {
  const runs = [0, 1, 2].map((seed) => madeRun(seed, { cost: cost + seed }))
  const { entry } = madeEntry(id, adopted, runs)
  const folder = entryFolder(boards, entry)
  writeEntry(folder, { ...entry, tuning: { trials: 2, flop: 9 } }, madeRecipe)
  for (const run of runs) appendRun(folder, run)
  const trial = {
    seed: 1000,
    settings: { 'optimizer.rate': 0.1 },
    ended: 'reached',
    flop: 4,
    step: 2,
    miss: 0,
  } as const
  appendTrial(folder, { trial: 0, ...trial, spent: 4 })
  appendTrial(folder, { trial: 1, ...trial, spent: 5 })
  return folder
}

const whole = join(scratch, 'whole')
write(whole, 'old', '2012-01-01', 100)
write(whole, 'new', '2015-01-01', 50)
writeBoard(readBoard(task, whole), whole)

/** A copy of the whole board in which one text of a file is replaced. */
function tampered(name: string, file: string, change: (text: string) => string): string {
  const boards = join(scratch, name)
  cpSync(whole, boards, { recursive: true })
  const path = join(boards, 'made', file)
  const before = readFileSync(path, 'utf8')
  const changed = change(before)
  assert.notEqual(changed, before, 'the test changes something')
  writeFileSync(path, changed)
  return boards
}

const refuses = (work: () => unknown, message: RegExp): void =>
  assert.throws(work, (error) => {
    assert.ok(error instanceof UserError, String(error))
    assert.match(error.message, message)
    assert.ok(!error.message.includes('\n'))
    return true
  })

const runsOf = 'entries/2026-11-25-old/runs.jsonl'
const cases: readonly [what: string, file: string, change: (text: string) => string, message: RegExp][] = [
  [
    'a cost made smaller',
    runsOf,
    (text) => text.replace('[[1010,', '[[1009,'),
    /runs\.jsonl, line 2: got a line that is not the one sealed/,
  ],
  [
    'a dropped seed',
    runsOf,
    (text) => text.split('\n').toSpliced(1, 1).join('\n'),
    /runs\.jsonl: got seed 2 where 1 is due; expected seeds 0 to 2, each once, none dropped/,
  ],
  [
    'a dropped last seed',
    runsOf,
    (text) => text.split('\n').toSpliced(2, 1).join('\n'),
    /runs\.jsonl: got 2 runs; expected 3, seeds 0 to 2, none dropped/,
  ],
  [
    'a seed told twice',
    runsOf,
    (text) => text + text.split('\n')[0],
    /runs\.jsonl: got seed 0 where 1 is due/,
  ],
  ['NaN in a curve', runsOf, (text) => text.replace(/,2\.89\]/, ',NaN]'), /runs\.jsonl, line 1: got NaN/],
  [
    'null in a curve',
    runsOf,
    (text) => text.replace(/,2\.89\]/, ',null]'),
    /runs\.jsonl, line 1, curve\.0\.3: got null, where NaN or nothing was written/,
  ],
  [
    'another recipe',
    'entries/2026-11-25-old/recipe.json',
    (text) => text.replace('0.1', '0.2'),
    /runs\.jsonl: got seed 0 of another recipe/,
  ],
  [
    'a trial left out',
    'entries/2026-11-25-old/tuning.jsonl',
    (text) => text.split('\n').toSpliced(0, 1).join('\n'),
    /tuning\.jsonl: got 1 trials of 5 FLOP; expected 2 of 9/,
  ],
  [
    'a date that is none',
    'entries/2026-11-25-old/entry.json',
    (text) => text.replace('"adopted": "2012-01-01"', '"adopted": "2012-02-31"'),
    /entry\.json, dates\.adopted: got "2012-02-31"/,
  ],
  [
    'an entry under another name',
    'entries/2026-11-25-old/entry.json',
    (text) => text.replace('"id": "old"', '"id": "older"'),
    /got older of made.*expected what its folder is called/,
  ],
  [
    'an unknown key',
    'entries/2026-11-25-old/entry.json',
    (text) => text.replace('"seeds": 3', '"seeds": 3,\n  "favourite": true'),
    /entry\.json: got .*; expected Unrecognized key: "favourite"/,
  ],
]

for (const [what, file, change, message] of cases) {
  test(`a board is refused: ${what}`, () => {
    const boards = tampered(what.replaceAll(' ', '-'), file, change)
    refuses(() => readBoard(task, boards), message)
  })
}

test('a generated file that was edited is refused by its line', () => {
  checkBoard(readBoard(task, whole), whole)
  const boards = tampered('edited', 'board.csv', (text) => text.replace(/^(made,new,.*)$/m, '$1 '))
  refuses(() => checkBoard(readBoard(task, boards), boards), /board\.csv, line 4: got another text/)
})

test('what a killed process left of its last line is cut off, and nothing else', () => {
  const boards = tampered('killed', runsOf, (text) => `${text}{"seed":3,"rec`)
  const folder = join(boards, 'made', 'entries', '2026-11-25-old')
  refuses(() => readRuns(folder), /runs\.jsonl, line 4: got no JSON/)
  repairLines(folder)
  assert.equal(readEntry(folder).runs.length, 3)
})

test('a table whose cost has no known unit is refused by its line', () => {
  const path = join(scratch, 'table.csv')
  const table = (heading: string): string => `${heading}\n2012-01-01,8\n2013-01-01,4\n2014-01-01,2\n`
  writeFileSync(path, table('date,smoots'))
  refuses(() => fitTable({ file: path }), /table\.csv, line 1: got no column with a unit among date, smoots/)
  refuses(
    () => fitTable({ file: path, cost: 'smoots' }),
    /table\.csv, line 1: got column 'smoots', whose unit is unknown/,
  )
  writeFileSync(path, table('date,cost_gflop'))
  const { unit, all } = fitTable({ file: path })
  assert.equal(unit, 'gflop')
  assert.ok(Math.abs(all.months - 12) < 0.05)
  writeFileSync(path, table('date,cost_gflop').replace(',4', ',NaN'))
  refuses(() => fitTable({ file: path }), /table\.csv, line 3, cost_gflop: got 'NaN'/)
})

test('committed boards obey the rules, and their generated files are what their entries make', () => {
  const docs = fileURLToPath(new URL('../../../docs/studies', import.meta.url))
  checkPublished(leaderboards)
  checkPages(publishedPages(), docs, 'published')
  for (const one of tasks) {
    if (!existsSync(join(leaderboards, one.id))) continue
    const board = readBoard(one, leaderboards)
    checkBoard(board, leaderboards)
    checkPages(boardPages(board), docs, one.id)
    for (const { entry, trials } of readEntries(leaderboards, one.id)) {
      const known = one.baselines.find(({ id }) => id === entry.id)
      if (known) assert.deepEqual(missingTrials(known, trials), [], `${one.id}/${entry.id}`)
    }
  }
})
