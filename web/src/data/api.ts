/** Requests to the lab's API. What the server refuses is thrown with its explanation. */
import type { ErrorReply } from '../../../src/lab/wire.ts'
import { fetchWithKey } from './key.ts'

export class ApiError extends Error {
  readonly detail: ErrorReply['error']
  readonly status: number

  constructor(status: number, detail: ErrorReply['error']) {
    super(detail.message)
    this.status = status
    this.detail = detail
  }
}

/** Fetches, and throws an `ApiError` for anything but success. */
export async function request(path: string, init: RequestInit = {}): Promise<Response> {
  let response: Response
  try {
    response = await fetchWithKey(path, init)
  } catch (error) {
    if ((error as Error).name === 'AbortError') throw error
    throw new ApiError(0, { message: 'the server does not answer; is it still running?' })
  }
  if (response.ok) return response
  const reply = (await response.json().catch(() => undefined)) as Partial<ErrorReply> | undefined
  throw new ApiError(response.status, reply?.error ?? { message: `the server answered ${response.status}` })
}

export async function getJson<T>(path: string, signal?: AbortSignal): Promise<T> {
  return (await (await request(path, signal ? { signal } : {})).json()) as T
}

export async function sendJson<T>(
  method: 'POST' | 'PUT' | 'DELETE',
  path: string,
  body: object = {},
  signal?: AbortSignal,
): Promise<T> {
  const init: RequestInit = {
    method,
    headers: { 'content-type': 'application/json' },
    body: JSON.stringify(body),
    ...(signal ? { signal } : {}),
  }
  return (await (await request(path, init)).json()) as T
}

export const runPath = (id: string, rest = ''): string => `/api/runs/${encodeURIComponent(id)}${rest}`

/** What to show of an error: the short form where there is one. */
export function explain(error: unknown): string {
  if (error instanceof ApiError && error.detail.got !== undefined) {
    const { where, got, expected, fix } = error.detail
    return `${where}: got ${got}; expected ${expected}. ${fix ?? ''}`
  }
  return error instanceof Error ? error.message : String(error)
}
