/**
 * Which windows of the token stream a step trains on, as a pure function of (seed, step): nothing to checkpoint, and a
 * resumed, replayed or distributed run sees exactly the windows of an unbroken one.
 * The subtle thing: a shuffle of n items without storing n numbers. A keyed Feistel network permutes a power-of-four range
 * and "cycle walking" steps over what lies outside n (Black and Rogaway, "Ciphers with Arbitrary Finite Domains", 2002).
 */
import { InternalError, failure } from '../errors.ts'
import type { UserError } from '../errors.ts'

/** The murmur3 finaliser: every input bit changes every output bit. Takes and gives 32-bit integers. */
function mix(value: number): number {
  let x = value | 0
  x = Math.imul(x ^ (x >>> 16), 0x85ebca6b)
  x = Math.imul(x ^ (x >>> 13), 0xc2b2ae35)
  return (x ^ (x >>> 16)) >>> 0
}

/** 32 bits from a list of non-negative integers below 2^53, each of which matters. */
function hash(...values: readonly number[]): number {
  return values.reduce((state, value) => mix(mix(state + value) ^ (value / 2 ** 32) ^ 0x9e3779b9), 0x2545f491)
}

const ROUNDS = 6

/**
 * The place of item `i` in the shuffled order of `n` items: for fixed n, seed and epoch a permutation of 0 to n - 1.
 *
 * @param n up to 2^52.
 */
export function permuteIndex(i: number, n: number, seed: number, epoch: number): number {
  if (!(Number.isInteger(i) && i >= 0 && i < n && n <= 2 ** 52))
    throw new InternalError(`permuteIndex(${i}, ${n})`)
  // The smallest power of two whose square holds n: below 4n, so few steps fall outside.
  let half = 2
  while (half * half < n) half *= 2
  let index = i
  do {
    let left = Math.floor(index / half)
    let right = index % half
    for (let round = 0; round < ROUNDS; round++) {
      const mixed = (left ^ hash(seed, epoch, round, right)) & (half - 1)
      left = right
      right = mixed
    }
    index = left * half + right
  } while (index >= n)
  return index
}

export interface BatchQuery {
  /** Tokens in the stream. */
  readonly tokens: number
  /** Tokens a window predicts; a window reads context + 1 tokens from its start. */
  readonly context: number
  /** Windows a step. */
  readonly batch: number
  readonly seed: number
  /** From 0. */
  readonly step: number
}

/**
 * Where the windows of one step start. An epoch is every window once, in shuffled order; it begins at its own random
 * offset below `context`, so the boundaries between windows move from epoch to epoch. A batch may span two epochs.
 *
 * @throws UserError when the stream is shorter than one window.
 */
export function batchStarts({ tokens, context, batch, seed, step }: BatchQuery): number[] {
  const perEpoch = windowsPerEpoch(tokens, context)
  const offsets = Math.min(context, tokens - perEpoch * context)
  return Array.from({ length: batch }, (_, row) => {
    const index = step * batch + row
    const epoch = Math.floor(index / perEpoch)
    // Round numbers 0 to 5 belong to the shuffle; ROUNDS draws the offset.
    const offset = hash(seed, epoch, ROUNDS) % offsets
    return offset + permuteIndex(index % perEpoch, perEpoch, seed, epoch) * context
  })
}

/**
 * Windows in an epoch, the same for every offset below `context` (so up to one window at the end is left to other epochs).
 *
 * @throws UserError when the stream is shorter than one window.
 */
export function windowsPerEpoch(tokens: number, context: number): number {
  if (tokens <= context) throw tooShort(tokens, context)
  return Math.max(1, Math.floor((tokens - context) / context))
}

export interface EvaluationBatch {
  /** Window starts, one a row. */
  readonly starts: readonly number[]
  /** [batch, context] row-major: 1 where the prediction counts, 0 where it repeats another or pads the batch. */
  readonly weights: Float32Array<ArrayBuffer>
}

/**
 * Batches that predict every token after the first exactly once. The last window is shifted back to fit, its repeated
 * predictions weighing 0; the last batch is filled up with rows that weigh 0. The weights of all batches sum to tokens - 1.
 *
 * @throws UserError when the stream is shorter than one window.
 */
export function* evaluationWindows({
  tokens,
  context,
  batch,
}: Pick<BatchQuery, 'tokens' | 'context' | 'batch'>): Generator<EvaluationBatch, void, void> {
  if (tokens <= context) throw tooShort(tokens, context)
  const predictions = tokens - 1
  const windows = Math.ceil(predictions / context)
  for (let first = 0; first < windows; first += batch) {
    const weights = new Float32Array(batch * context)
    const starts = Array.from({ length: batch }, (_, row) => {
      const window = first + row
      if (window >= windows) return 0
      const wanted = window * context
      const start = Math.min(wanted, predictions - context)
      weights.fill(1, row * context + wanted - start, (row + 1) * context)
      return start
    })
    yield { starts, weights }
  }
}

function tooShort(tokens: number, context: number): UserError {
  return failure({
    where: 'training or validation tokens',
    got: `${tokens} tokens`,
    expected: `at least ${context + 1}, one window of context ${context}`,
    fix: 'add text or choose a smaller context',
  })
}
