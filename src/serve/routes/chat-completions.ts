/** `POST /v1/chat/completions`. */
import { Hono } from 'hono'
import { randomUUID } from 'node:crypto'
import { z } from 'zod'
import type { CallPiece, Piece } from '../calls.ts'
import type { Message, ToolCall } from '../chat-template.ts'
import { merged, startChat, type AnswerFormat, type ChatAnswer, type ChatRequest } from '../chat.ts'
import type { Engine } from '../engine.ts'
import { find, type Engines } from '../engines.ts'
import { invalid } from '../error.ts'
import { bodyOf, count, refuse, samplingOf, stopsOf, writingFields } from '../parameters.ts'
import { eventStream, type StreamEvent } from '../stream.ts'
import { abortWith, fingerprint, logprobsOf, now, totalsOf, usageOf } from '../usage.ts'

const part = z.looseObject({ type: z.string(), text: z.string().optional() })
const message = z.looseObject({
  role: z.enum(['developer', 'system', 'user', 'assistant', 'tool']),
  content: z
    .union([z.string(), z.array(part)])
    .nullable()
    .optional(),
  tool_calls: z
    .array(z.looseObject({ function: z.looseObject({ name: z.string(), arguments: z.string() }) }))
    .nullable()
    .optional(),
})
const functionTool = z.looseObject({
  type: z.literal('function'),
  function: z.looseObject({
    name: z.string().min(1),
    description: z.string().nullable().optional(),
    parameters: z.unknown().optional(),
  }),
})
const namedTool = z.looseObject({
  type: z.literal('function'),
  function: z.looseObject({ name: z.string() }),
})
const body = z.looseObject({
  ...writingFields,
  messages: z.array(message).min(1),
  max_tokens: count(1, 1e9),
  max_completion_tokens: count(1, 1e9),
  logprobs: z.boolean().nullable().optional(),
  top_logprobs: count(0, 20),
  response_format: z
    .discriminatedUnion('type', [
      z.looseObject({ type: z.literal('text') }),
      z.looseObject({ type: z.literal('json_object') }),
      z.looseObject({
        type: z.literal('json_schema'),
        json_schema: z.looseObject({ schema: z.unknown().optional() }),
      }),
    ])
    .nullable()
    .optional(),
  tools: z.array(functionTool).nullable().optional(),
  tool_choice: z
    .union([
      z.enum(['none', 'auto', 'required']),
      namedTool,
      z.looseObject({
        type: z.literal('allowed_tools'),
        allowed_tools: z.looseObject({ mode: z.enum(['auto', 'required']), tools: z.array(namedTool) }),
      }),
    ])
    .nullable()
    .optional(),
})
type Body = z.infer<typeof body>

export const chatCompletions = (engines: Engines): Hono =>
  new Hono().post('/', async (c) => {
    const given = await bodyOf(c, body)
    refuse(given, { audio: [], functions: [], function_call: ['none'], web_search_options: [] })
    const engine = await find(engines, given.model)
    const abort = abortWith(c)
    const answers = startChat(engine, requestOf(given, abort.signal))
    const head = {
      id: `chatcmpl-${randomUUID()}`,
      created: now(),
      model: given.model,
      system_fingerprint: fingerprint(engine),
    }
    return given.stream
      ? eventStream(chunks(engine, answers, head, given), abort)
      : c.json(await whole(engine, answers, head, given))
  })

function requestOf(given: Body, signal: AbortSignal): ChatRequest {
  const { tools, toolChoice } = toolsOf(given)
  return {
    messages: given.messages.map(messageOf),
    tools,
    toolChoice,
    format: formatOf(given),
    maxTokens: given.max_completion_tokens ?? given.max_tokens ?? undefined,
    count: given.n ?? 1,
    drawing: {
      sampling: samplingOf(given),
      stop: stopsOf(given),
      top: given.logprobs ? (given.top_logprobs ?? 0) : undefined,
      signal,
    },
    params: { messages: 'messages', schema: 'response_format.json_schema.schema', maxTokens: 'max_tokens' },
  }
}

function messageOf({ role, content, tool_calls }: Body['messages'][number], i: number): Message {
  const text =
    typeof content === 'string'
      ? content
      : (content ?? [])
          .map((piece, j) => {
            if (piece.text !== undefined && piece.type === 'text') return piece.text
            throw invalid(
              `messages[${i}].content[${j}].type`,
              `'${piece.type}' is not supported by this model; only text is`,
            )
          })
          .join('')
  return {
    role: role === 'developer' ? 'system' : role,
    text,
    ...(tool_calls ? { toolCalls: tool_calls.map((call) => call.function) } : {}),
  }
}

