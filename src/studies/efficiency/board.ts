/** A board's generated files: made from entries alone, so that making them again must give the same bytes. */
import { join } from 'node:path'
import { existsSync, readFileSync } from 'node:fs'
import { makeFolder, writeTextAtomically } from '../../data/files.ts'
import { failure } from '../../errors.ts'
import { reportHtml, reportMarkdown, type Report } from '../report.ts'
import { ladderFigure, trendFigure } from './board-figure.ts'
import { readEntries } from './board-files.ts'
import { boardCsv, boardOf, boardReport, type Board } from './board-report.ts'
import { publishedFigure, publishedReport, readPublished } from './published.ts'
import type { Task } from './task.ts'

/** What task.json says: the task as far as it is data. */
const taskJson = ({
  id,
  title,
  track,
  data,
  metric,
  sense,
  ladder,
  headline,
  evalEvery,
  budgetFlop,
}: Task): string =>
  `${JSON.stringify({ id, title, track, data, metric, sense, ladder, headline, evalEvery, budgetFlop }, null, 2)}\n`

export function readBoard(task: Task, boards: string): Board {
  const entries = readEntries(boards, task.id)
  if (entries.length > 0) return boardOf(task, entries)
  throw failure({
    where: join(boards, task.id),
    got: 'no entries',
    expected: 'folders in entries/',
    fix: `run some: anneal study efficiency run ${task.id}`,
  })
}

/** File names and contents. */
export function boardFilesOf(board: Board): Readonly<Record<string, string>> {
  return {
    'task.json': taskJson(board.task),
    'BOARD.md': reportMarkdown(boardReport(board)),
    'board.csv': boardCsv(board),
    'trend.svg': trendFigure(board),
    'ladder.svg': ladderFigure(board),
  }
}

export const writeBoard = (board: Board, boards: string): readonly string[] =>
  writeFiles(join(boards, board.task.id), boardFilesOf(board))

/** @throws UserError naming the first generated file that is not what its entries make. */
export const checkBoard = (board: Board, boards: string): void =>
  checkFiles(join(boards, board.task.id), boardFilesOf(board), board.task.id)

function writeFiles(folder: string, files: Readonly<Record<string, string>>): readonly string[] {
  makeFolder(folder)
  return Object.entries(files).map(([name, content]) => {
    writeTextAtomically(join(folder, name), content)
    return join(folder, name)
  })
}

function checkFiles(folder: string, files: Readonly<Record<string, string>>, name: string): void {
  for (const [file, content] of Object.entries(files)) {
    const path = join(folder, file)
    const found = existsSync(path) ? readFileSync(path, 'utf8') : ''
    if (found === content) continue
    const [have, want] = [found.split('\n'), content.split('\n')]
    const at = Math.max(
      0,
      want.findIndex((text, i) => text !== have[i]),
    )
    throw failure({
      where: `${path}, line ${at + 1}`,
      got: 'another text than the entries make',
      expected: 'generated files as they were generated',
      fix: `anneal study efficiency board ${name}`,
    })
  }
}

function publishedFiles(): Readonly<Record<string, string>> {
  const published = readPublished()
  return {
    'BOARD.md': reportMarkdown(publishedReport(published)),
    'published.svg': publishedFigure(published),
  }
}

const publishedFolder = 'published'

export const writePublished = (boards: string): readonly string[] =>
  writeFiles(join(boards, publishedFolder), publishedFiles())

export const checkPublished = (boards: string): void =>
  checkFiles(join(boards, publishedFolder), publishedFiles(), 'published')

/** The same report as pages that need nothing beside them but their pictures; for docs/studies. */
export function boardPages(board: Board): Readonly<Record<string, string>> {
  const name = `efficiency-${board.task.id}`
  const pictures = {
    [`${name}-trend.svg`]: trendFigure(board),
    [`${name}-ladder.svg`]: ladderFigure(board),
  }
  return pagesOf(name, boardReport(board, `${name}-`), pictures)
}

export function publishedPages(): Readonly<Record<string, string>> {
  const published = readPublished()
  const name = 'efficiency-published'
  const picture = `${name}.svg`
  return pagesOf(name, publishedReport(published, picture), { [picture]: publishedFigure(published) })
}

const pagesOf = (name: string, report: Report, pictures: Readonly<Record<string, string>>) => ({
  ...pictures,
  [`${name}.md`]: reportMarkdown(report),
  [`${name}.html`]: reportHtml(report, pictures),
})

/** Writes pages, and says where they lie. */
export const writePages = (pages: Readonly<Record<string, string>>, folder: string): readonly string[] =>
  writeFiles(folder, pages)

export const checkPages = (pages: Readonly<Record<string, string>>, folder: string, name: string): void =>
  checkFiles(folder, pages, `${name} --out docs/studies`)
