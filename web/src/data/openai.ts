/** Streams from the server's OpenAI routes: pieces of text, each with the likeliest alternatives where asked for. */
import { ApiError } from './api.ts'
import { events } from './events.ts'
import { fetchWithKey } from './key.ts'

export interface Model {
  readonly id: string
}

export interface Token {
  readonly text: string
  /** Of this token; undefined when not told. */
  readonly probability: number | undefined
  readonly alternatives: readonly { readonly text: string; readonly probability: number }[]
}

export interface Ask {
  readonly model: string
  readonly mode: 'chat' | 'completion'
  readonly prompt: string
  readonly temperature: number
  readonly topP: number
  readonly maxTokens: number
  readonly seed: number | undefined
  readonly probabilities: boolean
}

export interface Usage {
  readonly completion_tokens?: number
}

interface ChatChunk {
  readonly choices?: readonly {
    readonly delta?: { readonly content?: string | null }
    readonly text?: string
    readonly logprobs?: ChatLogprobs | CompletionLogprobs | null
  }[]
  readonly usage?: Usage | null
  readonly error?: { readonly message: string }
}

interface ChatLogprobs {
  readonly content?: readonly {
    readonly token: string
    readonly logprob: number
    readonly top_logprobs?: readonly { readonly token: string; readonly logprob: number }[]
  }[]
}

interface CompletionLogprobs {
  readonly tokens?: readonly string[]
  readonly token_logprobs?: readonly (number | null)[]
  readonly top_logprobs?: readonly (Readonly<Record<string, number>> | null)[] | null
}

/** Asks, and hands over what comes as it comes. */
export async function stream(
  ask: Ask,
  onTokens: (tokens: readonly Token[]) => void,
  signal: AbortSignal,
): Promise<void> {
  const { model, mode, prompt, temperature, topP, maxTokens, seed, probabilities } = ask
  const common = { model, temperature, top_p: topP, stream: true, ...(seed === undefined ? {} : { seed }) }
  const body =
    mode === 'chat'
      ? {
          ...common,
          messages: [{ role: 'user', content: prompt }],
          max_completion_tokens: maxTokens,
          ...(probabilities ? { logprobs: true, top_logprobs: 5 } : {}),
        }
      : { ...common, prompt, max_tokens: maxTokens, ...(probabilities ? { logprobs: 5 } : {}) }
  const response = await fetchWithKey(mode === 'chat' ? '/v1/chat/completions' : '/v1/completions', {
    method: 'POST',
    headers: { 'content-type': 'application/json' },
    body: JSON.stringify(body),
    signal,
  })
  if (!response.ok || !response.body) {
    const reply = (await response.json().catch(() => ({}))) as {
      readonly error?: { readonly message: string }
    }
    throw new ApiError(response.status, {
      message: reply.error?.message ?? `the server answered ${response.status}`,
    })
  }
  for await (const { data } of events(response.body)) {
    if (data === '[DONE]') return
    const chunk = JSON.parse(data) as ChatChunk
    if (chunk.error) throw new ApiError(500, chunk.error)
    const [choice] = chunk.choices ?? []
    if (choice === undefined) continue
    const tokens = tokensOf(choice.logprobs)
    const text = choice.delta?.content ?? choice.text ?? ''
    if (tokens.length > 0) onTokens(tokens)
    else if (text !== '') onTokens([{ text, probability: undefined, alternatives: [] }])
  }
}

function tokensOf(logprobs: ChatLogprobs | CompletionLogprobs | null | undefined): readonly Token[] {
  if (!logprobs) return []
  if ('content' in logprobs && logprobs.content) {
    return logprobs.content.map(({ token, logprob, top_logprobs = [] }) => ({
      text: token,
      probability: Math.exp(logprob),
      alternatives: top_logprobs.map((other) => ({
        text: other.token,
        probability: Math.exp(other.logprob),
      })),
    }))
  }
  const { tokens = [], token_logprobs: own = [], top_logprobs: others } = logprobs as CompletionLogprobs
  return tokens.map((text, i): Token => {
    const logprob = own[i]
    return {
      text,
      probability: typeof logprob === 'number' ? Math.exp(logprob) : undefined,
      alternatives: Object.entries(others?.[i] ?? {})
        .map(([token, value]) => ({ text: token, probability: Math.exp(value) }))
        .toSorted((a, b) => b.probability - a.probability),
    }
  })
}
