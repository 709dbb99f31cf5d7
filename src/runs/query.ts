/**
 * The small language in which runs are searched, the same for `anneal runs` and the page:
 *
 *     status=running loss<1.5 model.width>=128 tag=good -optim.name=sgd sort=-created fox
 *
 * Terms stand side by side and all must hold; a `-` before one turns it round. A term compares something with a value: a
 * total (`step`, `tokens`, `seconds`, `flops`), `id`, `recipe`, `status`, `created`, `tag`, `note`, a metric (its last
 * value; also `loss.min`, `loss.max`) or a setting. `~` asks whether the text contains the value. A word alone is looked
 * for in id, recipe, tags and note. Runs that were put away are left out unless the query says `archived`.
 */
import { badUsage, didYouMean } from '../errors.ts'
import { settingsOf } from './settings.ts'
import type { RunSummary } from './summary.ts'

type Comparison = '=' | '!=' | '<' | '<=' | '>' | '>=' | '~'

interface Term {
  readonly text: string
  readonly negated: boolean
  /** Absent: a word alone. */
  readonly key?: string
  readonly comparison: Comparison
  readonly value: string
}

/** The runs that a query names, in their order or in the one it asks for. */
export function searchRuns(runs: readonly RunSummary[], query: string): RunSummary[] {
  const terms = parseQuery(query)
  const orders = terms.filter(({ key }) => key === 'sort')
  const filters = terms.filter(({ key }) => key !== 'sort')
  requireKnownKeys(runs, terms)
  const showsArchived = filters.some(({ key, value }) => (key ?? value) === 'archived')
  const found = runs.filter(
    (run) => (showsArchived || !run.archived) && filters.every((term) => holds(run, term) !== term.negated),
  )
  for (const { value } of orders.toReversed()) {
    const descending = value.startsWith('-')
    const key = value.replace(/^-/, '')
    // Runs that lack the key come last either way.
    found.sort((a, b) => {
      const [x, y] = [valuesOf(a, key)[0], valuesOf(b, key)[0]]
      if (x === undefined || y === undefined) return Number(x === undefined) - Number(y === undefined)
      return descending ? -order(x, y) : order(x, y)
    })
  }
  return found
}

/**
 * Splits a query into terms. Text in double quotes may hold spaces.
 * @throws UserError (exit 2) on a term without a key or a value, or a quote that is not closed.
 */
