/** Server-sent events read from an answer's body: an `EventSource` can send no key with its request. */

export interface ServerEvent {
  /** `message` when it has no name. */
  readonly name: string
  readonly data: string
}

export async function* events(body: ReadableStream<Uint8Array<ArrayBuffer>>): AsyncGenerator<ServerEvent> {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader()
  let pending = ''
  try {
    for (;;) {
      const { value, done } = await reader.read()
      if (done) return
      let from = Math.max(0, pending.length - 1)
      pending += value
      for (let end; (end = pending.indexOf('\n\n', from)) >= 0; from = 0) {
        const event = parse(pending.slice(0, end))
        pending = pending.slice(end + 2)
        if (event) yield event
      }
    }
  } finally {
    await reader.cancel().catch(() => undefined)
  }
}

function parse(block: string): ServerEvent | undefined {
  let name = 'message'
  const data: string[] = []
  for (const line of block.split('\n')) {
    if (line.startsWith('data:')) data.push(line.slice(line[5] === ' ' ? 6 : 5))
    else if (line.startsWith('event:')) name = line.slice(6).trim()
  }
  return data.length === 0 ? undefined : { name, data: data.join('\n') }
}
