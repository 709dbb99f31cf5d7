/**
 * Tools that a model may call or not, through the unmodified `openai` client: a byte-pair tokenizer with the marks of
 * ChatML, and a model whose weights make it write a script, so that it calls what we want called.
 */
import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { after, before, test } from 'node:test'
import OpenAI from 'openai'
import { tokenizerFromJSON } from '../data/tokenizers/tokenizer.ts'
import { decodable } from '../models/language/decode.ts'
import { specialsOf, templateFor, type ChatTemplate, type Message, type Tool } from './chat-template.ts'
import { Engine } from './engine.ts'
import { enginesOf } from './engines.ts'
import { serveHttp, type HttpServer } from './http.ts'
import { jinjaTemplate } from './jinja-template.ts'
import { openaiRoutes } from './routes.ts'
import { chatmlSource, scriptModel, scriptWeights } from './testing.ts'

const marks = ['<|im_start|>', '<|im_end|>', '<tool_call>', '</tool_call>']
const file = new URL('../../tests/fixtures/tokenizer/bpe-shakespeare-1024/tokenizer.json', import.meta.url)
const json = JSON.parse(readFileSync(file, 'utf8')) as { added_tokens: object[] }
const tokenizer = tokenizerFromJSON({
  ...json,
  added_tokens: [
    ...json.added_tokens,
    // As in Qwen's vocabulary: marks of turns are special, those of calls are text that is kept whole.
    ...marks.map((content, i) => ({ id: 1024 + i, content, special: content.startsWith('<|') })),
  ],
})
const model = scriptModel(tokenizer.vocabSize)

const weather = {
  name: 'weather',
  parameters: { type: 'object', properties: { city: { type: 'string' }, days: { type: 'integer' } } },
}
const time = { name: 'time', parameters: { type: 'object', properties: {} } }
const said: readonly Message[] = [
  { role: 'system', text: 'Be brief.' },
  { role: 'user', text: 'Rome?' },
]
const messages = said.map(({ role, text }) => ({
  role,
  content: text,
})) as OpenAI.ChatCompletionMessageParam[]
const tools = [weather, time].map((fn) => ({
  type: 'function',
  function: fn,
})) as OpenAI.ChatCompletionFunctionTool[]

interface Served {
  readonly engine: Engine
  readonly server: HttpServer
  readonly client: OpenAI
}

async function serve(template: ChatTemplate): Promise<Served> {
  const served = {
    name: 'actor',
    model: decodable(model),
    tokenizer,
    template,
    stopIds: new Set(template.stopTokens.flatMap((mark) => specialsOf(tokenizer).get(mark) ?? [])),
    created: 1,
  }
  const engine = await Engine.open(served, { threads: 2, slots: 4 })
  const server = await serveHttp(openaiRoutes(enginesOf(engine)))
  return {
    engine,
    server,
    client: new OpenAI({ baseURL: `${server.url}/v1`, apiKey: 'none', maxRetries: 0 }),
  }
}

/** Makes it answer `text` to `messages`. */
function script({ engine }: Served, text: string, given: readonly Tool[] = [weather, time]): Promise<void> {
  const prompt = engine.encode(engine.served.template.render(said, given), 'messages')
  return engine.load(text, scriptWeights(model, prompt.length, [...tokenizer.encode(`${text}<|im_end|>`)]))
}

const templates = {
  'of the tokenizer': templateFor(tokenizer),
  'of the checkpoint': jinjaTemplate(chatmlSource, 'chat_template.jinja', {}),
}
const open = new Map<string, Served>()
before(async () => {
  for (const [name, template] of Object.entries(templates)) open.set(name, await serve(template))
})
after(async () => {
  for (const { server, engine } of open.values()) {
    await server.close()
    await engine.close()
  }
})

const city = { city: 'Rome, "eternal"', days: 3 }
const twoCalls = [
  'One moment.',
  `<tool_call>\n{"name": "weather", "arguments": ${JSON.stringify(city)}}\n</tool_call>`,
  '<tool_call>\n{"name": "time", "arguments": {}}\n</tool_call>',
].join('\n')

