/**
 * Drawing a token the way a request asks for: what was written before is held against a token (penalties), biases are
 * added, what a grammar forbids is left out, then temperature, the k likeliest, and the likeliest that together have
 * probability p (Holtzman et al., The Curious Case of Neural Text Degeneration). Draws are addressed by seed and place, so
 * a seed gives the same text streamed or whole, alone or in company.
 */
import { philoxUniform } from '../compiler/index.ts'
import { descending } from '../train/choose.ts'

export interface Sampling {
  /** 0: always the likeliest token. */
  readonly temperature: number
  readonly topP: number
  /** 0: all. */
  readonly topK: number
  readonly seed: number
  /** Taken off a token's logit for each time it was written. */
  readonly frequencyPenalty: number
  /** Taken off once if it was written at all. */
  readonly presencePenalty: number
  readonly logitBias: ReadonlyMap<number, number>
}

export interface TokenProbability {
  readonly id: number
  readonly logprob: number
}

/** How often each token was written so far. */
export type Counts = ReadonlyMap<number, number>

/** Draws token `index` of an answer. `allowed` marks the tokens that may come; there is at least one. */
export function sample(
  logits: Float32Array,
  sampling: Sampling,
  index: number,
  counts: Counts,
  allowed?: Uint8Array,
): number {
  const scores = adjusted(logits, sampling, counts, allowed)
  let best = 0
  for (let id = 1; id < scores.length; id++) if (scores[id]! > scores[best]!) best = id
  const { temperature, topK, topP, seed } = sampling
  if (temperature === 0) return best
  const weight = (id: number): number => Math.exp((scores[id]! - scores[best]!) / temperature)
  const drawn = philoxUniform({ seed, step: index, stream: 0x5e, salt: 0 }, 0)
  const few = topK > 0 && topK < scores.length ? [...descending(scores).take(topK)] : undefined
  let total = 0
  if (few) for (const id of few) total += weight(id)
  else for (let id = 0; id < scores.length; id++) total += weight(id)
  const order = (): Iterable<number> => few ?? descending(scores)
  if (topP < 1) total = nucleus(order(), weight, topP * total)
  let left = drawn * total
  let last = best
  for (const id of order()) {
    last = id
    left -= weight(id)
    if (left < 0) break
  }
  return last
}

/** What the likeliest tokens that reach `wanted` weigh together. */
function nucleus(ids: Iterable<number>, weight: (id: number) => number, wanted: number): number {
  let sum = 0
  for (const id of ids) {
    sum += weight(id)
    if (sum >= wanted) break
  }
  return sum
}

function adjusted(
  logits: Float32Array,
  { frequencyPenalty, presencePenalty, logitBias }: Sampling,
  counts: Counts,
  allowed: Uint8Array | undefined,
): Float32Array {
  const penalised = counts.size > 0 && (frequencyPenalty !== 0 || presencePenalty !== 0)
  if (!penalised && logitBias.size === 0 && !allowed) return logits
  const scores = logits.slice()
  if (penalised) for (const [id, count] of counts) scores[id]! -= count * frequencyPenalty + presencePenalty
  for (const [id, bias] of logitBias) if (id < scores.length) scores[id]! += bias
  if (allowed) for (let id = 0; id < scores.length; id++) if (!allowed[id]) scores[id] = -Infinity
  return scores
}

/** What the model thinks of a token and of the likeliest ones, before anything a request asks for. */
export function probabilities(
  logits: Float32Array,
  id: number,
  count: number,
): { readonly logprob: number; readonly top: readonly TokenProbability[] } {
  let most = -Infinity
  for (const logit of logits) if (logit > most) most = logit
  let total = 0
  for (const logit of logits) total += Math.exp(logit - most)
  const level = most + Math.log(total)
  const logprobOf = (of: number): number => logits[of]! - level
  const top = count > 0 ? [...descending(logits).take(count)] : []
  return { logprob: logprobOf(id), top: top.map((of) => ({ id: of, logprob: logprobOf(of) })) }
}
