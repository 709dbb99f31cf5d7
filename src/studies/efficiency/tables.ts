/**
 * The published tables of data/efficiency, with the columns a study relies on, and the cells that are known to be wrong
 * or to contradict others. Values stand as published; a dispute marks a cell and never changes it.
 */
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { failure } from '../../errors.ts'
import { readTable, type Columns, type Row } from '../csv.ts'

export const efficiencyData = fileURLToPath(new URL('../../../data/efficiency', import.meta.url))

const networkColumns = {
  model: 'text',
  date: 'date',
  date_source: 'text',
  'epochs_to_79.1pct_top5': 'amount',
  gmac_per_image_forward: 'amount',
  printed_value: 'amount',
  recomputed_petaflop_3x_forward: 'amount',
  tflops_days: 'amount',
  efficiency_vs_alexnet: 'amount',
  on_frontier: 'amount',
  source: 'text',
} as const satisfies Columns

const boardColumns = {
  level: 'text',
  target: 'text',
  date_as_published_iso: 'date',
  date_of_arxiv_v1: 'date',
  model: 'text',
  tflops_days: 'amount',
  reduction_factor_as_published: 'amount',
  recomputed_factor: 'amount',
  source: 'text',
} as const satisfies Columns

const factorColumns = {
  original: 'text',
  improved: 'text',
  task: 'text',
  factor: 'amount',
  period_as_printed: 'text',
  doubling_time_as_printed: 'text',
  derivation: 'text',
  source: 'text',
} as const satisfies Columns

const ratioColumns = {
  original: 'text',
  improved: 'text',
  printed_factor: 'amount',
  original_quantity: 'amount',
  original_factor: 'amount',
  improved_quantity: 'amount',
  improved_factor: 'amount',
  quantity: 'text',
} as const satisfies Columns

/** Records of the nanoGPT speedrun. */
export const speedrunColumns = {
  record: 'amount',
  date: 'date',
  seconds_8xH100: 'amount',
  steps: 'amount?',
  train_tokens: 'amount?',
  kind: 'text',
  what_changed: 'text',
} as const satisfies Columns

const disputeColumns = {
  table: 'text',
  table_line: 'amount',
  column: 'text',
  reading: 'text',
} as const satisfies Columns

export type Network = Row<typeof networkColumns>
export type Dispute = Row<typeof disputeColumns>

export interface PaperTables {
  readonly networks: readonly Network[]
  readonly board: readonly Row<typeof boardColumns>[]
  readonly factors: readonly Row<typeof factorColumns>[]
  readonly ratios: readonly Row<typeof ratioColumns>[]
  readonly speedrun: readonly Row<typeof speedrunColumns>[]
  readonly disputes: readonly Dispute[]
}

export function readPaperTables(folder: string = efficiencyData): PaperTables {
  const at = (file: string): string => join(folder, file)
  const tables = {
    networks: readTable(at('paper_alexnet_level.csv'), networkColumns),
    board: readTable(at('paper_public_sota.csv'), boardColumns),
    factors: readTable(at('paper_other_tasks.csv'), factorColumns),
    ratios: readTable(at('paper_ratios.csv'), ratioColumns),
    speedrun: readTable(at('nanogpt_speedrun_track1.csv'), speedrunColumns),
    disputes: readTable(at('disputed.csv'), disputeColumns),
  }
  const columnsOf: Readonly<Record<string, [Columns, readonly { readonly line: number }[]]>> = {
    'paper_alexnet_level.csv': [networkColumns, tables.networks],
    'paper_other_tasks.csv': [factorColumns, tables.factors],
    'paper_public_sota.csv': [boardColumns, tables.board],
  }
  for (const { table, table_line: cellLine, column, line } of tables.disputes) {
    const [columns, rows] = columnsOf[table] ?? [{}, []]
    if (column in columns && (cellLine === 1 || rows.some((row) => row.line === cellLine))) continue
    throw failure({
      where: `${at('disputed.csv')}, line ${line}`,
      got: `${table}, line ${cellLine}, ${column}, where no cell is`,
      expected: 'a line and a column of a published table',
      fix: 'mark the cell where it is now',
    })
  }
  return tables
}

/** The marks of one cell, or of its column's heading. */
export const disputesOf = (
  { disputes }: PaperTables,
  table: string,
  line: number,
  column?: string,
): readonly Dispute[] =>
  disputes.filter(
    (one) => one.table === table && one.table_line === line && (column ?? one.column) === one.column,
  )
