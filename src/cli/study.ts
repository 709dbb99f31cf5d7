/**
 * `anneal study <study> <what>`: studies people can rerun. `efficiency paper` computes the 2020 analysis of algorithmic
 * efficiency again from its printed tables; nothing is trained.
 */
import { mkdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { badUsage, didYouMean } from '../errors.ts'
import type { Report } from '../studies/report.ts'
import type { Command, Io, Options } from './command.ts'
import { formatTable } from './format.ts'
import { scaling, scalingOptions } from './study-scaling.ts'

type Part = (io: Io, options: Options) => Promise<0 | 1 | 130>

const studies: Readonly<Record<string, Readonly<Record<string, Part>>>> = {
  efficiency: { paper },
  scaling,
}

export const study: Command = {
  arguments: [Object.keys(studies).join(' or '), `paper; or ${Object.keys(scaling).join(', ')}`],
  options: [
    ['--out <dir>', 'also write the report (Markdown, HTML) and its picture here'],
    ...scalingOptions,
  ],
  examples: [
    'anneal study efficiency paper',
    'anneal study efficiency paper --out docs/studies',
    'anneal study scaling plan --series short',
  ],
  async run(io, [name = '', what = ''], options) {
    return await pick('what', pick('study', studies, name), what)(io, options)
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
