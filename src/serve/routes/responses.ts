/** `POST /v1/responses`: nothing is stored, so a conversation is sent whole each time. */
import { Hono } from 'hono'
import { randomUUID } from 'node:crypto'
import { z } from 'zod'
import type { CallPiece, Piece } from '../calls.ts'
import type { Message } from '../chat-template.ts'
import { startChat, type AnswerFormat, type ChatAnswer, type ChatRequest } from '../chat.ts'
import type { Engine } from '../engine.ts'
import { find, type Engines } from '../engines.ts'
import { invalid } from '../error.ts'
import { bodyOf, count, refuse, samplingFields, samplingOf } from '../parameters.ts'
import { eventStream, type StreamEvent } from '../stream.ts'
import { abortWith, logprobsOf, now, totalsOf } from '../usage.ts'

const part = z.looseObject({ type: z.string(), text: z.string().optional() })
const item = z.looseObject({
  type: z.string().optional(),
  role: z.enum(['developer', 'system', 'user', 'assistant']).optional(),
  content: z.union([z.string(), z.array(part)]).optional(),
  name: z.string().optional(),
  arguments: z.string().optional(),
  output: z.union([z.string(), z.array(part)]).optional(),
})
const tool = z.looseObject({
  type: z.literal('function'),
  name: z.string().min(1),
  description: z.string().nullable().optional(),
  parameters: z.unknown().optional(),
})
const body = z.looseObject({
  ...samplingFields,
  input: z.union([z.string(), z.array(item).min(1)]),
  instructions: z.string().nullable().optional(),
  max_output_tokens: count(1, 1e9),
  top_logprobs: count(0, 20),
  include: z.array(z.string()).nullable().optional(),
  text: z
    .looseObject({
      format: z.looseObject({ type: z.string(), schema: z.unknown().optional() }).nullable().optional(),
    })
    .nullable()
    .optional(),
  tools: z.array(tool).nullable().optional(),
  tool_choice: z
    .union([
      z.enum(['none', 'auto', 'required']),
      z.looseObject({ type: z.literal('function'), name: z.string() }),
    ])
    .nullable()
    .optional(),
})
type Body = z.infer<typeof body>

export const responses = (engines: Engines): Hono =>
  new Hono().post('/', async (c) => {
    const given = await bodyOf(c, body)
    refuse(given, { previous_response_id: [], conversation: [], prompt: [], background: [false] })
    const engine = await find(engines, given.model)
    const abort = abortWith(c)
    const [answer] = startChat(engine, requestOf(given, abort.signal))
    const events = new Events(engine, answer!, given)
    if (given.stream) {
      const onError = (error: object): StreamEvent => ({
        event: 'error',
        data: { type: 'error', ...(error as { error: object }).error },
      })
      return eventStream(events.all(), abort, onError)
    }
    let last: unknown
    for await (const { data } of events.all()) last = data
    return c.json((last as { response: object }).response)
  })

function requestOf(given: Body, signal: AbortSignal): ChatRequest {
  const choice = given.tool_choice ?? 'auto'
  const messages: Message[] = given.instructions ? [{ role: 'system', text: given.instructions }] : []
  if (typeof given.input === 'string') messages.push({ role: 'user', text: given.input })
  else messages.push(...given.input.map(messageOf))
  return {
    messages,
    tools: (given.tools ?? []).map(({ name, description, parameters }) => ({
      name,
      description: description ?? undefined,
      parameters: parameters ?? undefined,
    })),
    toolChoice: typeof choice === 'string' ? choice : { name: choice.name },
    format: formatOf(given),
    maxTokens: given.max_output_tokens ?? undefined,
    count: 1,
    drawing: {
      sampling: samplingOf(given),
      top: wantsLogprobs(given) ? (given.top_logprobs ?? 0) : undefined,
      signal,
    },
    params: { messages: 'input', schema: 'text.format.schema', maxTokens: 'max_output_tokens' },
  }
}

