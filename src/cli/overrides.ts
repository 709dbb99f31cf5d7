/**
 * Settings on the command line: `steps=200 model.size=micro optim.lr=1e-3`. Each is found in the recipe's schema by
 * its dotted key, its text turned into the type the schema wants there, and checked alone, so that the message
 * names exactly what was typed. The result is the nested subset that the recipe's `resolveConfig` completes.
 */
import type { z } from 'zod'
import { badUsage } from '../errors.ts'
import { badValue, configKeys, describeExpected, isGroup, unknownKey } from '../models/check.ts'
import type { ConfigSchema } from '../models/check.ts'

/**
 * Parses `key=value` words against `schema`. The last of two settings of one key wins.
 * @throws UserError (exit 2) on a word without `=`, an unknown key, or a value the key cannot take.
 */
export function parseOverrides(schema: ConfigSchema, words: readonly string[]): Record<string, unknown> {
  const overrides: Record<string, unknown> = {}
  for (const word of words) {
    const [key, text] = splitWord(word)
    const value = parseValue(key, findField(schema, key), text)
    place(overrides, key.split('.'), value)
  }
  return overrides
}

function splitWord(word: string): [key: string, text: string] {
  const at = word.indexOf('=')
  if (at > 0) return [word.slice(0, at), word.slice(at + 1)]
  throw badUsage({
    where: 'settings',
    got: `'${word}'`,
    expected: 'key=value',
    fix: 'write settings like steps=200 or model.size=micro',
  })
}

function findField(schema: ConfigSchema, key: string): z.ZodType {
  let field: unknown = schema
  for (const name of key.split('.')) {
    field = isGroup(field) && Object.hasOwn(field.shape, name) ? field.shape[name] : undefined
  }
  if (field === undefined) throw unknownKey(key, configKeys(schema))
  if (isGroup(field)) {
    const members = configKeys(field, `${key}.`)
    throw badUsage({
      where: key,
      got: 'a group of settings',
      expected: 'one setting of it',
      fix: `use ${members.map((member) => `${member}=`).join(', ')}`,
    })
  }
  return field as z.ZodType
}

/**
 * The text as whatever type the field accepts: as it stands (so text that looks like a number stays text where text
 * is wanted), else as a number, else as true or false.
 */
function parseValue(key: string, field: z.ZodType, text: string): unknown {
  const readings: unknown[] = [text, ...parseNumber(text), ...parseBoolean(text)]
  for (const reading of readings) {
    const result = field.safeParse(reading)
    if (result.success) return result.data
  }
  // The last reading that has the right type fails for a reason worth telling: out of range, not whole.
  const issues = readings.map((reading) => field.safeParse(reading).error!.issues[0]!)
  const issue = issues.findLast(({ code }) => code !== 'invalid_type') ?? issues.at(-1)!
  throw badValue(key, text, describeExpected(issue))
}

function parseNumber(text: string): number[] {
  // Plain decimal notation only: Number() would also take '', '0x10' and ' 5 '.
  return /^[+-]?(\d[\d_]*\.?\d*|\.\d+)(e[+-]?\d+)?$/i.test(text) ? [Number(text.replaceAll('_', ''))] : []
}

const words: Readonly<Record<string, boolean>> = {
  true: true,
  yes: true,
  on: true,
  false: false,
  no: false,
  off: false,
}

function parseBoolean(text: string): boolean[] {
  const value = words[text.toLowerCase()]
  return value === undefined ? [] : [value]
}

function place(target: Record<string, unknown>, path: readonly string[], value: unknown): void {
  const [head, ...rest] = path as [string, ...string[]]
  if (rest.length === 0) target[head] = value
  else place((target[head] ??= {}) as Record<string, unknown>, rest, value)
}
