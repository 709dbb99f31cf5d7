/** The unmodified `openai` client against a real server, with a model of drawn weights. */
import assert from 'node:assert/strict'
import { after, before, test } from 'node:test'
import OpenAI from 'openai'
import { z } from 'zod'
import { templateFor } from './chat-template.ts'
import type { Engine } from './engine.ts'
import { enginesOf } from './engines.ts'
import { serveHttp, type HttpServer } from './http.ts'
import { openaiRoutes } from './routes.ts'
import { drawWeights, randomEngine, smallModel } from './testing.ts'

let engine: Engine
let server: HttpServer
let client: OpenAI
const unexpected: unknown[] = []
before(async () => {
  engine = await randomEngine()
  server = await serveHttp(openaiRoutes(enginesOf(engine), { report: (error) => unexpected.push(error) }))
  client = new OpenAI({ baseURL: `${server.url}/v1`, apiKey: 'none', maxRetries: 0 })
})
after(async () => {
  await server.close()
  await engine.close()
  assert.deepEqual(unexpected, [])
})

const model = 'random'
const messages = [
  { role: 'system', content: 'Be brief.' },
  { role: 'user', content: [{ type: 'text', text: 'What is a page?' }] },
] as OpenAI.ChatCompletionMessageParam[]

test('models are listed; one that is not there is an error of the known kind', async () => {
  const list = await client.models.list()
  assert.deepEqual(
    list.data.map(({ id, object }) => [id, object]),
    [[model, 'model']],
  )
  assert.equal((await client.models.retrieve(model)).id, model)
  await assert.rejects(
    client.chat.completions.create({ model: 'randon', messages }),
    (error: unknown) =>
      error instanceof OpenAI.NotFoundError &&
      error.code === 'model_not_found' &&
      /did you mean 'random'/.test(error.message),
  )
})

test('chat, streamed and whole, is the same under one seed, with log probabilities and usage', async () => {
  const request = { model, messages, seed: 5, max_tokens: 40, logprobs: true, top_logprobs: 3 } as const
  const whole = await client.chat.completions.create(request)
  const [choice] = whole.choices
  assert.equal(choice!.finish_reason, 'length')
  const told = choice!.logprobs!.content!
  assert.equal(told.length, 40)
  assert.equal(
    new TextDecoder().decode(Uint8Array.from(told.flatMap(({ bytes }) => bytes!))),
    choice!.message.content,
  )
  for (const { logprob, top_logprobs: top } of told) {
    assert.equal(top.length, 3)
    assert.ok(logprob <= top[0]!.logprob && top[0]!.logprob <= 0)
  }
  const stream = await client.chat.completions.create({
    ...request,
    stream: true,
    stream_options: { include_usage: true },
  })
  let [text, finish] = ['', '']
  let usage: OpenAI.CompletionUsage | null | undefined
  const streamed: unknown[] = []
  for await (const chunk of stream) {
    usage = chunk.usage
    for (const { delta, finish_reason: reason, logprobs } of chunk.choices) {
      text += delta.content ?? ''
      finish ||= reason ?? ''
      streamed.push(...(logprobs?.content ?? []))
    }
  }
  assert.equal(text, choice!.message.content)
  assert.equal(finish, 'length')
  assert.deepEqual(streamed, told)
  const prompt = 'System: Be brief.\nUser: What is a page?\nAssistant:'.length
  assert.deepEqual(
    [usage!.prompt_tokens, usage!.completion_tokens, usage!.total_tokens],
    [prompt, 40, prompt + 40],
  )
  assert.equal(whole.usage!.prompt_tokens, prompt)
  // Of the second, what fills whole pages was read before.
  assert.equal(usage!.prompt_tokens_details!.cached_tokens, 48)
})

test('stop strings never show, not in part, wherever they are cut', async () => {
  const request = { model, prompt: 'Once', seed: 9, max_tokens: 60 } as const
  const free = (await client.completions.create(request)).choices[0]!.text
  const stop = free.slice(20, 23)
  const expected = free.slice(0, free.indexOf(stop))
  const stopped = await client.completions.create({ ...request, stop })
  assert.deepEqual([stopped.choices[0]!.text, stopped.choices[0]!.finish_reason], [expected, 'stop'])
  let text = ''
  for await (const { choices } of await client.completions.create({ ...request, stop, stream: true }))
    for (const choice of choices) text += choice.text
  assert.equal(text, expected)
})