const wantsLogprobs = ({ include, top_logprobs: top }: Body): boolean =>
  (include ?? []).includes('message.output_text.logprobs') || (top ?? 0) > 0

function formatOf({ text }: Body): AnswerFormat {
  const format = text?.format
  switch (format?.type) {
    case undefined:
    case 'text':
      return { type: 'text' }
    case 'json_object':
      return { type: 'json_object' }
    case 'json_schema':
      return { type: 'json_schema', schema: format.schema ?? {} }
    default:
      throw invalid('text.format.type', 'text, json_object or json_schema is needed')
  }
}

function messageOf(given: z.infer<typeof item>, i: number): Message {
  const at = `input[${i}]`
  const textOf = (content: string | z.infer<typeof part>[], field: string): string =>
    typeof content === 'string'
      ? content
      : content
          .map(({ type, text }, j) => {
            if (text !== undefined && ['input_text', 'output_text'].includes(type)) return text
            throw invalid(
              `${at}.${field}[${j}].type`,
              `'${type}' is not supported by this model; only text is`,
            )
          })
          .join('')
  switch (given.type ?? 'message') {
    case 'message': {
      const { role } = given
      if (!role) throw invalid(`${at}.role`, 'a role is needed')
      return { role: role === 'developer' ? 'system' : role, text: textOf(given.content ?? '', 'content') }
    }
    case 'function_call':
      return {
        role: 'assistant',
        text: '',
        toolCalls: [{ name: given.name ?? '', arguments: given.arguments ?? '{}' }],
      }
    case 'function_call_output':
      return { role: 'tool', text: textOf(given.output ?? '', 'output') }
    default:
      throw invalid(`${at}.type`, `items of type '${given.type}' are not supported`)
  }
}

const idOf = (kind: string): string => `${kind}_${randomUUID().replaceAll('-', '')}`

/** One response as the events that build it; without streaming, the last one is the answer. */
class Events {
  readonly #engine: Engine
  readonly #answer: ChatAnswer
  readonly #given: Body
  readonly #id = idOf('resp')
  readonly #created = now()
  readonly #output: object[] = []
  #sequence = 0
  /** The message being written. */
  #message: { readonly id: string; text: string; readonly logprobs: object[] } | undefined
  /** The call being written. */
  #call: { readonly id: string; readonly callId: string; readonly name: string; text: string } | undefined

  constructor(engine: Engine, answer: ChatAnswer, given: Body) {
    this.#engine = engine
    this.#answer = answer
    this.#given = given
  }

