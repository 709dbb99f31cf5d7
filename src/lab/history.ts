/**
 * All that a run's log says, as the page needs it: points as columns, the other lines as they are; brought up to date with
 * what the files gained, never read twice. A log that is long begins from its cache (`column-cache.ts`).
 */
import { join } from 'node:path'
import { Columns } from '../runs/columns.ts'
import type { RunLine } from '../runs/index.ts'
import { isIntact, numbersIn, placeAt, printCursor, readSegment } from '../runs/tail.ts'
import type { Place } from '../runs/tail.ts'
import { segmentFile } from '../runs/writer.ts'
import { extendCache, loadCache } from './column-cache.ts'
import type { Loaded, Stretch } from './column-cache.ts'

/** What one segment says besides its points. */
export interface SegmentRecord {
  readonly number: number
  readonly lines: readonly RunLine[]
  readonly points: number
  readonly rows: number
  readonly notes: readonly string[]
}

/** Bytes of log whose reading is worth being kept. */
const worthKeeping = 1 << 20

const start: Place = { segment: 0, offset: 0, inode: 0, check: 0 }

export class History {
  readonly #dir: string
  columns = new Columns()
  segments = new Map<number, SegmentRecord>()
  /** Files that are no segments of ours. */
  foreign: readonly string[] = []
  #place: Place | undefined
  #cache: Omit<Loaded, 'stretches'> = { goodBytes: 0, size: 0 }
  #unkept: Stretch[] = []

  constructor(dir: string) {
    this.#dir = dir
  }

  /** How far the log was read, for who follows it from here. */
  get cursor(): string {
    return printCursor(this.#place ?? start)
  }

  update(): void {
    const folder = join(this.#dir, 'segments')
    if (this.#place === undefined || !isIntact(folder, this.#place)) this.#begin()
    const foreign: string[] = []
    for (const number of numbersIn(folder)) {
      const place = this.#place!
      if (number < place.segment) continue
      const file = segmentFile(number)
      const from = number === place.segment ? place.offset : 0
      const read = readSegment(join(folder, file), from, (this.segments.get(number)?.rows ?? 0) + 1)
      if (read === undefined) continue
      // What does not begin with a segment line was not written by us: passed over, as the reader does.
      if (from === 0 && read.lines.length > 0 && read.lines[0]!.kind !== 'segment') {
        foreign.push(`segments/${file} does not begin with a segment line; passed over`)
        continue
      }
      this.#place = { segment: number, offset: read.ends, inode: read.inode, check: read.check }
      if (read.ends === from) continue
      const columns = new Columns()
      const lines: RunLine[] = []
      for (const line of read.lines) {
        if (line.kind === 'point') columns.add(line)
        else lines.push(line)
      }
      const points = read.lines.length - lines.length
      const rows = read.lines.length + read.notes.length
      const notes = read.notes.map((note) => `segments/${file} ${note}`)
      const { ends: to, crc } = read
      const stretch = { segment: number, from, to, crc, rows, points, lines, notes, columns }
      this.#fold(stretch)
      this.#unkept.push(stretch)
    }
    this.foreign = foreign
    this.#keep()
  }

  /** Forgets everything, and takes what the cache has. */
  #begin(): void {
    const { stretches, ...cache } = loadCache(this.#dir)
    this.columns = new Columns()
    this.segments = new Map()
    this.#unkept = []
    this.#cache = cache
    this.#place = start
    const last = stretches.at(-1)
    const place = last && placeAt(join(this.#dir, 'segments'), last.segment, last.to)
    if (place === undefined) return
    this.#place = place
    for (const stretch of stretches) this.#fold(stretch)
  }

  #fold({ segment, from, rows, points, lines, notes, columns }: Stretch): void {
    const [first] = lines
    if (from === 0 && first?.kind === 'segment') this.columns.truncate(first.fromStep)
    this.columns.append(columns)
    const before = this.segments.get(segment)
    this.segments.set(segment, {
      number: segment,
      lines: [...(before?.lines ?? []), ...lines],
      points: (before?.points ?? 0) + points,
      rows: (before?.rows ?? 0) + rows,
      notes: [...(before?.notes ?? []), ...notes],
    })
  }

  #keep(): void {
    const bytes = this.#unkept.reduce((sum, { from, to }) => sum + to - from, 0)
    if (bytes < worthKeeping) return
    this.#cache = extendCache(this.#dir, this.#cache, this.#unkept)
    this.#unkept = []
  }
}
