/**
 * Byte-level byte-pair encoding (Sennrich et al., "Neural Machine Translation of Rare Words with Subword Units", 2016, on
 * bytes as in GPT-2): text is cut into pieces, a piece starts as its bytes, and the earliest learned merge that applies is
 * done, leftmost first, until none does. huggingface.ts reads the vocabulary, bpe-train.ts learns one.
 * The subtle thing is cost: a heap keeps a piece of n bytes at O(n log n), so a file without a space cannot hang us, and
 * a cache makes the common words free.
 */
import { failure } from '../../errors.ts'
import { createHeap } from '../heap.ts'
import { BYTE_CHARACTERS, forEachPiece, tokenBytes } from './byte-level.ts'
import { decodeTokens, unknownId } from './decode.ts'
import type { HuggingFaceTokenizer } from './huggingface.ts'
import type { Tokenizer } from './tokenizer.ts'

export interface BpeTokenizer extends Tokenizer {
  readonly kind: 'bpe'
  /** Text -> id of the tokens that are matched as a whole before any splitting, such as `<|endoftext|>`. */
  readonly specials: ReadonlyMap<string, number>
  /** Those of them that are no part of a text shown to people; others, such as `<tool_call>`, are only kept whole. */
  readonly silent: ReadonlySet<number>
  /** The id that separates documents, when the vocabulary has one. */
  readonly endOfText: number | undefined
  /** The complete Hugging Face tokenizer.json. */
  toHuggingFace(): HuggingFaceTokenizer
}

/** A merge table and what surrounds it, checked: every id is inside `tokens`, every merge result exists. */
export interface BpeDefinition {
  /** id -> vocabulary entry in byte characters; a hole where the id is unused. */
  readonly tokens: readonly (string | undefined)[]
  /** In order of learning. */
  readonly merges: readonly { readonly left: number; readonly right: number; readonly merged: number }[]
  readonly specials: ReadonlyMap<string, number>
  readonly silent: ReadonlySet<number>
  readonly patterns: readonly RegExp[]
  readonly normalize: (text: string) => string
  /** Take a piece that is itself a vocabulary entry whole, without merging (Llama 3). */
  readonly wholePieces: boolean
  /** Stands for bytes that have no entry; without it they are an error. */
  readonly unknown: number | undefined
  readonly source: HuggingFaceTokenizer
}

/** Pair keys are left * PAIR_BASE + right: exact in a double for any vocabulary below two million. */
export const PAIR_BASE = 2 ** 21
/** Heap keys are rank * POSITION_BASE + position: ordered by rank, then leftmost first, and exact too. */
const POSITION_BASE = 2 ** 31

const CACHE_ENTRIES = 2 ** 16
/** V8 lets a slice of 13 or more characters keep its whole parent text alive; shorter ones are copies, safe to keep. */
const CACHE_CHARACTERS = 12

const END_OF_TEXT = ['<|endoftext|>', '<|end_of_text|>', '</s>'] as const

/** @internal A tokenizer from a checked definition: use `bpeFromHuggingFace` or `trainBpe`. */
export function createBpe(definition: BpeDefinition): BpeTokenizer {
  const { tokens, specials, patterns } = definition
  const encoder = new TextEncoder()
  const special = specialPattern(specials)
  const encodePiece = pieceEncoder(definition)
  const bytes = tokens.map((token, id) =>
    token === undefined ? undefined : specials.get(token) === id ? encoder.encode(token) : tokenBytes(token),
  )
  const bytesOf = (id: number): Uint8Array => {
    const found = bytes[id]
    if (!found) throw unknownId(id, tokens.length)
    return found
  }

  function encode(text: string): Int32Array<ArrayBuffer> {
    const ids = createIdList()
    const plain = (part: string): void =>
      forEachPiece(definition.normalize(part), patterns, (piece) => ids.pushAll(encodePiece(piece)))
    let end = 0
    if (special) {
      for (const match of text.matchAll(special)) {
        plain(text.slice(end, match.index))
        ids.pushAll([specials.get(match[0])!])
        end = match.index + match[0].length
      }
    }
    plain(text.slice(end))
    return ids.take()
  }

  return {
    kind: 'bpe',
    vocabSize: tokens.length,
    specials,
    silent: definition.silent,
    endOfText: END_OF_TEXT.map((name) => specials.get(name)).find((id) => id !== undefined),
    encode,
    decode: (ids) => decodeTokens(ids, bytesOf),
    bytesOf,
    toJSON: () => ({ kind: 'bpe', huggingFace: definition.source }),
    toHuggingFace: () => definition.source,
  }
}

