/**
 * Tables of published figures, read strictly. A study names the columns it needs, units and all; a heading it does not
 * know (a unit changed, a column added), a missing cell or something that is no number is refused by file and line, so
 * that no fit is ever made of half a table.
 */
import { readFileSync } from 'node:fs'
import { didYouMean, failure } from '../errors.ts'

/** `amount?` may be empty. Amounts are finite; a negative one is no cost, count or score of ours. */
export type CellKind = 'text' | 'amount' | 'amount?' | 'date'

type Cell<K extends CellKind> = K extends 'amount' ? number : K extends 'amount?' ? number | null : string

export type Columns = Readonly<Record<string, CellKind>>

/** A row, and the line of the file it begins on; the heading is line 1. */
export type Row<C extends Columns> = { readonly [K in keyof C]: Cell<C[K]> } & { readonly line: number }

export const readTable = <C extends Columns>(path: string, columns: C): readonly Row<C>[] =>
  parseTable(readFileSync(path, 'utf8'), path, columns)

export function parseTable<C extends Columns>(text: string, where: string, columns: C): readonly Row<C>[] {
  const [heading, ...rows] = records(text, where)
  const names = heading?.cells ?? []
  for (const name of names) {
    if (name in columns) continue
    const near = didYouMean(name, Object.keys(columns))
    throw failure({
      where: `${where}, line 1`,
      got: `column '${name}', whose unit or meaning is unknown here`,
      expected: Object.keys(columns).join(', '),
      fix: near === undefined ? 'take the column out' : `did you mean ${near}? Convert the values if so`,
    })
  }
  for (const name of Object.keys(columns)) {
    if (names.filter((one) => one === name).length === 1) continue
    throw failure({
      where: `${where}, line 1`,
      got: names.includes(name) ? `column '${name}' twice` : `no column '${name}'`,
      expected: 'every column once',
      fix: 'restore the heading',
    })
  }
  return rows.map(({ line, cells }) => {
    if (cells.length !== names.length) {
      throw failure({
        where: `${where}, line ${line}`,
        got: `${cells.length} cells`,
        expected: `${names.length}, as in the heading`,
        fix: 'put cells with commas in double quotes',
      })
    }
    const entries = names.map((name, i) => [name, readCell(cells[i]!, columns[name]!, { where, line, name })])
    return Object.fromEntries([...entries, ['line', line]]) as Row<C>
  })
}

interface Place {
  readonly where: string
  readonly line: number
  readonly name: string
}

function readCell(cell: string, kind: CellKind, { where, line, name }: Place): string | number | null {
  if (kind === 'amount?' && cell === '') return null
  if (kind === 'text') return cell
  if (kind === 'date' ? isDate(cell) : /^\d+(\.\d+)?(e[+-]?\d+)?$/i.test(cell)) {
    if (kind === 'date') return cell
    const value = Number(cell)
    if (Number.isFinite(value)) return value
  }
  throw failure({
    where: `${where}, line ${line}, ${name}`,
    got: `'${cell}'`,
    expected: kind === 'date' ? 'a date such as 2012-06-01' : 'a finite number of at least 0',
    fix: 'restore the value from its source',
  })
}

/** A day that exists: 2018-02-30 would be taken for March by Date. */
const isDate = (cell: string): boolean =>
  /^\d{4}-\d\d-\d\d$/.test(cell) &&
  !Number.isNaN(Date.parse(cell)) &&
  new Date(cell).toISOString().startsWith(cell)

/** Records of a file as RFC 4180 has them, without the empty ones. */
function records(text: string, where: string): { readonly line: number; readonly cells: string[] }[] {
  const found: { line: number; cells: string[] }[] = []
  let [cells, cell, quoted, line, began]: [string[], string, boolean, number, number] = [[], '', false, 1, 1]
  const endRecord = (): void => {
    cells.push(cell)
    if (cells.length > 1 || cell !== '') found.push({ line: began, cells })
    cells = []
    cell = ''
  }
  for (let i = 0; i < text.length; i++) {
    const character = text[i]!
    if (character === '\n') line++
    if (quoted) {
      if (character !== '"') cell += character
      else if (text[i + 1] === '"') cell += text[i++]
      else quoted = false
    } else if (character === '"') quoted = true
    else if (character === ',') {
      cells.push(cell)
      cell = ''
    } else if (character === '\n') {
      endRecord()
      began = line
    } else if (character !== '\r') cell += character
  }
  if (quoted) {
    throw failure({
      where: `${where}, line ${began}`,
      got: 'a double quote that is never closed',
      expected: 'cells with commas between two double quotes',
      fix: 'close it',
    })
  }
  endRecord()
  return found
}