export function parseQuery(query: string): readonly Term[] {
  const words = query.match(/(?:"[^"]*"|[^\s"])+|"[^"]*$/g) ?? []
  return words.map((word): Term => {
    if ((word.match(/"/g)?.length ?? 0) % 2 === 1) throw unreadable(word, 'a closing quote', `write ${word}"`)
    const negated = word.startsWith('-') && word.length > 1
    const text = negated ? word.slice(1) : word
    const split = /^([^"=!<>~]*)(<=|>=|!=|=|<|>|~)(.*)$/s.exec(text)
    const plain = (part: string): string => part.replaceAll('"', '')
    if (split === null) return { text: word, negated, comparison: '~', value: plain(text) }
    const [, key = '', comparison, value = ''] = split
    if (key === '' || value === '')
      throw unreadable(word, 'a key, a comparison and a value', 'write it like loss<1.5 or status=running')
    return { text: word, negated, key, comparison: comparison as Comparison, value: plain(value) }
  })
}

const unreadable = (got: string, expected: string, fix: string): Error =>
  badUsage({ where: 'query', got: `'${got}'`, expected, fix })

type Value = string | number | boolean

function holds(run: RunSummary, { key, comparison, value }: Term): boolean {
  if (key === undefined) {
    if (value === 'archived') return run.archived
    const text = [run.id, run.recipe, run.note, ...run.tags].join('\n').toLowerCase()
    return text.includes(value.toLowerCase())
  }
  const values = valuesOf(run, key)
  if (comparison === '!=') return !values.some((own) => compare(own, '=', value))
  return values.some((own) => compare(own, comparison, value))
}

function compare(own: Value, comparison: Comparison, text: string): boolean {
  if (comparison === '~') return String(own).toLowerCase().includes(text.toLowerCase())
  const other = typeof own === 'number' ? readNumber(text) : text
  const sign = typeof own === 'number' && other === undefined ? Number.NaN : order(own, other ?? Number.NaN)
  if (comparison === '=')
    return sign === 0 || (typeof own === 'number' && Number.isNaN(own) && text.toLowerCase() === 'nan')
  if (comparison === '<') return sign < 0
  if (comparison === '<=') return sign <= 0
  if (comparison === '>') return sign > 0
  return sign >= 0
}

/** Negative, zero or positive; NaN where two numbers cannot be compared. Dates as text order rightly. */
function order(a: Value, b: Value): number {
  if (typeof a === 'number' && typeof b === 'number') return a === b ? 0 : a - b
  return String(a).toLowerCase().localeCompare(String(b).toLowerCase())
}

const suffixes: Readonly<Record<string, number>> = { k: 1e3, m: 1e6, g: 1e9, t: 1e12, p: 1e15 }

/** `1.5e12`, `1.5T`, `10k`. */
function readNumber(text: string): number | undefined {
  const [, digits, suffix = ''] = /^([-+]?(?:\d+\.?\d*|\.\d+)(?:e[-+]?\d+)?)([kmgtp]?)$/i.exec(text) ?? []
  return digits === undefined ? undefined : Number(digits) * (suffixes[suffix.toLowerCase()] ?? 1)
}

/** What a run has under a key: nothing, one value, or several tags. */
function valuesOf(run: RunSummary, key: string): readonly Value[] {
  if (key === 'tag' || key === 'tags') return run.tags
  if (key === 'parent') return run.parent ? [run.parent.run] : []
  const own = (run as unknown as Readonly<Record<string, unknown>>)[key]
  if (isValue(own)) return [own]
  const [, name = key, of = 'last'] = /^(.+)\.(last|min|max)$/.exec(key) ?? []
  if (Object.hasOwn(run.metrics, name)) {
    const place = run.metrics[name]![of as 'last' | 'min' | 'max']
    return place === null ? [] : [place.value]
  }
  const setting = key
    .split('.')
    .reduce<unknown>(
      (inner, part) =>
        typeof inner === 'object' && inner !== null && Object.hasOwn(inner, part)
          ? (inner as Readonly<Record<string, unknown>>)[part]
          : undefined,
      run.config,
    )
  return isValue(setting) ? [setting] : []
}

const isValue = (value: unknown): value is Value => ['string', 'number', 'boolean'].includes(typeof value)

const alwaysKnown = ['tag', 'note', 'parent', 'archived', 'sort']

/** A key that no run has was probably mistyped; with no runs at all nothing can be said. */
function requireKnownKeys(runs: readonly RunSummary[], terms: readonly Term[]): void {
  if (runs.length === 0) return
  for (const { text, key, value } of terms) {
    const asked = key === 'sort' ? value.replace(/^-/, '') : key
    if (asked === undefined || alwaysKnown.includes(asked)) continue
    if (runs.some((run) => valuesOf(run, asked).length > 0)) continue
    const known = new Set(runs.flatMap((run) => keysOf(run)))
    if (known.has(asked)) continue
    const near = didYouMean(asked, [...known])
    throw badUsage({
      where: 'query',
      got: `'${text}', whose '${asked}' no run has`,
      expected: 'a total, a metric or a setting, like step, loss or model.width',
      fix: near === undefined ? 'see anneal show latest for what a run has' : `did you mean ${near}?`,
    })
  }
}

function keysOf(run: RunSummary): string[] {
  const totals = [
    'id',
    'recipe',
    'status',
    'created',
    'step',
    'tokens',
    'seconds',
    'flops',
    'segments',
    'tag',
  ]
  const metrics = Object.keys(run.metrics).flatMap((name) => [
    name,
    `${name}.min`,
    `${name}.max`,
    `${name}.last`,
  ])
  return [...totals, ...metrics, ...settingsOf(run.config).map(([key]) => key)]
}
