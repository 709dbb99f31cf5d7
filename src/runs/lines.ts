/**
 * The lines of a segment file (`runs/<id>/segments/0001.jsonl`): what each may say, and how text becomes lines.
 *
 * Subtle: a line counts once its newline is on disk. A killed process can only tear the last line of the last
 * segment it wrote, and the next process starts a new file, so dropping an unfinished last line repairs everything.
 * JSON has no NaN or infinity, yet a diverged loss must be kept: such numbers are written as strings.
 */

/** First line of every segment. `parent` is the segment it continues, after that segment's step `fromStep`. */
export interface SegmentLine {
  readonly kind: 'segment'
  readonly segment: number
  readonly parent: number | null
  readonly fromStep: number
  /** ISO 8601, UTC. */
  readonly time: string
  /** The settings from here on, where a resume changed them; plain JSON. */
  readonly config?: Readonly<Record<string, unknown>>
}

/** Totals since step 0 of the run, and any metrics measured at this step. */
export interface PointLine {
  readonly kind: 'point'
  readonly step: number
  readonly tokens: number
  readonly seconds: number
  readonly flops: number
  readonly metrics: Readonly<Record<string, number>>
}

export interface SampleLine {
  readonly kind: 'sample'
  readonly step: number
  readonly prompt: string
  readonly text: string
}

/** `file` is relative to the run's folder; of a checkpoint of several ranks it is a folder with `files` files. */
export interface CheckpointLine {
  readonly kind: 'checkpoint'
  readonly step: number
  readonly file: string
  readonly bytes: number
  readonly files?: number
}

export type RunStatus = 'running' | 'finished' | 'interrupted' | 'failed'

export interface StatusLine {
  readonly kind: 'status'
  readonly status: RunStatus
  readonly time: string
  readonly step?: number
  /** One line on why, for `failed` and `interrupted`. */
  readonly reason?: string
}

export type RunLine = SegmentLine | PointLine | SampleLine | CheckpointLine | StatusLine

/** One line of JSON with its newline. */
export function printLine(line: RunLine): string {
  return JSON.stringify(line, (_, value: unknown) =>
    typeof value === 'number' && !Number.isFinite(value) ? String(value) : value,
  ).concat('\n')
}

export interface ParsedLines {
  readonly lines: readonly RunLine[]
  /** Whole lines that could not be understood, as `line 12: not JSON`. */
  readonly notes: readonly string[]
}

/** Reads the finished lines of a segment file, from `firstLine` on; an unfinished last line is left out without a note. */
export function parseLines(text: string, firstLine = 1): ParsedLines {
  const lines: RunLine[] = []
  const notes: string[] = []
  const finished = text.split('\n').slice(0, -1)
  for (const [index, row] of finished.entries()) {
    const line = parseLine(row)
    if (typeof line === 'string') notes.push(`line ${firstLine + index}: ${line}`)
    else lines.push(line)
  }
  return { lines, notes }
}

/** The line, or what is wrong with it. */
function parseLine(row: string): RunLine | string {
  let json: unknown
  try {
    json = JSON.parse(row)
  } catch {
    return 'not JSON'
  }
  if (typeof json !== 'object' || json === null) return 'not an object'
  const line = json as Record<string, unknown>
  const check = checks[line['kind'] as RunLine['kind']]
  if (check === undefined) return `unknown kind ${JSON.stringify(line['kind'])}`
  if (line['kind'] === 'point') restoreNumbers(line['metrics'])
  return check(line) ? (line as unknown as RunLine) : `a ${String(line['kind'])} with missing or wrong fields`
}

type Fields = Readonly<Record<string, unknown>>
const isText = (value: unknown): boolean => typeof value === 'string'
const isNumber = (value: unknown): boolean => typeof value === 'number'
const isTotal = (value: unknown): boolean => Number.isFinite(value) && (value as number) >= 0
const isStep = (value: unknown): boolean => Number.isSafeInteger(value) && (value as number) >= 0
const isPlainObject = (value: unknown): value is object =>
  typeof value === 'object' && value !== null && !Array.isArray(value)
const isMetrics = (value: unknown): boolean => isPlainObject(value) && Object.values(value).every(isNumber)

const checks: Readonly<Record<RunLine['kind'], (line: Fields) => boolean>> = {
  segment: (l) =>
    isStep(l['segment']) &&
    (l['parent'] === null || isStep(l['parent'])) &&
    isStep(l['fromStep']) &&
    isText(l['time']) &&
    (l['config'] === undefined || isPlainObject(l['config'])),
  point: (l) =>
    isStep(l['step']) && [l['tokens'], l['seconds'], l['flops']].every(isTotal) && isMetrics(l['metrics']),
  sample: (l) => isStep(l['step']) && isText(l['prompt']) && isText(l['text']),
  checkpoint: (l) =>
    isStep(l['step']) &&
    isText(l['file']) &&
    isStep(l['bytes']) &&
    (l['files'] === undefined || isStep(l['files'])),
  status: (l) =>
    ['running', 'finished', 'interrupted', 'failed'].includes(l['status'] as string) && isText(l['time']),
}

const nonFinite: Readonly<Record<string, number>> = { NaN, Infinity, '-Infinity': -Infinity }

/** Undoes `printLine`'s spelling of NaN and infinities among metrics. */
function restoreNumbers(metrics: unknown): void {
  if (typeof metrics !== 'object' || metrics === null) return
  for (const [name, value] of Object.entries(metrics)) {
    const number = typeof value === 'string' ? nonFinite[value] : undefined
    if (number !== undefined) (metrics as Record<string, unknown>)[name] = number
  }
}