function formatOf({ response_format: format }: Body): AnswerFormat {
  if (format?.type !== 'json_schema') return format ?? { type: 'text' }
  return { type: 'json_schema', schema: format.json_schema.schema ?? {} }
}

function toolsOf({ tools, tool_choice: choice }: Body): Pick<ChatRequest, 'tools' | 'toolChoice'> {
  const all = (tools ?? []).map(({ function: { name, description, parameters } }) => ({
    name,
    description: description ?? undefined,
    parameters,
  }))
  if (choice === undefined || choice === null || typeof choice === 'string')
    return { tools: all, toolChoice: choice ?? 'auto' }
  if (choice.type === 'function') return { tools: all, toolChoice: { name: choice.function.name } }
  const names = new Set(choice.allowed_tools.tools.map((tool) => tool.function.name))
  return { tools: all.filter(({ name }) => names.has(name)), toolChoice: choice.allowed_tools.mode }
}

/** A call that was cut off is no call to make. */
const finishOf = ({ generation: { finish } }: ChatAnswer, called: boolean): string =>
  called && finish !== 'length' ? 'tool_calls' : finish!

const callId = (): string => `call_${randomUUID().replaceAll('-', '').slice(0, 24)}`

/** Part of a call as a stream has it: what it is first, its arguments bit by bit. */
const callDelta = ({ index, name, arguments: given }: CallPiece): object =>
  name === undefined
    ? { index, function: { arguments: given } }
    : { index, id: callId(), type: 'function', function: { name, arguments: given } }

async function whole(
  engine: Engine,
  answers: readonly ChatAnswer[],
  head: object,
  { logprobs }: Body,
): Promise<object> {
  const choices = await Promise.all(
    answers.map(async (answer, index) => {
      let text = ''
      const calls: ToolCall[] = []
      const tokens: Piece['tokens'][number][] = []
      for await (const piece of answer.pieces()) {
        text += piece.text
        tokens.push(...piece.tokens)
        if (piece.call) addTo(calls, piece.call)
      }
      return {
        index,
        message: {
          role: 'assistant',
          content: text === '' && calls.length > 0 ? null : text,
          refusal: null,
          ...(calls.length > 0 ? { tool_calls: calls.map(wholeCall) } : {}),
        },
        logprobs: logprobs ? { content: logprobsOf(engine, tokens), refusal: null } : null,
        finish_reason: finishOf(answer, calls.length > 0),
      }
    }),
  )
  const usage = usageOf(totalsOf(answers.map(({ generation }) => generation)))
  return { object: 'chat.completion', ...head, choices, usage }
}

const wholeCall = (call: ToolCall): object => ({ id: callId(), type: 'function', function: call })

/** A call grows with its pieces. */
function addTo(calls: ToolCall[], { index, name = '', arguments: given }: CallPiece): void {
  const known = calls[index] ?? { name: '', arguments: '' }
  calls[index] = { name: known.name + name, arguments: known.arguments + given }
}

async function* chunks(
  engine: Engine,
  answers: readonly ChatAnswer[],
  head: object,
  { logprobs, stream_options: options }: Body,
): AsyncGenerator<StreamEvent, void> {
  const withUsage = options?.include_usage === true
  const chunk = (choices: readonly object[], usage: object | null = null): StreamEvent => ({
    data: { object: 'chat.completion.chunk', ...head, choices, ...(withUsage ? { usage } : {}) },
  })
  const choice = (index: number, delta: object, rest: object = {}): object => ({
    index,
    delta,
    logprobs: null,
    finish_reason: null,
    ...rest,
  })
  for (const [index] of answers.entries())
    yield chunk([choice(index, { role: 'assistant', content: '', refusal: null })])
  const called = new Set<number>()
  const ending = async function* (answer: ChatAnswer): AsyncGenerator<Piece | undefined, void> {
    yield* answer.pieces()
    yield undefined
  }
  for await (const [index, piece] of merged(answers.map(ending))) {
    if (!piece) {
      yield chunk([choice(index, {}, { finish_reason: finishOf(answers[index]!, called.has(index)) })])
      continue
    }
    const { text, tokens, call } = piece
    const told =
      logprobs && tokens.length > 0
        ? { logprobs: { content: logprobsOf(engine, tokens), refusal: null } }
        : {}
    if (text !== '' || (!call && logprobs)) yield chunk([choice(index, { content: text }, told)])
    if (call) {
      called.add(index)
      yield chunk([choice(index, { tool_calls: [callDelta(call)] }, text === '' ? told : {})])
    }
  }
  if (withUsage) yield chunk([], usageOf(totalsOf(answers.map(({ generation }) => generation))))
  yield { data: '[DONE]' }
}
