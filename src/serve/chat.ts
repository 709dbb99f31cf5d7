/**
 * A conversation answered: what the chat and the responses route share. Messages and tools go through the template into a
 * prompt; what comes back is text and calls of tools. A call that must be made (`required`, or a named function) is
 * written under a schema of all calls that are allowed, so its arguments are always valid; one that may be made is
 * recognised by the form the template gives it (calls.ts).
 */
import { oneCall, withCalls, type Piece } from './calls.ts'
import type { ChatTemplate, Message, Tool } from './chat-template.ts'
import type { Engine } from './engine.ts'
import { invalid } from './error.ts'
import type { Generation, GenerationRequest } from './generation.ts'

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
    ? engine.schema(callSchema(tools, toolChoice, template), 'tools')
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
        ? oneCall(textOf(generation))
        : tools.length > 0 && template.call && !schema
          ? withCalls(textOf(generation), template.call, (name) => tools.some((tool) => tool.name === name))
          : textOf(generation),
  }))
}

const callBefore = ({ call }: ChatTemplate): string =>
  call ? (call.before === '' ? '' : `${call.before}\n`) : ' <tool_call>\n'

/** The calls that may be made, as a schema. */
function callSchema(
  tools: readonly Tool[],
  choice: ChatRequest['toolChoice'],
  { call }: ChatTemplate,
): unknown {
  const key = call?.argumentsKey ?? 'arguments'
  const named = typeof choice === 'object' ? choice.name : undefined
  const allowed = tools.filter(({ name }) => named === undefined || name === named)
  if (allowed.length === 0) throw invalid('tool_choice', `there is no tool '${named}'`)
  const calls = allowed.map(({ name, parameters }) => ({
    type: 'object',
    properties: {
      name: { const: name },
      [key]: parameters ?? { type: 'object', additionalProperties: false },
    },
    required: ['name', key],
  }))
  // References inside parameters are from their own root.
  return calls.length === 1 ? calls[0] : { anyOf: calls }
}

async function* textOf(generation: Generation): AsyncGenerator<Piece, void> {
  for await (const token of generation) yield { text: token.text, tokens: [token] }
  if (generation.rest !== '') yield { text: generation.rest, tokens: [] }
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
