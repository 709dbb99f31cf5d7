/**
 * Errors as OpenAI's clients know them: `{ error: { message, type, param, code } }` with a status. A `RequestError` is
 * thrown wherever a request turns out to be wrong; everything else that is thrown is a defect of ours, and the caller is
 * not shown its text.
 */
import { HTTPException } from 'hono/http-exception'
import type { ContentfulStatusCode } from 'hono/utils/http-status'
import { UserError } from '../errors.ts'

export interface ErrorDetails {
  readonly message: string
  /** The field at fault, e.g. `messages[0].role`. */
  readonly param?: string | null
  readonly code?: string | null
  readonly headers?: Readonly<Record<string, string>>
}

export class RequestError extends Error {
  override readonly name = 'RequestError'
  readonly status: ContentfulStatusCode
  readonly details: ErrorDetails

  constructor(status: ContentfulStatusCode, details: ErrorDetails) {
    super(details.message)
    this.status = status
    this.details = details
  }
}

/** A field that cannot be meant as sent: status 400. */
export const invalid = (
  param: string,
  message: string,
  code: string | null = 'invalid_value',
): RequestError => new RequestError(400, { message: `${param}: ${message}`, param, code })

const typeOf = (status: number): string =>
  status === 401
    ? 'authentication_error'
    : status === 403
      ? 'permission_error'
      : status === 404
        ? 'not_found_error'
        : status === 429
          ? 'rate_limit_error'
          : status < 500
            ? 'invalid_request_error'
            : 'server_error'

/** What goes under `error`, in answers and in streams. */
export const errorBody = (status: number, { message, param = null, code = null }: ErrorDetails): object => ({
  error: { message, type: typeOf(status), param, code },
})

export const errorResponse = (status: ContentfulStatusCode, details: ErrorDetails): Response =>
  Response.json(errorBody(status, details), {
    status,
    headers: { ...details.headers },
  })

/** Whatever was thrown, as status and details fit to be sent. */
export function describeError(error: unknown): RequestError {
  if (error instanceof RequestError) return error
  if (error instanceof HTTPException) return new RequestError(error.status as ContentfulStatusCode, error)
  if (error instanceof UserError) return new RequestError(400, { message: error.message })
  return new RequestError(500, { message: 'the server met an error of its own', code: 'internal_error' })
}