  async *all(): AsyncGenerator<StreamEvent, void> {
    yield this.#event('response.created', { response: this.#response('in_progress') })
    yield this.#event('response.in_progress', { response: this.#response('in_progress') })
    for await (const piece of this.#answer.pieces()) {
      const isText = piece.text !== '' || (!piece.call && !this.#call && wantsLogprobs(this.#given))
      if (isText) {
        yield* this.#endCall('completed')
        yield* this.#say(piece)
      }
      if (piece.call) yield* this.#callPiece(piece.call)
    }
    const status = this.#answer.generation.finish === 'length' ? 'incomplete' : 'completed'
    // An answer without a word is an empty message.
    if (this.#output.length === 0 && !this.#message && !this.#call) yield* this.#openMessage()
    yield* this.#endMessage(status)
    yield* this.#endCall(status)
    yield this.#event(`response.${status}`, { response: this.#response(status) })
  }

  #event(type: string, fields: object): StreamEvent {
    return { event: type, data: { type, sequence_number: this.#sequence++, ...fields } }
  }

  *#openMessage(): Generator<StreamEvent, void> {
    const id = idOf('msg')
    this.#message = { id, text: '', logprobs: [] }
    const at = { item_id: id, output_index: this.#output.length }
    yield this.#event('response.output_item.added', {
      output_index: at.output_index,
      item: { id, type: 'message', status: 'in_progress', role: 'assistant', content: [] },
    })
    yield this.#event('response.content_part.added', { ...at, content_index: 0, part: this.#part() })
  }

  *#say({ text, tokens }: Piece): Generator<StreamEvent, void> {
    if (!this.#message) yield* this.#openMessage()
    const message = this.#message!
    const logprobs = wantsLogprobs(this.#given) ? logprobsOf(this.#engine, tokens) : []
    message.text += text
    message.logprobs.push(...logprobs)
    yield this.#event('response.output_text.delta', { ...this.#at(), delta: text, logprobs })
  }

  *#endMessage(status: string): Generator<StreamEvent, void> {
    const message = this.#message
    if (!message) return
    const at = this.#at()
    yield this.#event('response.output_text.done', { ...at, text: message.text, logprobs: message.logprobs })
    yield this.#event('response.content_part.done', { ...at, part: this.#part() })
    const done = { id: message.id, type: 'message', status, role: 'assistant', content: [this.#part()] }
    yield this.#event('response.output_item.done', { output_index: at.output_index, item: done })
    this.#output.push(done)
    this.#message = undefined
  }

  *#callPiece({ name, arguments: delta }: CallPiece): Generator<StreamEvent, void> {
    if (name !== undefined) {
      yield* this.#endMessage('completed')
      yield* this.#endCall('completed')
      this.#call = { id: idOf('fc'), callId: idOf('call'), name, text: '' }
      yield this.#event('response.output_item.added', {
        output_index: this.#output.length,
        item: this.#callItem('in_progress'),
      })
    }
    const call = this.#call
    if (!call || delta === '') return
    call.text += delta
    const at = { item_id: call.id, output_index: this.#output.length }
    yield this.#event('response.function_call_arguments.delta', { ...at, delta })
  }

  *#endCall(status: string): Generator<StreamEvent, void> {
    const call = this.#call
    if (!call) return
    const output_index = this.#output.length
    const at = { item_id: call.id, output_index }
    yield this.#event('response.function_call_arguments.done', {
      ...at,
      name: call.name,
      arguments: call.text,
    })
    const done = this.#callItem(status)
    yield this.#event('response.output_item.done', { output_index, item: done })
    this.#output.push(done)
    this.#call = undefined
  }

  #callItem(status: string): object {
    const { id, callId, name, text } = this.#call!
    return { id, type: 'function_call', call_id: callId, name, arguments: text, status }
  }

  #at(): { item_id: string; output_index: number; content_index: number } {
    return { item_id: this.#message!.id, output_index: this.#output.length, content_index: 0 }
  }

  #part(): object {
    const { text, logprobs } = this.#message!
    return { type: 'output_text', text, annotations: [], logprobs: [...logprobs] }
  }

  #response(status: 'in_progress' | 'completed' | 'incomplete'): object {
    const given = this.#given
    const { prompt, cached, written } = totalsOf([this.#answer.generation])
    return {
      id: this.#id,
      object: 'response',
      created_at: this.#created,
      status,
      error: null,
      incomplete_details: status === 'incomplete' ? { reason: 'max_output_tokens' } : null,
      instructions: given.instructions ?? null,
      max_output_tokens: given.max_output_tokens ?? null,
      model: given.model,
      output: [...this.#output],
      parallel_tool_calls: false,
      previous_response_id: null,
      store: false,
      temperature: given.temperature ?? 1,
      top_p: given.top_p ?? 1,
      text: given.text ?? { format: { type: 'text' } },
      tool_choice: given.tool_choice ?? 'auto',
      tools: given.tools ?? [],
      truncation: 'disabled',
      usage:
        status === 'in_progress'
          ? null
          : {
              input_tokens: prompt,
              input_tokens_details: { cached_tokens: cached },
              output_tokens: written,
              output_tokens_details: { reasoning_tokens: 0 },
              total_tokens: prompt + written,
            },
      metadata: {},
    }
  }
}