/** Matches any special token, the longest where several begin at one place. */
function specialPattern(specials: ReadonlyMap<string, number>): RegExp | undefined {
  if (specials.size === 0) return undefined
  const escaped = [...specials.keys()]
    .toSorted((a, b) => b.length - a.length)
    .map((text) => text.replace(/[\\^$.*+?()[\]{}|/]/g, String.raw`\$&`))
  return new RegExp(escaped.join('|'), 'gu')
}

/** The function from one piece of text to its ids, remembering short pieces. */
function pieceEncoder(definition: BpeDefinition): (piece: string) => ArrayLike<number> {
  const { tokens, unknown, wholePieces } = definition
  const encoder = new TextEncoder()
  const idOf = new Map(tokens.flatMap((token, id) => (token === undefined ? [] : [[token, id] as const])))
  const byteIds = BYTE_CHARACTERS.map((character) => idOf.get(character) ?? unknown)
  const merge = merger(definition)
  const cache = new Map<string, Int32Array>()

  function fresh(piece: string): Int32Array {
    const bytes = encoder.encode(piece)
    if (wholePieces) {
      const whole = idOf.get(Array.from(bytes, (byte) => BYTE_CHARACTERS[byte]!).join(''))
      if (whole !== undefined) return Int32Array.of(whole)
    }
    return merge(
      Int32Array.from(bytes, (byte) => {
        const id = byteIds[byte]
        if (id !== undefined) return id
        throw failure({
          where: `text near ${JSON.stringify(piece.slice(0, 20))}`,
          got: `the byte 0x${byte.toString(16).padStart(2, '0')}, which has no entry in the vocabulary`,
          expected: 'text the tokenizer can spell',
          fix: 'remove the character or use another tokenizer',
        })
      }),
    )
  }

  return (piece) => {
    if (piece.length > CACHE_CHARACTERS) return fresh(piece)
    let ids = cache.get(piece)
    if (!ids) {
      ids = fresh(piece)
      if (cache.size >= CACHE_ENTRIES) cache.clear()
      cache.set(piece, ids)
    }
    return ids
  }
}

/** The function that applies all merges to a list of ids, which it uses up. */
function merger({ merges }: BpeDefinition): (symbols: Int32Array) => Int32Array {
  const ranks = new Map(merges.map(({ left, right }, rank) => [left * PAIR_BASE + right, rank]))
  const mergedIds = Int32Array.from(merges, ({ merged }) => merged)

  return (symbols) => {
    const n = symbols.length
    if (n < 2) return symbols
    // A linked list over positions; a merged-away position holds -1.
    const next = Int32Array.from({ length: n }, (_, i) => i + 1)
    const previous = Int32Array.from({ length: n }, (_, i) => i - 1)
    const queue = createHeap<number>((a, b) => a < b)
    const rankAt = (i: number): number | undefined =>
      i >= 0 && next[i]! < n ? ranks.get(symbols[i]! * PAIR_BASE + symbols[next[i]!]!) : undefined
    const consider = (i: number): void => {
      const rank = rankAt(i)
      if (rank !== undefined) queue.push(rank * POSITION_BASE + i)
    }
    for (let i = 0; i < n - 1; i++) consider(i)
    for (let key = queue.pop(); key !== undefined; key = queue.pop()) {
      const i = key % POSITION_BASE
      const rank = Math.floor(key / POSITION_BASE)
      if (symbols[i] === -1 || rankAt(i) !== rank) continue
      const gone = next[i]!
      const after = next[gone]!
      symbols[i] = mergedIds[rank]!
      symbols[gone] = -1
      next[i] = after
      if (after < n) previous[after] = i
      consider(previous[i]!)
      consider(i)
    }
    return symbols.filter((id) => id !== -1)
  }
}

/** An Int32Array that grows by doubling. */
function createIdList(): { pushAll(ids: ArrayLike<number>): void; take(): Int32Array<ArrayBuffer> } {
  let items = new Int32Array(64)
  let count = 0
  return {
    pushAll(ids) {
      if (count + ids.length > items.length) {
        const larger = new Int32Array(Math.max(2 * items.length, count + ids.length))
        larger.set(items)
        items = larger
      }
      // A loop: most pieces are one or two ids, for which a call to `set` costs more than it saves.
      for (let i = 0; i < ids.length; i++) items[count++] = ids[i]!
    },
    take: () => items.slice(0, count),
  }
}
