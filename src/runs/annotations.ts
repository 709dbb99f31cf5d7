/**
 * What a person says about a run: tags, a note, whether it is put away. Kept in `runs/<id>/notes.json`, apart from what
 * the run says of itself, so that the log stays append-only and a running run can be annotated. A missing or damaged
 * file means that nothing was said.
 */
import { readFileSync, renameSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { badUsage } from '../errors.ts'

export interface Annotations {
  readonly tags: readonly string[]
  readonly note: string
  /** Put away: listed only when asked for. */
  readonly archived: boolean
}

export const annotationsFile = 'notes.json'

const none: Annotations = { tags: [], note: '', archived: false }
const limits = { tags: 50, tag: 60, note: 20_000 } as const

/** What was said about the run in `dir`. */
export function readAnnotations(dir: string): Annotations {
  let json: Partial<Record<keyof Annotations, unknown>> | null
  try {
    json = JSON.parse(readFileSync(join(dir, annotationsFile), 'utf8')) as typeof json
  } catch {
    return none
  }
  if (typeof json !== 'object' || json === null) return none
  const { tags, note, archived } = json
  return {
    tags: Array.isArray(tags) ? tags.filter((tag) => typeof tag === 'string') : [],
    note: typeof note === 'string' ? note : '',
    archived: archived === true,
  }
}

/**
 * Changes what is said about the run in `dir`; what is not given stays. Tags are trimmed, each is kept once.
 * @throws UserError (exit 2) when something is not text, or longer than anybody needs.
 */
export function annotate(dir: string, change: Partial<Annotations>): Annotations {
  const merged = { ...readAnnotations(dir), ...change }
  const refuse = (where: string, got: string, expected: string): Error =>
    badUsage({ where, got, expected, fix: 'shorten it' })
  if (!Array.isArray(merged.tags) || merged.tags.some((tag) => typeof tag !== 'string'))
    throw refuse('tags', JSON.stringify(merged.tags), 'a list of words')
  if (typeof merged.note !== 'string' || typeof merged.archived !== 'boolean')
    throw refuse('notes', 'a note or archived of another type', 'text, and true or false')
  const tags = [...new Set(merged.tags.map((tag) => tag.trim()).filter((tag) => tag !== ''))]
  const long = tags.find((tag) => tag.length > limits.tag)
  if (long !== undefined) throw refuse('tags', `a tag of ${long.length} characters`, `at most ${limits.tag}`)
  if (tags.length > limits.tags) throw refuse('tags', `${tags.length} tags`, `at most ${limits.tags}`)
  if (merged.note.length > limits.note)
    throw refuse('note', `${merged.note.length} characters`, `at most ${limits.note}`)
  const annotations: Annotations = { tags, note: merged.note, archived: merged.archived }
  const path = join(dir, annotationsFile)
  const temporary = `${path}.${process.pid}.tmp`
  writeFileSync(temporary, `${JSON.stringify({ version: 1, ...annotations }, null, 2)}\n`)
  renameSync(temporary, path)
  return annotations
}
