/**
 * `anneal study <study> <what>`: studies people can rerun. `efficiency paper`, here, computes the 2020 analysis of
 * algorithmic efficiency again from its printed tables, and trains nothing; the other parts have files of their own.
 */
import { mkdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { badUsage, didYouMean } from '../errors.ts'
import type { Report } from '../studies/report.ts'
import type { Command, Io, Options } from './command.ts'
import { formatTable } from './format.ts'
import * as efficiency from './study-efficiency.ts'
import type { Part } from './study-efficiency.ts'
import { scaling, scalingOptions } from './study-scaling.ts'

const studies: Readonly<Record<string, Readonly<Record<string, Part>>>> = {
  efficiency: { paper, ...efficiency },
  scaling,
}

export const study: Command = {
  arguments: [
    Object.keys(studies).join(' or '),
    `efficiency: paper, ${Object.keys(efficiency).join(', ')}; scaling: ${Object.keys(scaling).join(', ')}`,
    'of run: suite=smoke, quick or full, or tasks; of the others: a task, an entry, a table',
  ],
  options: [
    ['--out <dir>', 'paper, board: also write the report (Markdown, HTML) and its pictures here'],
    ['--entry <id>', 'run: only this entry of each task'],
    ['--seeds <n>', 'run: seeds of each entry (full 5, quick 3, smoke 1)'],
    ['--jobs <n>', 'run: runs at a time, one thread each (default: all cores)'],
    ['--seed <n>', 'verify: the seed to run again (default 0)'],
    ['--to <metric>', 'regress: also a fresh seed, to this target of the ladder'],
    ['--base <ref>', 'regress: boards of this commit or folder (default: as they are)'],
    ['--check', 'board: write nothing, refuse generated files that differ'],
    ['--cost <column>', 'fit: column of the cost'],
    ['--date <column>', 'fit: column of the date (default date)'],
    ['--boards <dir>', 'folder of leaderboards, when not those of this checkout'],
    ...scalingOptions,
  ],
  examples: [
    'anneal study efficiency paper --out docs/studies',
    'anneal study efficiency run suite=quick',
    'anneal study efficiency board',
    'anneal study efficiency verify shakespeare-opt/muon --seed 3',
    'anneal study efficiency compare shakespeare-opt/adam shakespeare-opt/muon',
    'anneal study efficiency fit data/efficiency/paper_alexnet_level.csv --cost tflops_days',
    'anneal study efficiency regress --base HEAD',
    'anneal study scaling plan --series short',
  ],
  async run(io, [name = '', what = '', ...words], options) {
    return await pick('what', pick('study', studies, name), what)(io, options, words)
  },
}

function pick<T>(where: string, from: Readonly<Record<string, T>>, word: string): T {
  const found = Object.hasOwn(from, word) ? from[word] : undefined
  if (found !== undefined) return found
  const names = Object.keys(from)
  const near = didYouMean(word, names)
  throw badUsage({
    where,
    got: `'${word}'`,
    expected: `one of ${names.join(', ')}`,
    fix: near === undefined ? 'see anneal study --help' : `did you mean ${near}?`,
  })
}

async function paper(io: Io, options: Options): Promise<0> {
  const {
    analysePaper,
    paperFigure,
    paperReport,
    paperReportName,
    readPaperTables,
    reportHtml,
    reportMarkdown,
  } = await import('../studies/index.ts')
  const analysis = analysePaper(readPaperTables())
  const report = paperReport(analysis)
  const folder = options['out']
  if (typeof folder === 'string') {
    const picture = `${paperReportName}.svg`
    const pictures = { [picture]: paperFigure(analysis) }
    const files = {
      ...pictures,
      [`${paperReportName}.md`]: reportMarkdown(report),
      [`${paperReportName}.html`]: reportHtml(report, pictures),
    }
    mkdirSync(folder, { recursive: true })
    for (const [file, text] of Object.entries(files)) writeFileSync(join(folder, file), text)
    io.note(
      `written: ${Object.keys(files)
        .map((file) => join(folder, file))
        .join(', ')}`,
    )
  }
  const { rows, halving, details, moore, variants, ratios, speedrun, rederivedFactor, tables } = analysis
  io.result(reportText(report), {
    study: 'efficiency paper',
    intervals: 'computed here; the paper publishes none',
    halving,
    details,
    moore,
    rederivedFactor,
    variants,
    networks: rows,
    ratios,
    speedrun,
    disputes: tables.disputes,
  })
  return 0
}

const reportText = ({ title, sections }: Report): string =>
  [
    title,
    ...sections.flatMap(({ title: heading, paragraphs = [], table }) => [
      `\n${heading}`,
      ...paragraphs,
      ...(table ? [formatTable(table)] : []),
    ]),
  ].join('\n')
