/** `POST /v1/completions`: text, or token ids, that goes on. */
import { Hono } from 'hono'
import { randomUUID } from 'node:crypto'
import { z } from 'zod'
import { merged } from '../chat.ts'
import type { Engine } from '../engine.ts'
import { find, type Engines } from '../engines.ts'
import { invalid } from '../error.ts'
import type { Generation, Token } from '../generation.ts'
import { bodyOf, count, refuse, samplingOf, stopsOf, writingFields } from '../parameters.ts'
import { eventStream, type StreamEvent } from '../stream.ts'
import { abortWith, fingerprint, now, totalsOf, usageOf } from '../usage.ts'

const ids = z.array(z.int().min(0))
const body = z.looseObject({
  ...writingFields,
  prompt: z.union([z.string(), z.array(z.string()).min(1), ids.min(1), z.array(ids.min(1)).min(1)]),
  max_tokens: count(1, 1e9),
  logprobs: count(0, 5),
  echo: z.boolean().nullable().optional(),
})
type Body = z.infer<typeof body>

const mostPrompts = 16

export const completions = (engines: Engines): Hono =>
  new Hono().post('/', async (c) => {
    const given = await bodyOf(c, body)
    refuse(given, { echo: [false], suffix: [''], best_of: [1, given.n ?? 1] })
    const engine = await find(engines, given.model)
    const abort = abortWith(c)
    const prompts = promptsOf(engine, given.prompt)
    const answers = prompts.map((prompt) =>
      engine.generate(
        {
          prompt,
          maxTokens: Math.min(given.max_tokens ?? 16, engine.room(prompt, 'prompt')),
          sampling: samplingOf(given),
          stop: stopsOf(given),
          stopIds: engine.served.stopIds,
          top: given.logprobs ?? undefined,
          signal: abort.signal,
        },
        given.n ?? 1,
      ),
    )
    const head = {
      id: `cmpl-${randomUUID()}`,
      object: 'text_completion',
      created: now(),
      model: given.model,
      system_fingerprint: fingerprint(engine),
    }
    return given.stream
      ? eventStream(chunks(engine, answers, head, given), abort)
      : c.json(await whole(engine, answers, head, given))
  })

function promptsOf(engine: Engine, prompt: Body['prompt']): number[][] {
  const lists =
    typeof prompt === 'string' ? [prompt] : typeof prompt[0] === 'number' ? [prompt as number[]] : prompt
  if (lists.length > mostPrompts) throw invalid('prompt', `more than ${mostPrompts} prompts`)
  return (lists as readonly (string | number[])[]).map((one) => {
    if (typeof one === 'string') return engine.encodeText(one, 'prompt')
    const { vocab } = engine.served.model
    const bad = one.find((id) => id >= vocab)
    if (bad !== undefined) throw invalid('prompt', `token ${bad}, of a vocabulary of ${vocab}`)
    return one
  })
}

/** The older form of log probabilities; offsets are in the text of the answer. */
function logprobsOf(engine: Engine, tokens: readonly Token[], start: number): object {
  let offset = start
  const nameOf = (id: number): string => new TextDecoder().decode(engine.tokenizer.bytesOf(id))
  return {
    tokens: tokens.map(({ id }) => nameOf(id)),
    token_logprobs: tokens.map(({ logprob }) => logprob),
    top_logprobs: tokens.map(({ top = [] }) =>
      Object.fromEntries(top.map(({ id, logprob }) => [nameOf(id), logprob])),
    ),
    text_offset: tokens.map(({ text }) => {
      const at = offset
      offset += text.length
      return at
    }),
  }
}

const totals = (answers: readonly (readonly Generation[])[]): object => {
  const each = answers.map(totalsOf)
  const sum = (key: 'prompt' | 'cached' | 'written'): number => each.reduce((all, one) => all + one[key], 0)
  return usageOf({ prompt: sum('prompt'), cached: sum('cached'), written: sum('written') })
}

async function whole(
  engine: Engine,
  answers: readonly (readonly Generation[])[],
  head: object,
  { logprobs }: Body,
): Promise<object> {
  const choices = await Promise.all(
    answers.flat().map(async (generation, index) => {
      const tokens: Token[] = []
      for await (const token of generation) tokens.push(token)
      return {
        index,
        text: tokens.map(({ text }) => text).join('') + generation.rest,
        logprobs: typeof logprobs === 'number' ? logprobsOf(engine, tokens, 0) : null,
        finish_reason: generation.finish,
      }
    }),
  )
  return { ...head, choices, usage: totals(answers) }
}

async function* chunks(
  engine: Engine,
  answers: readonly (readonly Generation[])[],
  head: object,
  { logprobs, stream_options: options }: Body,
): AsyncGenerator<StreamEvent, void> {
  const withUsage = options?.include_usage === true
  const chunk = (choices: readonly object[], usage: object | null = null): StreamEvent => ({
    data: { ...head, choices, ...(withUsage ? { usage } : {}) },
  })
  const all = answers.flat()
  const offsets = all.map(() => 0)
  const ending = async function* (generation: Generation): AsyncGenerator<Token | undefined, void> {
    yield* generation
    yield undefined
  }
  for await (const [index, token] of merged(all.map(ending))) {
    const generation = all[index]!
    if (!token) {
      yield chunk([{ index, text: generation.rest, logprobs: null, finish_reason: generation.finish }])
      continue
    }
    const wants = typeof logprobs === 'number'
    if (token.text === '' && !wants) continue
    const told = wants ? logprobsOf(engine, [token], offsets[index]!) : null
    offsets[index]! += token.text.length
    yield chunk([{ index, text: token.text, logprobs: told, finish_reason: null }])
  }
  if (withUsage) yield chunk([], totals(answers))
  yield { data: '[DONE]' }
}
