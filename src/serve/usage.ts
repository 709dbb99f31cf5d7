/** Parts of answers that several routes have in common: usage, log probabilities, how to give up. */
import type { Context } from 'hono'
import type { Engine } from './engine.ts'
import type { Generation, Token } from './generation.ts'

interface Totals {
  readonly prompt: number
  readonly cached: number
  readonly written: number
}

/** Tokens of answers to one prompt: the prompt counts once. */
export const totalsOf = (answers: readonly Generation[]): Totals => ({
  prompt: answers[0]?.promptTokens ?? 0,
  cached: answers[0]?.cachedTokens ?? 0,
  written: answers.reduce((sum, { drawn }) => sum + drawn, 0),
})

export const usageOf = ({ prompt, cached, written }: Totals): object => ({
  prompt_tokens: prompt,
  completion_tokens: written,
  total_tokens: prompt + written,
  prompt_tokens_details: { cached_tokens: cached },
})

const nameOf = (engine: Engine, id: number): { token: string; bytes: number[] } => {
  const bytes = engine.tokenizer.bytesOf(id)
  return { token: new TextDecoder().decode(bytes), bytes: [...bytes] }
}

/** Log probabilities in the form of chat answers. Minus infinity, which JSON lacks, is a very small number. */
export const logprobsOf = (engine: Engine, tokens: readonly Token[]): object[] =>
  tokens.map(({ id, logprob = 0, top = [] }) => ({
    ...nameOf(engine, id),
    logprob: Math.max(logprob, -9999),
    top_logprobs: top.map((other) => ({
      ...nameOf(engine, other.id),
      logprob: Math.max(other.logprob, -9999),
    })),
  }))

/** Aborts when the client goes away. */
export function abortWith(c: Context): AbortController {
  const controller = new AbortController()
  const { signal } = c.req.raw
  if (signal.aborted) controller.abort(signal.reason)
  signal.addEventListener('abort', () => controller.abort(signal.reason), { once: true })
  return controller
}

export const now = (): number => Math.floor(Date.now() / 1000)

/** Says which weights answered. */
export const fingerprint = ({ version }: Engine): string | null => (version === '' ? null : version)
