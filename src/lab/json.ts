/**
 * JSON answers of the lab: numbers that JSON lacks as strings, and what a person did wrong as the same four words that the
 * command line prints. A defect of ours is not explained to the caller.
 */
import type { Context } from 'hono'
import { HTTPException } from 'hono/http-exception'
import { badUsage, UserError } from '../errors.ts'

export const printJson = (data: unknown): string =>
  JSON.stringify(data, (_, value: unknown) =>
    typeof value === 'number' && !Number.isFinite(value) ? String(value) : value,
  )

export const json = (data: unknown, status = 200): Response =>
  new Response(printJson(data), {
    status,
    headers: { 'content-type': 'application/json; charset=utf-8', 'cache-control': 'no-store' },
  })

/** What was thrown, as an answer. */
export function explain(error: unknown): Response {
  if (error instanceof UserError) {
    const status = error instanceof NotFound ? 404 : error.exitCode === 2 ? 400 : 409
    return json({ error: { ...error.complaint, message: error.message } }, status)
  }
  if (error instanceof HTTPException) return json({ error: { message: error.message } }, error.status)
  process.stderr.write(`lab: ${error instanceof Error ? (error.stack ?? error.message) : String(error)}\n`)
  return json({ error: { message: 'the lab met an error of its own; its terminal says more' } }, 500)
}

export class NotFound extends UserError {}

export const noSuchRun = (id: string): NotFound =>
  new NotFound(
    {
      where: 'runs',
      got: `no run '${id.slice(0, 100)}'`,
      expected: 'the id of a run in this folder',
      fix: 'see the list of runs',
    },
    2,
  )

/** The body as an object with text keys; anything else is refused. */
export async function readBody(c: Context): Promise<Readonly<Record<string, unknown>>> {
  const body: unknown = await c.req.json().catch(() => undefined)
  if (typeof body === 'object' && body !== null && !Array.isArray(body))
    return body as Record<string, unknown>
  throw badUsage({
    where: c.req.path,
    got: 'a body that is not a JSON object',
    expected: 'one, as application/json',
    fix: 'see docs/lab.md for what each route takes',
  })
}
