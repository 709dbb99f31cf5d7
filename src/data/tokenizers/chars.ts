/**
 * One token a character (a Unicode code point), with the ids nanoGPT gives: the distinct characters of the training text
 * sorted by code point. Small, readable vocabularies for small texts; a character never seen has no id and is an error,
 * not a silent replacement.
 */
import { failure } from '../../errors.ts'
import type { UserError } from '../../errors.ts'
import { decodeTokens, unknownId } from './decode.ts'
import type { Tokenizer } from './tokenizer.ts'

/** The distinct characters of `texts`, sorted by code point: the vocabulary for `charsTokenizer`. */
export function distinctCharacters(texts: Iterable<string>): readonly string[] {
  const seen = new Set<number>()
  for (const text of texts) {
    for (let i = 0; i < text.length; i++) {
      const point = text.codePointAt(i)!
      if (point > 0xffff) i++
      seen.add(point)
    }
  }
  return [...seen].toSorted((a, b) => a - b).map((point) => String.fromCodePoint(point))
}

/**
 * The tokenizer in which `characters[id]` is the character of an id.
 *
 * @param characters distinct single code points, usually from `distinctCharacters`.
 */
export function charsTokenizer(characters: readonly string[]): Tokenizer {
  const points = characters.map((character) => character.codePointAt(0)!)
  const idOf = new Int32Array(points.reduce((a, b) => Math.max(a, b), 0) + 1).fill(-1)
  points.forEach((point, id) => (idOf[point] = id))
  const encoder = new TextEncoder()
  const bytes = characters.map((character) => encoder.encode(character))
  const bytesOf = (id: number): Uint8Array => {
    const found = bytes[id]
    if (!found) throw unknownId(id, characters.length)
    return found
  }
  return {
    kind: 'chars',
    vocabSize: characters.length,
    encode: (text) => {
      const ids = new Int32Array(text.length)
      let count = 0
      for (let i = 0; i < text.length; i++) {
        const point = text.codePointAt(i)!
        const id = idOf[point] ?? -1
        if (id < 0) throw unknownCharacter(point, i, characters.length)
        ids[count++] = id
        if (point > 0xffff) i++
      }
      return ids.slice(0, count)
    },
    decode: (ids) => decodeTokens(ids, bytesOf),
    bytesOf,
    toJSON: () => ({ kind: 'chars', characters }),
  }
}

function unknownCharacter(point: number, position: number, vocabSize: number): UserError {
  const hex = point.toString(16).toUpperCase().padStart(4, '0')
  return failure({
    where: `text, position ${position}`,
    got: `the character ${JSON.stringify(String.fromCodePoint(point))} (U+${hex})`,
    expected: `one of the ${vocabSize} characters of the training text`,
    fix: 'remove it, or train with tokenizer=bytes or tokenizer=bpe, which accept any text',
  })
}
