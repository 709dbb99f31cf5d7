/**
 * Reads a run back: `run.json`, every segment, and the one merged history they tell. A run is a tree of segments;
 * its history is the path from the first segment to the newest. Subtle: a resume that starts after step 80 makes
 * the steps 81.. of its ancestors superseded, not wrong: they stay on disk and in `segments`, only the merged
 * history leaves them out. Reading never fails on a torn or foreign line; it is noted and passed over.
 */
import { existsSync, readdirSync, readFileSync, statSync } from 'node:fs'
import { join } from 'node:path'
import { failure } from '../errors.ts'
import { annotationsFile, readAnnotations } from './annotations.ts'
import type { Annotations } from './annotations.ts'
import { parseLines } from './lines.ts'
import type {
  CheckpointLine,
  PointLine,
  RunLine,
  RunStatus,
  SampleLine,
  SegmentLine,
  StatusLine,
} from './lines.ts'
import { isLocked } from './lock.ts'
import { segmentFile, segmentNumbers } from './writer.ts'
import type { JsonObject, RunMeta, RunOrigin } from './writer.ts'

/** `present`: the file is still there; older checkpoints are deleted as newer ones come. */
export type Checkpoint = CheckpointLine & { readonly present: boolean }

/** One segment as written, superseded points included. */
export interface Segment {
  readonly number: number
  readonly parent: number | null
  readonly fromStep: number
  readonly time: string
  /** The settings from here on, when this segment changed them. */
  readonly config: JsonObject | null
  readonly points: readonly PointLine[]
  readonly samples: readonly SampleLine[]
  readonly checkpoints: readonly CheckpointLine[]
  /** The last status line; 'running' when the process died before writing another. */
  readonly status: StatusLine | null
}

export interface Run {
  readonly meta: RunMeta
  readonly dir: string
  /** The settings in force: those of `run.json`, or of the newest resume that changed them. */
  readonly config: JsonObject
  readonly segments: readonly Segment[]
  /** The merged history, ascending by step. */
  readonly points: readonly PointLine[]
  readonly samples: readonly SampleLine[]
  readonly checkpoints: readonly Checkpoint[]
  readonly status: RunStatus
  /** Why it failed or stopped, where the writer said so. */
  readonly reason: string | null
  /** What a person said about it. */
  readonly annotations: Annotations
  /** Damaged lines and files that were passed over, as `segments/0002.jsonl line 12: not JSON`. */
  readonly notes: readonly string[]
}

/**
 * Reads the run in `root/<id>/`. `id` is complete; see `findRun` for prefixes.
 * @throws UserError (exit 1) when the folder or its `run.json` is missing or damaged.
 */
export function readRun(root: string, id: string): Run {
  const dir = join(root, id)
  const { segments, notes } = readSegments(dir)
  return runOf(dir, id, segments, notes)
}

/** The run of a folder whose segments are read already. */
export function runOf(dir: string, id: string, segments: readonly Segment[], notes: readonly string[]): Run {
  const meta = readMeta(dir, id)
  const history = mergeSegments(segments)
  const last = segments.at(-1)?.status ?? null
  return {
    meta,
    dir,
    config: segments.findLast(({ config }) => config !== null)?.config ?? meta.config,
    segments,
    points: history.points,
    samples: history.samples,
    checkpoints: history.checkpoints.map((c) => Object.assign({}, c, { present: isPresent(dir, c) })),
    status: presentStatus(dir, last?.status ?? 'running'),
    reason: last?.reason ?? null,
    annotations: readAnnotations(dir),
    notes,
  }
}

/** Whether a checkpoint's file is there. One of several files is there as long as its manifest is. */
const isPresent = (dir: string, { file, files }: CheckpointLine): boolean =>
  existsSync(files === undefined ? join(dir, file) : join(dir, file, 'manifest.json'))

/** A run recorded as running whose process is gone was interrupted. */
export function presentStatus(dir: string, recorded: RunStatus): RunStatus {
  return recorded === 'running' && !isLocked(dir) ? 'interrupted' : recorded
}

/** The part of a run folder's content that its state depends on: changes whenever a file grows or is replaced. */
export function fingerprint(dir: string): string {
  const folder = join(dir, 'segments')
  const files = [
    join(dir, 'run.json'),
    join(dir, annotationsFile),
    ...segmentFiles(folder).map((file) => join(folder, file)),
  ]
  return files
    .map((file) => {
      const stat = statSync(file, { bigint: true, throwIfNoEntry: false })
      return stat === undefined ? '-' : `${stat.ino}:${stat.size}:${stat.mtimeNs}`
    })
    .join(' ')
}