test('several answers, several prompts, biases and older log probabilities', async () => {
  const { choices, usage } = await client.completions.create({
    model,
    prompt: ['One', 'Two'],
    n: 3,
    seed: 1,
    max_tokens: 8,
    logprobs: 2,
  })
  assert.deepEqual(
    choices.map(({ index }) => index),
    [0, 1, 2, 3, 4, 5],
  )
  assert.equal(new Set(choices.map(({ text }) => text)).size, 6)
  assert.equal(usage!.completion_tokens, 48)
  assert.equal(choices[0]!.logprobs!.tokens!.length, 8)
  // The second answer is what its own seed gives.
  const alone = await client.completions.create({ model, prompt: 'One', seed: 2, max_tokens: 8 })
  assert.equal(alone.choices[0]!.text, choices[1]!.text)
  const biased = await client.completions.create({
    model,
    prompt: [79, 110, 101],
    max_tokens: 5,
    temperature: 0,
    logit_bias: { '33': 100 },
  })
  assert.equal(biased.choices[0]!.text, '!!!!!')
})

test('greedy text is the same alone, in company, and with what the cache holds', async () => {
  const prompts = Array.from({ length: 12 }, (_, i) => `${'A long way to begin. '.repeat(i % 4)}Number ${i}`)
  const ask = async (prompt: string): Promise<string> =>
    (await client.completions.create({ model, prompt, temperature: 0, max_tokens: 30 })).choices[0]!.text
  await engine.load('seed-1', drawWeights(smallModel, 1))
  const together = await Promise.all(prompts.map(ask))
  const cached: string[] = []
  for (const prompt of prompts) cached.push(await ask(prompt))
  const alone: string[] = []
  for (const prompt of prompts) {
    // Forgets what the cache holds.
    await engine.load('seed-1', drawWeights(smallModel, 1))
    alone.push(await ask(prompt))
  }
  assert.deepEqual(together, alone)
  assert.deepEqual(cached, alone)
  assert.ok(new Set(alone).size > 6)
})

const person = z.object({
  name: z.string().max(12),
  age: z.int().min(0).max(150),
  tags: z.array(z.enum(['a', 'b'])),
})
const schema = z.toJSONSchema(person) as Record<string, unknown>

test('JSON by schema and any JSON object: valid each time, in company, within the tokens', async () => {
  await Promise.all(
    Array.from({ length: 16 }, async (_, seed) => {
      const format = { type: 'json_schema', json_schema: { name: 'person', strict: true, schema } } as const
      const answer = await client.chat.completions.create({
        model,
        messages,
        seed,
        temperature: 1.5,
        max_tokens: 45 + seed,
        response_format: seed % 4 === 0 ? { type: 'json_object' } : format,
      })
      const [choice] = answer.choices
      const value: unknown = JSON.parse(choice!.message.content!)
      assert.equal(choice!.finish_reason, 'stop')
      assert.ok(answer.usage!.completion_tokens <= 45 + seed)
      if (seed % 4 !== 0) person.parse(value)
    }),
  )
})

test('schemas that cannot be kept to are refused by name', async () => {
  const ask = (given: object, most = 50): Promise<unknown> =>
    client.chat.completions.create({
      model,
      messages,
      max_tokens: most,
      response_format: {
        type: 'json_schema',
        json_schema: { name: 'x', schema: given as Record<string, unknown> },
      },
    })
  await assert.rejects(ask({ type: 'string', pattern: 'a' }), (error: unknown) => {
    assert.ok(error instanceof OpenAI.BadRequestError)
    assert.equal(error.code, 'unsupported_schema')
    assert.equal(error.param, 'response_format.json_schema.schema.pattern')
    return true
  })
  await assert.rejects(ask(schema, 5), /takes at least/)
})

const tools = [
  { type: 'function', function: { name: 'weather', parameters: schema } },
  { type: 'function', function: { name: 'time' } },
] as OpenAI.ChatCompletionFunctionTool[]

