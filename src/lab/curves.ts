/**
 * The columns of runs, kept between requests and brought up to date with what their files gained. Only the runs that
 * were looked at last are kept: a table of a million points takes tens of megabytes.
 */
import { join } from 'node:path'
import { Columns } from '../runs/columns.ts'
import { readTail } from '../runs/index.ts'

const kept = 12

interface Entry {
  columns: Columns
  cursor: string | null
}

export class Curves {
  readonly #root: string
  readonly #entries = new Map<string, Entry>()

  constructor(root: string) {
    this.#root = root
  }

  /** The columns of a run as of now, and the cursor from which to follow it. */
  read(id: string): { readonly columns: Columns; readonly cursor: string } {
    const entry = this.#entries.get(id) ?? { columns: new Columns(), cursor: null }
    const { reset, lines, cursor } = readTail(join(this.#root, id), entry.cursor)
    if (reset) entry.columns = new Columns()
    for (const line of lines) {
      if (line.kind === 'segment') entry.columns.truncate(line.fromStep)
      if (line.kind === 'point') entry.columns.add(line)
    }
    entry.cursor = cursor
    this.#entries.delete(id)
    this.#entries.set(id, entry)
    for (const oldest of this.#entries.keys()) {
      if (this.#entries.size <= kept) break
      this.#entries.delete(oldest)
    }
    return { columns: entry.columns, cursor }
  }
}
