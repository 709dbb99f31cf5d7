/**
 * One token a UTF-8 byte: 256 ids, no vocabulary to learn, any text at all. Lone surrogates, which UTF-8 cannot hold,
 * become U+FFFD as everywhere on the web.
 */
import { decodeTokens, unknownId } from './decode.ts'
import type { Tokenizer } from './tokenizer.ts'

const VOCAB = 256

/** The tokenizer whose ids are UTF-8 byte values. */
export function bytesTokenizer(): Tokenizer {
  const encoder = new TextEncoder()
  const bytesOf = (id: number): Uint8Array => {
    if (!(Number.isInteger(id) && id >= 0 && id < VOCAB)) throw unknownId(id, VOCAB)
    return Uint8Array.of(id)
  }
  return {
    kind: 'bytes',
    vocabSize: VOCAB,
    encode: (text) => Int32Array.from(encoder.encode(text)),
    decode: (ids) => decodeTokens(ids, bytesOf),
    bytesOf,
    toJSON: () => ({ kind: 'bytes' }),
  }
}
