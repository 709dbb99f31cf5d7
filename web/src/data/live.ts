/**
 * Server-sent events that survive: after a break the page connects again and says how far it was. `silence` tells how
 * long ago the server was last heard.
 */
import { signal } from '@preact/signals'
import { events } from './events.ts'
import { fetchWithKey } from './key.ts'

/** When any stream last heard from the server, and how many are open. */
const heardAt = signal(performance.now())
const streams = signal(0)

/** Seconds of silence; undefined when nothing is being followed. */
export const silence = signal<number | undefined>(undefined)

setInterval(() => {
  silence.value = streams.value === 0 ? undefined : Math.floor((performance.now() - heardAt.value) / 1000)
}, 500)

export type Handlers = Readonly<Record<string, (data: unknown) => void>>

/** Follows a stream until the returned function is called. `address` is asked again for each fresh attempt. */
export function follow(address: () => string, handlers: Handlers): () => void {
  const ended = new AbortController()
  const { signal: until } = ended
  let retry: ReturnType<typeof setTimeout> | undefined
  streams.value++
  const read = async (): Promise<void> => {
    const response = await fetchWithKey(address(), { signal: until, cache: 'no-store' })
    if (!response.ok || !response.body) return
    heardAt.value = performance.now()
    for await (const { name, data } of events(response.body)) {
      if (until.aborted) return
      heardAt.value = performance.now()
      handlers[name]?.(JSON.parse(data))
    }
  }
  const connect = (): void => {
    void read()
      .catch(() => undefined)
      .then(() => {
        if (!until.aborted) retry = setTimeout(connect, 1000)
      })
  }
  connect()
  return () => {
    if (until.aborted) return
    ended.abort()
    streams.value--
    clearTimeout(retry)
  }
}
