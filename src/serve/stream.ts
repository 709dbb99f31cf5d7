/**
 * Server-sent events, as an answer. A client that goes away aborts what it asked for; one that has to wait hears a
 * comment now and then, so that nothing in between takes the connection for dead. An error in the middle becomes an
 * event, since the status has long been sent.
 */
import { describeError, errorBody } from './error.ts'

export interface StreamEvent {
  readonly event?: string
  /** Sent as JSON; a string as it is. */
  readonly data: unknown
}

const heartbeatMs = 15_000

/**
 * @param onError the event that tells of an error; default OpenAI's bare `data: {"error": …}`.
 */
export function eventStream(
  events: AsyncIterable<StreamEvent>,
  abort: AbortController,
  onError: (error: object) => StreamEvent = (error) => ({ data: error }),
): Response {
  const encoder = new TextEncoder()
  let heartbeat: NodeJS.Timeout
  const body = new ReadableStream<Uint8Array>({
    start(controller) {
      const send = (text: string): void => {
        if (!abort.signal.aborted) controller.enqueue(encoder.encode(text))
      }
      heartbeat = setInterval(() => send(': waiting\n\n'), heartbeatMs)
      const say = ({ event, data }: StreamEvent): void =>
        send(
          `${event === undefined ? '' : `event: ${event}\n`}data: ${typeof data === 'string' ? data : JSON.stringify(data)}\n\n`,
        )
      void (async () => {
        try {
          for await (const event of events) say(event)
        } catch (error) {
          const { status, details } = describeError(error)
          say(onError(errorBody(status, details)))
        }
        clearInterval(heartbeat)
        if (!abort.signal.aborted) controller.close()
      })()
    },
    cancel() {
      clearInterval(heartbeat)
      abort.abort(new DOMException('the client went away', 'AbortError'))
    },
  })
  return new Response(body, {
    headers: { 'content-type': 'text/event-stream', 'cache-control': 'no-cache', 'x-accel-buffering': 'no' },
  })
}
