/**
 * The two conventions of byte-level BPE, from the GPT-2 release ("Language Models are Unsupervised Multitask Learners",
 * 2019): every byte has a printable character standing for it in vocabulary files, and text is cut into pieces by a
 * regular expression before any merging, so no token crosses from a word into the next.
 */
import { failure } from '../../errors.ts'

/** Byte value -> the printable character that stands for it: itself where printable, else U+0100 upwards in order. */
export const BYTE_CHARACTERS: readonly string[] = byteCharacters()

function byteCharacters(): string[] {
  let stranded = 0
  return Array.from({ length: 256 }, (_, byte) => {
    const printable = (byte > 0x20 && byte < 0x7f) || (byte > 0xa0 && byte !== 0xad)
    return String.fromCharCode(printable ? byte : 0x100 + stranded++)
  })
}

const BYTE_OF_CHARACTER: ReadonlyMap<string, number> = new Map(BYTE_CHARACTERS.map((c, byte) => [c, byte]))

/** The bytes a vocabulary entry stands for; an entry not written in byte characters stands for its own UTF-8. */
export function tokenBytes(token: string): Uint8Array {
  const bytes = Array.from(token, (c) => BYTE_OF_CHARACTER.get(c))
  return bytes.includes(undefined) ? new TextEncoder().encode(token) : Uint8Array.from(bytes as number[])
}

/** How GPT-2 cuts text: contractions, then letters, digits and other signs each with one leading space, then spaces. */
export const GPT2_SPLIT = String.raw`'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+`

/**
 * Compiles a split expression written for Rust or Oniguruma. JavaScript's `\s` differs from Unicode's White_Space in two
 * characters (it has U+FEFF and lacks U+0085), so it is spelled out.
 *
 * @param where named in the error, e.g. `tokenizer.json: pre_tokenizer`.
 * @throws UserError when JavaScript has no such expression.
 */
export function compileSplit(source: string, where: string): RegExp {
  const whiteSpace: Readonly<Record<string, string>> = {
    s: String.raw`\p{White_Space}`,
    S: String.raw`\P{White_Space}`,
  }
  const translated = source.replace(/\\(.)/gs, (escape, letter: string) => whiteSpace[letter] ?? escape)
  try {
    return new RegExp(translated, 'gu')
  } catch (error) {
    throw failure({
      where,
      got: `a split expression JavaScript cannot run (${(error as Error).message})`,
      expected: 'a regular expression without possessive quantifiers, \\G or class intersections',
      fix: 'use a tokenizer whose split expression is one of the usual (GPT-2, Llama 3, Qwen2)',
    })
  }
}

/**
 * Calls `visit` with the pieces of `text` in order: matches of the first pattern and the gaps between them, each cut
 * again by the next pattern. The pieces joined are the text.
 *
 * @param patterns from `compileSplit`; each keeps its own place while it runs, so one list serves one caller at a time.
 */
export function forEachPiece(
  text: string,
  patterns: readonly RegExp[],
  visit: (piece: string) => void,
  level = 0,
): void {
  const pattern = patterns[level]
  if (!pattern) {
    if (text !== '') visit(text)
    return
  }
  let end = 0
  pattern.lastIndex = 0
  for (let match = pattern.exec(text); match; match = pattern.exec(text)) {
    const piece = match[0]
    if (piece === '') {
      // By a whole character: from inside a surrogate pair the next search would step back and never end.
      pattern.lastIndex += (text.codePointAt(pattern.lastIndex) ?? 0) > 0xffff ? 2 : 1
      continue
    }
    if (match.index > end) forEachPiece(text.slice(end, match.index), patterns, visit, level + 1)
    forEachPiece(piece, patterns, visit, level + 1)
    end = match.index + piece.length
  }
  if (end < text.length) forEachPiece(text.slice(end), patterns, visit, level + 1)
}
