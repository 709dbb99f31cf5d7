/**
 * Drawing the next token from logits. Draws are addressed by (seed, index), so the same seed gives the same text. Tokens
 * are gone through from the likeliest down, ties by id; a heap gives them one by one, since of a vocabulary of 50,000 a
 * draw rarely looks at more than a few.
 */
import { philoxUniform } from '../compiler/index.ts'

export interface Choice {
  /** 0: always the likeliest token. */
  readonly temperature: number
  /** Choose among this many likeliest tokens; 0: all. */
  readonly topK: number
  readonly seed: number
}

/** The token of draw `index`. */
export function choose(
  logits: ArrayLike<number>,
  { temperature, topK, seed }: Choice,
  index: number,
): number {
  const best = likeliest(logits)
  if (temperature === 0) return best
  const weight = (id: number): number => Math.exp((logits[id]! - logits[best]!) / temperature)
  const few = topK > 0 ? [...descending(logits).take(topK)] : undefined
  let total = 0
  if (few) for (const id of few) total += weight(id)
  else for (let id = 0; id < logits.length; id++) total += weight(id)
  let left = philoxUniform({ seed, step: index, stream: 0x5a, salt: 0 }, 0) * total
  let last = best
  for (const id of few ?? descending(logits)) {
    last = id
    left -= weight(id)
    if (left < 0) break
  }
  return last
}

/** The first of the largest values. */
export function likeliest(logits: ArrayLike<number>): number {
  let best = 0
  for (let id = 1; id < logits.length; id++) if (logits[id]! > logits[best]!) best = id
  return best
}

/** All ids from the largest value down, equal ones in order: a binary heap, built at once and emptied on demand. */
export function* descending(logits: ArrayLike<number>): Generator<number, void> {
  const heap = Int32Array.from(logits, (_, id) => id)
  let size = heap.length
  const before = (a: number, b: number): boolean =>
    logits[a]! > logits[b]! || (logits[a] === logits[b] && a < b)
  const sink = (from: number): void => {
    const id = heap[from]!
    let at = from
    for (;;) {
      let child = 2 * at + 1
      if (child >= size) break
      if (child + 1 < size && before(heap[child + 1]!, heap[child]!)) child++
      if (!before(heap[child]!, id)) break
      heap[at] = heap[child]!
      at = child
    }
    heap[at] = id
  }
  for (let at = Math.floor(size / 2) - 1; at >= 0; at--) sink(at)
  while (size > 0) {
    yield heap[0]!
    heap[0] = heap[--size]!
    sink(0)
  }
}
