/**
 * What requests have in common: how bodies are read and checked, and the fields that say how to draw. Fields may be null
 * where OpenAI's may; fields unknown to us are passed over, as its own servers do with those of other models, but a field
 * that asks for something we do not do is refused.
 */
import type { Context } from 'hono'
import { randomInt } from 'node:crypto'
import { z } from 'zod'
import { invalid, RequestError } from './error.ts'
import type { Sampling } from './sampling.ts'

const between = (low: number, high: number): z.ZodOptional<z.ZodNullable<z.ZodNumber>> =>
  z.number().min(low).max(high).nullable().optional()
export const count = (low: number, high: number): z.ZodOptional<z.ZodNullable<z.ZodNumber>> =>
  z.int().min(low).max(high).nullable().optional()

export const samplingFields = {
  model: z.string(),
  temperature: between(0, 2),
  top_p: between(0, 1),
  /** Not OpenAI's, but that of most other servers. */
  top_k: count(0, 1e6),
  seed: z.int().nullable().optional(),
  stream: z.boolean().nullable().optional(),
}

export const writingFields = {
  ...samplingFields,
  n: count(1, 16),
  stop: z
    .union([z.string(), z.array(z.string()).max(4)])
    .nullable()
    .optional(),
  frequency_penalty: between(-2, 2),
  presence_penalty: between(-2, 2),
  logit_bias: z.record(z.string().regex(/^\d+$/), z.number().min(-100).max(100)).nullable().optional(),
  stream_options: z.looseObject({ include_usage: z.boolean().nullable().optional() }).nullable().optional(),
}

type Drawing = Partial<{ [K in keyof typeof writingFields]: z.infer<(typeof writingFields)[K]> }>

export const samplingOf = (body: Drawing): Sampling => ({
  temperature: body.temperature ?? 1,
  topP: body.top_p ?? 1,
  topK: body.top_k ?? 0,
  seed: (((body.seed ?? randomInt(2 ** 32)) % 2 ** 32) + 2 ** 32) % 2 ** 32,
  frequencyPenalty: body.frequency_penalty ?? 0,
  presencePenalty: body.presence_penalty ?? 0,
  logitBias: new Map(Object.entries(body.logit_bias ?? {}).map(([id, bias]) => [Number(id), bias])),
})

export const stopsOf = ({ stop }: Drawing): string[] => [stop ?? []].flat().filter((text) => text !== '')

/**
 * The body of a request, checked.
 * @throws RequestError 400 that names the field.
 */
export async function bodyOf<T>(c: Context, schema: z.ZodType<T>): Promise<T> {
  let json: unknown
  try {
    json = await c.req.json()
  } catch (error) {
    if (!(error instanceof SyntaxError)) throw error
    throw new RequestError(400, { message: 'the body is not valid JSON', code: 'invalid_json' })
  }
  const result = schema.safeParse(json)
  if (result.success) return result.data
  const [issue] = result.error.issues
  throw invalid(pathOf(issue!.path), issue!.message)
}

/** `messages[0].role`, as OpenAI writes it. */
const pathOf = (path: readonly PropertyKey[]): string =>
  path.reduce<string>(
    (text, key) =>
      typeof key === 'number' ? `${text}[${key}]` : text === '' ? String(key) : `${text}.${String(key)}`,
    '',
  ) || 'body'

/** Refuses fields that ask for what is not there, unless they hold what changes nothing. */
export function refuse(body: object, fields: Readonly<Record<string, readonly unknown[]>>): void {
  for (const [field, harmless] of Object.entries(fields)) {
    const value: unknown = (body as Readonly<Record<string, unknown>>)[field]
    if (value === undefined || value === null || harmless.includes(value)) continue
    throw invalid(field, 'not supported by this server', 'unsupported_parameter')
  }
}
