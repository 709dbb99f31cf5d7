/**
 * Turns the first thing zod finds wrong with a configuration into one line that names the key, what was got, what
 * was expected and what to try. Shared by every model's config and by the command line's `key=value` overrides, so
 * a bad value reads the same wherever it came from.
 */
import type { z } from 'zod'
import { badUsage, didYouMean } from '../errors.ts'
import type { UserError } from '../errors.ts'

/** A schema of groups and leaves, the only nesting a config has. */
export type ConfigSchema = z.ZodObject

/**
 * Checks `value` against `schema` and returns the parsed result.
 * @throws UserError (exit 2) naming the first key at fault.
 */
export function checkConfig<Schema extends ConfigSchema>(schema: Schema, value: unknown): z.output<Schema> {
  const result = schema.safeParse(value, { reportInput: true })
  if (result.success) return result.data
  throw issueError(result.error.issues[0]!, value, configKeys(schema))
}

/** Every dotted leaf key of a schema, in its order: `steps`, `model.size`, ... */
export function configKeys(schema: ConfigSchema, prefix = ''): string[] {
  return Object.entries(schema.shape).flatMap(([name, field]) =>
    isGroup(field) ? configKeys(field, `${prefix}${name}.`) : [prefix + name],
  )
}

/** Whether a field of a config schema is a group of further keys. */
export function isGroup(field: unknown): field is ConfigSchema {
  return typeof field === 'object' && field !== null && 'shape' in field
}

/**
 * The key that was probably meant: the same last word in another group (`lr` for `optim.lr`), else the nearest
 * spelling.
 */
export function nearestKey(key: string, keys: readonly string[]): string | undefined {
  const sameWord = keys.find((k) => lastWord(k) === lastWord(key))
  if (sameWord !== undefined) return sameWord
  const groups = keys.filter((k) => k.includes('.')).map((k) => k.slice(0, k.indexOf('.')))
  const near = didYouMean(key, [...keys, ...groups])
  if (near !== undefined) return near
  const nearWord = didYouMean(lastWord(key), keys.map(lastWord))
  return keys.find((k) => lastWord(k) === nearWord)
}

const lastWord = (key: string): string => key.slice(key.lastIndexOf('.') + 1)

/** The error for one zod issue; `keys` are the valid dotted keys, offered when the key itself is unknown. */
export function issueError(issue: z.core.$ZodIssue, value: unknown, keys: readonly string[]): UserError {
  const path = issue.path.map(String)
  if (issue.code === 'unrecognized_keys') {
    const key = [...path, issue.keys[0]].join('.')
    return unknownKey(key, keys)
  }
  const where = path.join('.')
  const got = issue.path.reduce<unknown>(
    (inner, key) => (inner as Record<PropertyKey, unknown> | undefined)?.[key],
    value,
  )
  return badValue(where, printValue(got), describeExpected(issue))
}

/** The error for a key the schema does not have. */
export function unknownKey(key: string, keys: readonly string[]): UserError {
  const near = nearestKey(key, keys)
  return badUsage({
    where: key,
    got: 'a setting that does not exist',
    expected: near === undefined ? `one of ${keys.join(', ')}` : 'a known setting',
    fix: near === undefined ? 'see the list of settings with --help' : `did you mean ${near}?`,
  })
}

/** The error for a known key with a value it cannot take. `got` is shown as the person wrote it. */
export function badValue(key: string, got: string, expected: string): UserError {
  return badUsage({ where: key, got: `${key}=${got}`, expected, fix: `set ${key}= to such a value` })
}

/** What a zod issue would have accepted, in words. */
export function describeExpected(issue: z.core.$ZodIssue): string {
  switch (issue.code) {
    case 'invalid_type':
      return issue.expected === 'int' ? 'a whole number' : `a ${issue.expected}`
    case 'too_small':
      if (issue.origin === 'string') return 'some text'
      return `${issue.inclusive ? 'at least' : 'more than'} ${issue.minimum}`
    case 'too_big':
      return `${issue.inclusive ? 'at most' : 'less than'} ${issue.maximum}`
    case 'invalid_value':
      return `one of ${issue.values.map(String).join(', ')}`
    default:
      return issue.message
  }
}

function printValue(value: unknown): string {
  return typeof value === 'string' ? value : (JSON.stringify(value) ?? 'nothing')
}