for (const name of Object.keys(templates)) {
  test(`template ${name}: the marks are its own tokens, and text around them is text`, async () => {
    const { engine } = open.get(name)!
    const ids = engine.encode(engine.served.template.render(said, []), 'messages')
    const [start, end] = [1024, 1025]
    assert.deepEqual([ids.filter((id) => id === start).length, ids.filter((id) => id === end).length], [3, 2])
    assert.equal(ids[0], start)
  })

  test(`template ${name}: calls it chose to make, whole and streamed in pieces`, async () => {
    const served = open.get(name)!
    await script(served, twoCalls)
    const request = { model: 'actor', messages, tools, tool_choice: 'auto', max_tokens: 300 } as const
    const whole = await served.client.chat.completions.create(request)
    const { message, finish_reason: finish } = whole.choices[0]!
    assert.deepEqual([finish, message.content], ['tool_calls', 'One moment.'])
    const made = (message.tool_calls ?? []).map(
      (call) => (call as OpenAI.ChatCompletionMessageFunctionToolCall).function,
    )
    assert.deepEqual(
      made.map((call) => [call.name, JSON.parse(call.arguments)]),
      [
        ['weather', city],
        ['time', {}],
      ],
    )

    const names: (string | undefined)[] = []
    const pieces: string[][] = [[], []]
    const ids = new Set<string>()
    for await (const { choices } of await served.client.chat.completions.create({
      ...request,
      stream: true,
    })) {
      for (const { index, id, type, function: fn } of choices[0]?.delta.tool_calls ?? []) {
        if (id !== undefined) {
          assert.deepEqual([type, fn!.arguments], ['function', ''], 'the first has id, type and name')
          ids.add(id)
          names[index] = fn!.name
        } else pieces[index]!.push(fn!.arguments!)
      }
    }
    assert.deepEqual([names, ids.size], [['weather', 'time'], 2])
    assert.deepEqual(
      pieces.map((parts) => parts.join('')),
      made.map((call) => call.arguments),
    )
    assert.ok(pieces[0]!.length > 3, `${pieces[0]!.length} pieces`)

    // What the client itself makes of the stream.
    const final = await served.client.chat.completions.stream(request).finalChatCompletion()
    assert.equal(final.choices[0]!.message.tool_calls!.length, 2)
    assert.equal(final.choices[0]!.finish_reason, 'tool_calls')
  })

  test(`template ${name}: the same calls as events of a response`, async () => {
    const served = open.get(name)!
    await script(served, twoCalls)
    const request = {
      model: 'actor',
      instructions: 'Be brief.',
      input: 'Rome?',
      tools: [
        { type: 'function', strict: null, ...weather },
        { type: 'function', strict: null, ...time },
      ] as OpenAI.Responses.FunctionTool[],
    }
    const whole = await served.client.responses.create(request)
    assert.deepEqual(
      whole.output.map((item) => item.type),
      ['message', 'function_call', 'function_call'],
    )
    let given = ''
    let deltas = 0
    const order: string[] = []
    for await (const event of await served.client.responses.create({ ...request, stream: true })) {
      if (order.at(-1) !== event.type) order.push(event.type)
      if (event.type !== 'response.function_call_arguments.delta' || event.output_index !== 1) continue
      given += event.delta
      deltas++
    }
    assert.deepEqual(JSON.parse(given), city)
    assert.ok(deltas > 3)
    const call = [
      'response.output_item.added',
      'response.function_call_arguments.delta',
      'response.function_call_arguments.done',
      'response.output_item.done',
    ]
    assert.deepEqual(order.slice(-9), [...call, ...call, 'response.completed'])
  })

  test(`template ${name}: an answer in words, and calls that are not offered`, async () => {
    const served = open.get(name)!
    await script(served, 'It is <b>warm</b>.')
    const words = await served.client.chat.completions.create({ model: 'actor', messages, tools })
    assert.deepEqual(
      [
        words.choices[0]!.message.content,
        words.choices[0]!.finish_reason,
        words.choices[0]!.message.tool_calls,
      ],
      ['It is <b>warm</b>.', 'stop', undefined],
    )
    await script(served, twoCalls, [])
    const none = await served.client.chat.completions.create({
      model: 'actor',
      messages,
      tools,
      tool_choice: 'none',
    })
    assert.equal(none.choices[0]!.message.content, twoCalls)
    assert.equal(none.choices[0]!.finish_reason, 'stop')
  })

  test(`template ${name}: a call cut off by the limit is no call to make`, async () => {
    const served = open.get(name)!
    await script(served, twoCalls)
    const request = { model: 'actor', messages, tools, max_tokens: 24 }
    const { choices } = await served.client.chat.completions.create(request)
    assert.equal(choices[0]!.finish_reason, 'length')
  })
}