test('a call that must be made is made, with valid arguments', async () => {
  const named = await client.chat.completions.create({
    model,
    messages,
    tools,
    tool_choice: { type: 'function', function: { name: 'weather' } },
    max_tokens: 100,
    seed: 3,
  })
  const [choice] = named.choices
  assert.equal(choice!.finish_reason, 'tool_calls')
  const call = choice!.message.tool_calls![0] as OpenAI.ChatCompletionMessageFunctionToolCall
  assert.equal(call.function.name, 'weather')
  person.parse(JSON.parse(call.function.arguments))
  const stream = client.chat.completions.stream({
    model,
    messages,
    tools,
    tool_choice: 'required',
    max_tokens: 100,
    seed: 3,
  })
  const final = await stream.finalChatCompletion()
  assert.equal(final.choices[0]!.finish_reason, 'tool_calls')
  const [first] = final.choices[0]!.message.tool_calls!
  assert.ok(first?.type === 'function' && ['weather', 'time'].includes(first.function.name))
  await assert.rejects(client.chat.completions.create({ model, messages, tools }), /no calls of tools/)
})

test('responses: events in order, and the same answer whole', async () => {
  const request = {
    model,
    input: 'Say something',
    instructions: 'Be brief.',
    max_output_tokens: 20,
    temperature: 0,
  } as const
  const whole = await client.responses.create(request)
  assert.equal(whole.status, 'incomplete')
  assert.equal(whole.incomplete_details!.reason, 'max_output_tokens')
  const types: string[] = []
  let text = ''
  for await (const event of await client.responses.create({ ...request, stream: true })) {
    assert.equal(event.sequence_number, types.length)
    types.push(event.type)
    if (event.type === 'response.output_text.delta') text += event.delta
    if (event.type === 'response.incomplete') assert.equal(event.response.usage!.output_tokens, 20)
  }
  assert.equal(text, whole.output_text)
  assert.deepEqual(
    types.filter((type, i) => type !== types[i - 1]),
    [
      'response.created',
      'response.in_progress',
      'response.output_item.added',
      'response.content_part.added',
      'response.output_text.delta',
      'response.output_text.done',
      'response.content_part.done',
      'response.output_item.done',
      'response.incomplete',
    ],
  )
  const parsed = await client.responses.create({
    ...request,
    max_output_tokens: 60,
    text: { format: { type: 'json_schema', name: 'person', schema } },
  })
  assert.equal(parsed.status, 'completed')
  person.parse(JSON.parse(parsed.output_text))
  const called = await client.responses.create({
    ...request,
    max_output_tokens: 100,
    tools: [{ type: 'function', name: 'weather', parameters: schema, strict: true }],
    tool_choice: 'required',
  })
  const [item] = called.output
  assert.ok(item?.type === 'function_call')
  person.parse(JSON.parse(item.arguments))
  await assert.rejects(
    client.responses.create({ ...request, previous_response_id: 'resp_1' }),
    /not supported/,
  )
})

test('embeddings have length 1, in both encodings', async () => {
  const { data, usage } = await client.embeddings.create({
    model,
    input: ['one text', 'another', 'one text'],
  })
  const [one, other, again] = data.map(({ embedding }) => embedding)
  assert.equal(one!.length, smallModel.width)
  assert.ok(Math.abs(Math.hypot(...one!) - 1) < 1e-6)
  assert.deepEqual(one, again)
  assert.notDeepEqual(one, other)
  assert.equal(usage.prompt_tokens, 23)
  const floats = await client.embeddings.create({ model, input: 'one text', encoding_format: 'float' })
  assert.deepEqual(floats.data[0]!.embedding, one)
})

