/** `POST /v1/embeddings`: where texts lie; see `Engine.embed` for what that is. */
import { Hono } from 'hono'
import { z } from 'zod'
import { find, type Engines } from '../engines.ts'
import { invalid } from '../error.ts'
import { bodyOf, refuse } from '../parameters.ts'
import { abortWith } from '../usage.ts'

const ids = z.array(z.int().min(0))
const body = z.looseObject({
  model: z.string(),
  input: z.union([z.string(), z.array(z.string()).min(1), ids.min(1), z.array(ids.min(1)).min(1)]),
  encoding_format: z.enum(['float', 'base64']).nullable().optional(),
})

const mostInputs = 256

export const embeddings = (engines: Engines): Hono =>
  new Hono().post('/', async (c) => {
    const given = await bodyOf(c, body)
    refuse(given, { dimensions: [] })
    const engine = await find(engines, given.model)
    const { input } = given
    const inputs = (typeof input === 'string' ? [input] : typeof input[0] === 'number' ? [input] : input) as (
      | string
      | number[]
    )[]
    if (inputs.length > mostInputs) throw invalid('input', `more than ${mostInputs} texts`)
    const { vocab, context } = engine.served.model
    const prompts = inputs.map((one, i) => {
      const at = inputs.length > 1 ? `input[${i}]` : 'input'
      const tokens = typeof one === 'string' ? engine.encodeText(one, at) : one
      if (tokens.length === 0 || tokens.length > context)
        throw invalid(at, `${tokens.length} tokens; this model takes 1 to ${context}`)
      if (tokens.some((id) => id >= vocab)) throw invalid(at, `a token outside of the vocabulary of ${vocab}`)
      return tokens
    })
    const { signal } = abortWith(c)
    const vectors = await Promise.all(prompts.map((prompt) => engine.embed(prompt, signal)))
    const encode = (vector: Float32Array): string | number[] =>
      given.encoding_format === 'base64'
        ? Buffer.from(vector.buffer, vector.byteOffset, vector.byteLength).toString('base64')
        : Array.from(vector)
    const tokens = prompts.reduce((sum, prompt) => sum + prompt.length, 0)
    return c.json({
      object: 'list',
      data: vectors.map((vector, index) => ({ object: 'embedding', index, embedding: encode(vector) })),
      model: given.model,
      usage: { prompt_tokens: tokens, total_tokens: tokens },
    })
  })
