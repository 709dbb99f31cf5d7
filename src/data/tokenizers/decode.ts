/**
 * From token bytes to text, all at once or one token at a time. The subtle thing is the byte order mark: decoders drop
 * a leading U+FEFF unless told not to, which would break the round trip.
 */
import { failure } from '../../errors.ts'
import type { UserError } from '../../errors.ts'
import type { Tokenizer } from './tokenizer.ts'

/** The text spelled by the joined bytes of `ids`; bytes that spell no character become U+FFFD. */
export function decodeTokens(ids: ArrayLike<number>, bytesOf: (id: number) => Uint8Array): string {
  const decoder = new TextDecoder('utf-8', { ignoreBOM: true })
  const parts = Array.from(ids, bytesOf)
  return decoder.decode(Buffer.concat(parts))
}

/** Turns ids into text as they arrive, holding back the bytes of a character that is not complete yet. */
export interface StreamDecoder {
  /** The text that became certain with this token, often empty within a multi-byte character. */
  push(id: number): string
  /** What was held back, as U+FFFD: call it once, at the end. */
  flush(): string
}

/**
 * A decoder for one stream of ids. The pieces it returns, joined, equal `tokenizer.decode` of all ids.
 *
 * @example
 * const decoder = streamDecoder(tokenizer)
 * for await (const id of ids) process.stdout.write(decoder.push(id))
 * process.stdout.write(decoder.flush())
 */
export function streamDecoder(tokenizer: Pick<Tokenizer, 'bytesOf'>): StreamDecoder {
  const decoder = new TextDecoder('utf-8', { ignoreBOM: true })
  return {
    push: (id) => decoder.decode(tokenizer.bytesOf(id), { stream: true }),
    flush: () => decoder.decode(),
  }
}

/** The error for an id that no token has. */
export function unknownId(id: number, vocabSize: number): UserError {
  return failure({
    where: 'decode',
    got: `token id ${id}`,
    expected: `an integer from 0 to ${vocabSize - 1}`,
    fix: 'use the tokenizer the model was trained with',
  })
}
