/**
 * The list of a recipe's settings as help shows it: key, default, what it takes and what it means, all read from the
 * schema, so that help cannot go out of date.
 */
import { z } from 'zod'
import { isGroup } from '../models/check.ts'
import type { ConfigSchema } from '../models/check.ts'
import { formatTable } from './format.ts'

/** One row a setting; `defaults` is the resolved default configuration. */
export function describeSettings(schema: ConfigSchema, defaults: object): string {
  return `Settings (key=value), with their defaults:\n${formatTable(rows(schema, defaults, ''))}`
}

function rows(schema: ConfigSchema, defaults: object, prefix: string): string[][] {
  return Object.entries(schema.shape).flatMap(([name, field]) => {
    const value: unknown = (defaults as Record<string, unknown>)[name]
    if (isGroup(field)) return rows(field, value as object, `${prefix}${name}.`)
    return [[`  ${prefix}${name}=${printSetting(value)}`, describeType(field as z.ZodType)]]
  })
}

/** A setting's value as one would type it. */
export function printSetting(value: unknown): string {
  return typeof value === 'string' && !/[\s"]/.test(value) ? value : JSON.stringify(value)
}

function describeType(field: z.ZodType): string {
  const options = field instanceof z.ZodEnum ? field.options.join(' | ') : ''
  return [options, field.description ?? ''].filter((part) => part !== '').join('; ')
}
