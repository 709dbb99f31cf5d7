/**
 * The API key of a lab that others can reach. The page itself opens without one; the first request that is refused for
 * want of it makes the page ask, once for all that wait. Kept for this tab's session, sent with every request.
 */
import { signal } from '@preact/signals'

const place = 'anneal-key'

export interface Question {
  /** A key was given and refused. */
  readonly refused: boolean
  /** Undefined: no key. */
  answer(key: string | undefined): void
}

/** What the page must ask now. */
export const question = signal<Question | undefined>(undefined)

let asked: Promise<boolean> | undefined
let declined = false

/** Like `fetch`, with the key. */
export async function fetchWithKey(path: string, init: RequestInit = {}): Promise<Response> {
  for (;;) {
    const key = sessionStorage.getItem(place)
    const headers = new Headers(init.headers)
    if (key !== null) headers.set('authorization', `Bearer ${key}`)
    const response = await fetch(path, { ...init, headers })
    if (response.status !== 401 || declined) return response
    // Another request may have been given one meanwhile.
    if (sessionStorage.getItem(place) === key && !(await ask(key !== null))) return response
    init.signal?.throwIfAborted()
  }
}

function ask(refused: boolean): Promise<boolean> {
  asked ??= new Promise((resolve) => {
    question.value = {
      refused,
      answer(key) {
        question.value = undefined
        asked = undefined
        declined = key === undefined
        if (key !== undefined) sessionStorage.setItem(place, key)
        resolve(key !== undefined)
      },
    }
  })
  return asked
}