/** What `run.json` says, checked. */
function readMeta(dir: string, id: string): RunMeta {
  const path = join(dir, 'run.json')
  const complain = (got: string): Error =>
    failure({
      where: path,
      got,
      expected: 'the description that a run writes when it starts',
      fix: 'restore the file, or move the folder out of the runs folder',
    })
  let text: string
  try {
    text = readFileSync(path, 'utf8')
  } catch (error) {
    throw complain(
      (error as NodeJS.ErrnoException).code === 'ENOENT' ? 'no such file' : (error as Error).message,
    )
  }
  let json: Partial<RunMeta> | null
  try {
    json = JSON.parse(text) as Partial<RunMeta> | null
  } catch {
    throw complain('text that is not JSON')
  }
  if (typeof json?.recipe !== 'string' || typeof json.created !== 'string' || !isObject(json.config)) {
    throw complain('JSON without recipe, created or config')
  }
  if (json.version !== 1)
    throw complain(`format version ${String(json.version)}, newer than this Anneal reads (1)`)
  // The folder's name is the id even when somebody renamed the folder.
  return {
    version: 1,
    id,
    recipe: json.recipe,
    created: json.created,
    config: json.config,
    plan: isObject(json.plan) ? json.plan : {},
    machine: isObject(json.machine) ? json.machine : {},
    ...(isOrigin(json.parent) ? { parent: json.parent } : {}),
  }
}

const isObject = (value: unknown): value is JsonObject =>
  typeof value === 'object' && value !== null && !Array.isArray(value)

const isOrigin = (value: unknown): value is RunOrigin =>
  isObject(value) && typeof value['run'] === 'string' && typeof value['step'] === 'number'

const segmentFiles = (folder: string): string[] =>
  existsSync(folder) ? segmentNumbers(readdirSync(folder)).map(segmentFile) : []

function readSegments(dir: string): { segments: Segment[]; notes: string[] } {
  const notes: string[] = []
  const segments: Segment[] = []
  const folder = join(dir, 'segments')
  for (const file of segmentFiles(folder)) {
    const { lines, notes: damage } = parseLines(readFileSync(join(folder, file), 'utf8'))
    notes.push(...damage.map((note) => `segments/${file} ${note}`))
    const [header, ...rest] = lines
    if (header?.kind === 'segment') segments.push(toSegment(Number.parseInt(file, 10), header, rest))
    // A process killed at once leaves an empty or half-written first line: nothing was lost, nothing to note.
    else if (lines.length > 0) notes.push(`segments/${file} does not begin with a segment line; passed over`)
  }
  return { segments, notes }
}

/** The lines of a segment file after its first, by what they are. */
export function toSegment(number: number, header: SegmentLine, lines: readonly RunLine[]): Segment {
  return {
    number,
    parent: header.parent,
    fromStep: header.fromStep,
    time: header.time,
    config: header.config ?? null,
    points: lines.filter((line) => line.kind === 'point'),
    samples: lines.filter((line) => line.kind === 'sample'),
    checkpoints: lines.filter((line) => line.kind === 'checkpoint'),
    status: lines.findLast((line) => line.kind === 'status') ?? null,
  }
}

/** What a history is made of, before files are looked up. */
interface History {
  readonly points: readonly PointLine[]
  readonly samples: readonly SampleLine[]
  readonly checkpoints: readonly CheckpointLine[]
}

/**
 * The newest segment's history: walk from it to the root, keeping of each ancestor the steps up to where its
 * descendants began. Where two segments measured the same metric at the same step, the newer value stands.
 */
function mergeSegments(segments: readonly Segment[]): History {
  const points: PointLine[] = []
  const samples: SampleLine[] = []
  const checkpoints: CheckpointLine[] = []
  // What newer segments measured at steps that an older one may have measured too.
  const seen = new Set<string>()
  let limit = Infinity
  for (const { fromStep, ...segment } of pathFromNewest(segments)) {
    const taken: string[] = []
    const keep = (step: number, what: string): boolean => {
      if (step > limit) return false
      // Of a million points nearly all are beyond what two segments could both have measured.
      if (step > fromStep && seen.size === 0) return true
      const key = `${step} ${what}`
      if (step <= fromStep) taken.push(key)
      return !seen.has(key)
    }
    for (const point of segment.points) {
      const metrics = Object.entries(point.metrics).filter(([name]) => keep(point.step, name))
      if (metrics.length === 0) continue
      const whole = metrics.length === Object.keys(point.metrics).length
      points.push(whole ? point : { ...point, metrics: Object.fromEntries(metrics) })
    }
    samples.push(...segment.samples.filter((s) => keep(s.step, `sample ${s.prompt}`)))
    checkpoints.push(...segment.checkpoints.filter((c) => keep(c.step, 'checkpoint')))
    for (const key of taken) seen.add(key)
    limit = Math.min(limit, fromStep)
  }
  return {
    points: points.toSorted(byStep),
    samples: samples.toSorted(byStep),
    checkpoints: checkpoints.toSorted(byStep),
  }
}

const byStep = (a: { readonly step: number }, b: { readonly step: number }): number => a.step - b.step

/** The newest segment, its parent, its parent's parent, ... A lost parent is replaced by the segment before it. */
function* pathFromNewest(segments: readonly Segment[]): Generator<Segment> {
  let segment = segments.at(-1)
  while (segment !== undefined) {
    yield segment
    const { parent, number } = segment
    if (parent === null) return
    segment = segments.findLast((s) => s.number <= parent && s.number < number)
  }
}