test('a client that goes away stops its answer at once and frees its place', async () => {
  const controller = new AbortController()
  const stream = await client.completions.create(
    { model, prompt: 'Go on', max_tokens: 400, stream: true },
    { signal: controller.signal },
  )
  let pieces = 0
  await assert.rejects(async () => {
    for await (const piece of stream) if (piece && ++pieces === 3) controller.abort()
    throw new DOMException('ended', 'AbortError')
  })
  while (engine.scheduler.running > 0) await new Promise((resolve) => setTimeout(resolve, 5))
  const turns = engine.scheduler.turns
  await new Promise((resolve) => setTimeout(resolve, 50))
  assert.equal(engine.scheduler.turns, turns, 'nothing runs on')
  assert.equal(engine.scheduler.pool.used, 0)
  const gone = new AbortController()
  const pending = client.completions.create(
    { model, prompt: 'Go on', max_tokens: 400 },
    { signal: gone.signal },
  )
  while (engine.scheduler.running === 0) await new Promise((resolve) => setTimeout(resolve, 1))
  gone.abort()
  await assert.rejects(pending)
  while (engine.scheduler.running > 0) await new Promise((resolve) => setTimeout(resolve, 5))
  const metrics = await (await fetch(`${server.url}/metrics`)).text()
  assert.match(metrics, /anneal_answers_total\{model="random",outcome="aborted"\} 2/)
})

test('an abort counts within one token', async () => {
  const controller = new AbortController()
  const [answer] = engine.generate({
    prompt: [1, 2, 3],
    maxTokens: 300,
    sampling: {
      temperature: 1,
      topP: 1,
      topK: 0,
      seed: 1,
      frequencyPenalty: 0,
      presencePenalty: 0,
      logitBias: new Map(),
    },
    signal: controller.signal,
  })
  let seen = 0
  await assert.rejects(async () => {
    for await (const token of answer!) if (token && ++seen === 5) controller.abort(new Error('enough'))
  }, /enough/)
  assert.ok(answer!.drawn <= 6, `${answer!.drawn} tokens`)
})

test('wrong requests are told what is wrong with them', async () => {
  const post = async (
    body: string,
    path = '/v1/chat/completions',
  ): Promise<[number, Record<string, unknown>]> => {
    const headers = { 'content-type': 'application/json' }
    const response = await fetch(server.url + path, { method: 'POST', body, headers })
    return [response.status, ((await response.json()) as { error: Record<string, unknown> }).error]
  }
  const [status, error] = await post('{"model": "random", "messages": [')
  assert.deepEqual([status, error['code'], error['type']], [400, 'invalid_json', 'invalid_request_error'])
  for (const garbage of [
    '',
    'null',
    '[]',
    '"x"',
    '{"a":',
    '['.repeat(100_000),
    '{"__proto__": {"model": 1}}',
    '\0',
  ]) {
    const [refused, reason] = await post(garbage)
    assert.deepEqual([refused, reason['type']], [400, 'invalid_request_error'], garbage.slice(0, 20))
  }
  const [, role] = await post(JSON.stringify({ model, messages: [{ role: 'king', content: '' }] }))
  assert.equal(role['param'], 'messages[0].role')
  const [, hot] = await post(JSON.stringify({ model, messages, temperature: 3 }))
  assert.equal(hot['param'], 'temperature')
  const [, long] = await post(JSON.stringify({ model, prompt: 'x'.repeat(1200) }), '/v1/completions')
  assert.equal(long['code'], 'context_length_exceeded')
  const [nowhere, url] = await post('{}', '/v1/nothing')
  assert.deepEqual([nowhere, url['code']], [404, 'unknown_url'])
})

test('new weights answer after the texts under way, which the old ones end', async () => {
  const request = { model, prompt: 'Which?', temperature: 0, max_tokens: 60 } as const
  const before = await client.completions.create(request)
  const underWay = client.completions.create(request)
  while (engine.scheduler.running === 0) await new Promise((resolve) => setTimeout(resolve, 1))
  const exchanged = engine.load('seed-2', drawWeights(smallModel, 2))
  const after = client.completions.create(request)
  assert.equal((await underWay).choices[0]!.text, before.choices[0]!.text)
  await exchanged
  assert.notEqual((await after).choices[0]!.text, before.choices[0]!.text)
  assert.equal((await client.completions.create(request)).system_fingerprint, 'seed-2')
  const health = (await (await fetch(`${server.url}/healthz`)).json()) as { models: { version: string }[] }
  assert.equal(health.models[0]!.version, 'seed-2')
})

test('the plain dialogue is what a tokenizer without marks gets', () => {
  assert.equal(templateFor(engine.served.tokenizer).name, 'plain')
})
