/**
 * A conversation answered: what the chat and the responses route share. Messages and tools go through the template into a
 * prompt; what comes back is text and calls of tools. A call that must be made (`required`, or a named function) is
 * written under a schema of all calls that are allowed, so its arguments are always valid; one that may be made is
 * recognised by the marks the template puts around it.
 */
import type { ChatTemplate, Message, Tool, ToolCall } from './chat-template.ts'
import type { Engine } from './engine.ts'
import { invalid } from './error.ts'
import type { Generation, GenerationRequest, Token } from './generation.ts'

export type AnswerFormat =
  | { readonly type: 'text' }
  | { readonly type: 'json_object' }
  | { readonly type: 'json_schema'; readonly schema: unknown }

export interface ChatRequest {
  readonly messages: readonly Message[]
  readonly tools: readonly Tool[]
  /** Which call must be made, if any. */
  readonly toolChoice: 'none' | 'auto' | 'required' | { readonly name: string }
  readonly format: AnswerFormat
  readonly maxTokens: number | undefined
  readonly count: number
  readonly drawing: Pick<GenerationRequest, 'sampling' | 'stop' | 'top' | 'signal'>
  /** Names of fields, for errors. */
  readonly params: { readonly messages: string; readonly schema: string; readonly maxTokens: string }
}

/** A piece of an answer. */
export interface Piece {
  readonly text: string
  readonly tokens: readonly Token[]
  readonly call?: ToolCall
}

export interface ChatAnswer {
  readonly generation: Generation
  /** For one reader. Afterwards `generation.finish` is set. */
  pieces(): AsyncIterable<Piece>
}

/** @throws RequestError for what cannot be answered. */
export function startChat(engine: Engine, request: ChatRequest): ChatAnswer[] {
  const { template } = engine.served
  const { toolChoice, params, format } = request
  const tools = toolChoice === 'none' ? [] : request.tools
  const must = toolChoice === 'required' || typeof toolChoice === 'object'
  if (must && tools.length === 0) throw invalid('tool_choice', 'there are no tools to choose from')
  if (tools.length > 0 && !must && !template.call) {
    throw invalid(
      'tools',
      "this model's chat format has no calls of tools, so it cannot choose to make one; tool_choice 'required' or a function works",
      'unsupported_parameter',
    )
  }
  const text = template.render(request.messages, tools) + (must ? callBefore(template) : '')
  const prompt = engine.encode(text, params.messages)
  const room = engine.room(prompt, params.messages)
  const maxTokens = Math.min(request.maxTokens ?? room, room)
  const schema = must
    ? engine.schema(callSchema(tools, toolChoice), 'tools')
    : format.type === 'text'
      ? undefined
      : engine.schema(format.type === 'json_object' ? undefined : format.schema, params.schema)
  if (schema && schema.least > maxTokens) {
    throw invalid(
      params.maxTokens,
      `${maxTokens} tokens, but what is asked for takes at least ${schema.least}`,
      'max_tokens_too_small',
    )
  }
  const { stop = [], ...drawing } = request.drawing
  const stopIds = engine.served.stopIds
  const generations = engine.generate(
    { ...drawing, prompt, maxTokens, stopIds, stop: schema ? stop : [...stop, ...template.stop] },
    request.count,
    schema ? () => schema.begin() : undefined,
  )
  return generations.map((generation) => ({
    generation,
    pieces: () =>
      must
        ? oneCall(generation)
        : tools.length > 0 && template.call && !schema
          ? withCalls(textOf(generation), template.call)
          : textOf(generation),
  }))
}

const callBefore = ({ call }: ChatTemplate): string => `${call ? '' : ' '}${call?.before ?? '<tool_call>'}\n`

/** The calls that may be made, as a schema. */
function callSchema(tools: readonly Tool[], choice: ChatRequest['toolChoice']): unknown {
  const named = typeof choice === 'object' ? choice.name : undefined
  const allowed = tools.filter(({ name }) => named === undefined || name === named)
  if (allowed.length === 0) throw invalid('tool_choice', `there is no tool '${named}'`)
  const calls = allowed.map(({ name, parameters }) => ({
    type: 'object',
    properties: {
      name: { const: name },
      arguments: parameters ?? { type: 'object', additionalProperties: false },
    },
    required: ['name', 'arguments'],
  }))
  // References inside parameters are from their own root.
  return calls.length === 1 ? calls[0] : { anyOf: calls }
}

async function* textOf(generation: Generation): AsyncGenerator<Piece, void> {
  for await (const token of generation) yield { text: token.text, tokens: [token] }
  if (generation.rest !== '') yield { text: generation.rest, tokens: [] }
}

/** The whole answer is a call. */
async function* oneCall(generation: Generation): AsyncGenerator<Piece, void> {
  let text = ''
  const tokens: Token[] = []
  for await (const piece of textOf(generation)) {
    text += piece.text
    tokens.push(...piece.tokens)
  }
  const call = parseCall(text)
  yield { text: '', tokens, ...(call ? { call } : {}) }
}

/** Text in which calls stand between marks. */
async function* withCalls(
  pieces: AsyncIterable<Piece>,
  { before, after }: NonNullable<ChatTemplate['call']>,
): AsyncGenerator<Piece, void> {
  let held = ''
  let tokens: Token[] = []
  for await (const piece of pieces) {
    held += piece.text
    tokens.push(...piece.tokens)
    for (;;) {
      const from = held.indexOf(before)
      const to = from < 0 ? -1 : held.indexOf(after, from)
      if (to < 0) break
      const call = parseCall(held.slice(from + before.length, to))
      yield call
        ? { text: held.slice(0, from).trimEnd(), tokens, call }
        : { text: held.slice(0, to + after.length), tokens }
      held = held.slice(to + after.length).trimStart()
      tokens = []
    }
    const from = held.indexOf(before)
    const sure = from >= 0 ? from : held.length - mayBegin(held, before)
    if (sure > 0 || (held === '' && tokens.length > 0)) {
      yield { text: held.slice(0, sure), tokens }
      held = held.slice(sure)
      tokens = []
    }
  }
  if (held !== '' || tokens.length > 0) yield { text: held, tokens }
}

function mayBegin(text: string, word: string): number {
  for (let length = Math.min(word.length - 1, text.length); length > 0; length--)
    if (text.endsWith(word.slice(0, length))) return length
  return 0
}

function parseCall(text: string): ToolCall | undefined {
  try {
    const { name, arguments: given = {} } = JSON.parse(text) as { name?: unknown; arguments?: unknown }
    return typeof name === 'string' ? { name, arguments: JSON.stringify(given) } : undefined
  } catch {
    return undefined
  }
}

/** Several iterables as one, in the order things come, each with its index. */
export async function* merged<T>(
  sources: readonly AsyncIterable<T>[],
): AsyncGenerator<readonly [number, T], void> {
  const iterators = sources.map((source) => source[Symbol.asyncIterator]())
  const pending = new Map(
    iterators.map((iterator, i) => [i, iterator.next().then((result) => [i, result] as const)]),
  )
  while (pending.size > 0) {
    const [i, result] = await Promise.race(pending.values())
    if (result.done === true) {
      pending.delete(i)
      continue
    }
    pending.set(
      i,
      iterators[i]!.next().then((next) => [i, next] as const),
    )
    yield [i, result.value]
  }
}
