/**
 * Server-sent events that survive: the browser connects again by itself after a break and says how far it was; where it
 * gives up (an answer that is no stream), this tries again. `freshness` tells how long ago the server was last heard.
 */
import { signal } from '@preact/signals'

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
  let source: EventSource | undefined
  let retry: ReturnType<typeof setTimeout> | undefined
  let ended = false
  streams.value++
  const connect = (): void => {
    source = new EventSource(address())
    for (const name of [...Object.keys(handlers), 'beat']) {
      source.addEventListener(name, (event) => {
        heardAt.value = performance.now()
        handlers[name]?.(JSON.parse((event as MessageEvent<string>).data))
      })
    }
    source.addEventListener('open', () => (heardAt.value = performance.now()))
    source.addEventListener('error', () => {
      // What the browser will not try again by itself.
      source?.close()
      if (!ended) retry = setTimeout(connect, 1000)
    })
  }
  connect()
  return () => {
    if (ended) return
    ended = true
    streams.value--
    clearTimeout(retry)
    source?.close()
  }
}
