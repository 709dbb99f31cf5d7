/**
 * A halving time from any table with dates and costs. The cost's column must name its unit, so that a fit says what it is of
 * and a column of something else is not taken for a cost.
 */
import { readFileSync } from 'node:fs'
import { failure } from '../../errors.ts'
import { parseTable, type CellKind, type Columns } from '../csv.ts'
import { compareWithMoore, fitHalving, frontierOf, halvingDetails, type Dated } from '../halving.ts'

/** Words of a column's name that are units of a cost. */
const units: readonly string[] =
  'flop flops mflop gflop tflop pflop petaflop gmac tflops seconds minutes hours days steps epochs tokens samples usd joules kwh'.split(
    ' ',
  )

export const unitOf = (column: string): string | undefined =>
  column.split(/[^A-Za-z]+/).find((word) => units.includes(word.toLowerCase()))

export interface FitQuestion {
  readonly file: string
  readonly cost?: string | undefined
  readonly date?: string | undefined
}

export function fitTable({ file, cost, date = 'date' }: FitQuestion) {
  const content = readFileSync(file, 'utf8')
  const names = content
    .slice(0, content.search(/\r?\n/))
    .split(',')
    .map((name) => name.replaceAll('"', ''))
  const refuse = (got: string, expected: string, fix: string): never => {
    throw failure({ where: `${file}, line 1`, got, expected, fix })
  }
  const candidates = names.filter((name) => unitOf(name) !== undefined)
  if (cost === undefined && candidates.length !== 1)
    refuse(
      candidates.length === 0
        ? `no column with a unit among ${names.join(', ')}`
        : `several costs: ${candidates.join(', ')}`,
      `one column whose name has a unit (${units.slice(0, 3).join(', ')}, seconds, usd …)`,
      candidates.length === 0 ? 'name the unit in the heading' : `choose one: --cost ${candidates[0]}`,
    )
  const column = cost ?? candidates[0]!
  for (const name of [column, date])
    if (!names.includes(name)) refuse(`no column '${name}'`, names.join(', '), 'use --cost and --date')
  const unit =
    unitOf(column) ??
    refuse(`column '${column}', whose unit is unknown`, units.join(', '), 'name the unit in the heading')
  const kinds: [string, CellKind][] = names.map((name) => [
    name,
    name === column ? 'amount?' : name === date ? 'date' : 'text',
  ])
  const rows: Dated[] = parseTable(content, file, Object.fromEntries(kinds) as Columns).flatMap((row) =>
    row[column] === null
      ? []
      : [{ name: `line ${row['line']}`, date: String(row[date]), cost: Number(row[column]) }],
  )
  const sorted = rows.toSorted((a, b) => Date.parse(a.date) - Date.parse(b.date))
  const frontier = frontierOf(sorted)
  const all = fitHalving(sorted)
  return {
    unit,
    column,
    rows: sorted.length,
    all,
    frontier:
      frontier.length >= 3
        ? {
            rows: frontier.length,
            halving: fitHalving(frontier),
            details: halvingDetails(frontier, 2020),
            moore: compareWithMoore(fitHalving(frontier)),
          }
        : null,
  }
}
