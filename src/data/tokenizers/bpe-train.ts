/**
 * Learns a byte-level BPE vocabulary, giving the merges of the Hugging Face trainer in the same order: the most frequent
 * pair wins, ties go to the smallest (left id, right id).
 * The subtle thing is speed: a word is kept once with its count, each pair knows the words it was seen in, and a merge
 * touches only those. Counts in the heap may be too high; an entry that comes out stale goes back in corrected.
 */
import { badUsage } from '../../errors.ts'
import { createHeap } from '../heap.ts'
import type { Heap } from '../heap.ts'
import { PAIR_BASE } from './bpe.ts'
import type { BpeTokenizer } from './bpe.ts'
import { BYTE_CHARACTERS, GPT2_SPLIT, compileSplit, forEachPiece } from './byte-level.ts'
import { bpeFromHuggingFace, byteLevelJson } from './huggingface.ts'

export interface BpeTraining {
  /** Special tokens, the 256 bytes and the merges together. A text with few distinct words may end with fewer. */
  readonly vocabSize: number
  /** Get the first ids; `<|endoftext|>` alone when not given. */
  readonly specials?: readonly string[]
}

interface Word {
  readonly symbols: number[]
  readonly count: number
}

interface Candidate {
  readonly left: number
  readonly right: number
  readonly count: number
}

/**
 * Learns merges from `texts` (split as GPT-2 does) until the vocabulary is full or no pair is left.
 *
 * @throws UserError when `vocabSize` has no room for the specials and the 256 bytes.
 */
export function trainBpe(
  texts: Iterable<string>,
  { vocabSize, specials = ['<|endoftext|>'] }: BpeTraining,
): BpeTokenizer {
  const smallest = specials.length + BYTE_CHARACTERS.length
  if (!Number.isInteger(vocabSize) || vocabSize < smallest || vocabSize >= PAIR_BASE) {
    throw badUsage({
      where: 'bpe vocabulary size',
      got: `${vocabSize}`,
      expected: `an integer from ${smallest} (the 256 bytes and ${specials.length} special) to ${PAIR_BASE - 1}`,
      fix: 'try vocab=1024 for a megabyte of text, 8192 or more for larger',
    })
  }
  // Ids: specials, then the byte characters by code point, then merges.
  const tokens = [...specials, ...BYTE_CHARACTERS.toSorted()]
  const idOf = new Map(tokens.map((token, id) => [token, id]))
  const words = countWords(texts, idOf)
  const pairs = createPairTable(words)
  const merges: (readonly [string, string])[] = []
  while (tokens.length < vocabSize) {
    const best = pairs.takeBest()
    if (!best) break
    const left = tokens[best.left]!
    const right = tokens[best.right]!
    merges.push([left, right])
    // Two merges can spell the same token ("ab"+"c", "a"+"bc"); it then keeps its first id.
    const merged = idOf.get(left + right) ?? tokens.push(left + right) - 1
    idOf.set(left + right, merged)
    pairs.merge(best, merged)
  }
  return bpeFromHuggingFace(byteLevelJson({ tokens, merges, specials }), 'trained vocabulary')
}

/** Distinct pieces of the texts as byte ids, with how often each occurs. */
function countWords(texts: Iterable<string>, idOf: ReadonlyMap<string, number>): Word[] {
  const counts = new Map<string, number>()
  const patterns = [compileSplit(GPT2_SPLIT, 'GPT-2 split expression')]
  for (const text of texts) {
    forEachPiece(text, patterns, (piece) => counts.set(piece, (counts.get(piece) ?? 0) + 1))
  }
  const encoder = new TextEncoder()
  const byteIds = BYTE_CHARACTERS.map((character) => idOf.get(character)!)
  return Array.from(counts, ([piece, count]) => ({
    symbols: Array.from(encoder.encode(piece), (byte) => byteIds[byte]!),
    count,
  }))
}

interface PairTable {
  /** The most frequent pair, ties to the smallest ids, taken out; undefined when no pair is left. */
  takeBest(): Candidate | undefined
  /** Joins every occurrence of a taken pair, left to right, into `merged`. */
  merge(pair: Candidate, merged: number): void
}

function createPairTable(words: readonly Word[]): PairTable {
  const counts = new Map<number, number>()
  /** Pair -> words it was seen in at some time; it may have left one since. */
  const places = new Map<number, number[]>()
  const queue: Heap<Candidate> = createHeap(
    (a, b) =>
      a.count > b.count ||
      (a.count === b.count && (a.left < b.left || (a.left === b.left && a.right < b.right))),
  )

  function change(left: number, right: number, difference: number): void {
    const key = left * PAIR_BASE + right
    counts.set(key, (counts.get(key) ?? 0) + difference)
  }

  function note(left: number, right: number, word: number, grown: Set<number>): void {
    const key = left * PAIR_BASE + right
    const list = places.get(key)
    if (!list) places.set(key, [word])
    else if (list.at(-1) !== word) list.push(word)
    grown.add(key)
  }

  function enqueue(keys: Iterable<number>): void {
    for (const key of keys) {
      const count = counts.get(key) ?? 0
      if (count > 0) queue.push({ left: Math.floor(key / PAIR_BASE), right: key % PAIR_BASE, count })
    }
  }

  const seen = new Set<number>()
  words.forEach(({ symbols, count }, index) => {
    for (let i = 0; i + 1 < symbols.length; i++) {
      change(symbols[i]!, symbols[i + 1]!, count)
      note(symbols[i]!, symbols[i + 1]!, index, seen)
    }
  })
  enqueue(seen)

  return {
    takeBest() {
      for (let top = queue.pop(); top; top = queue.pop()) {
        const count = counts.get(top.left * PAIR_BASE + top.right) ?? 0
        if (count === top.count) return top
        if (count > 0) queue.push({ ...top, count })
      }
      return undefined
    },
    merge({ left, right }, merged) {
      const key = left * PAIR_BASE + right
      const grown = new Set<number>()
      const affected = places.get(key) ?? []
      places.delete(key)
      for (const index of affected) {
        const { symbols, count } = words[index]!
        let kept = 0
        // Compacts in place: reads at i, writes at kept, so symbols[kept - 1] is the left neighbour as already merged.
        for (let i = 0; i < symbols.length; i++) {
          if (symbols[i] !== left || symbols[i + 1] !== right) {
            symbols[kept++] = symbols[i]!
            continue
          }
          const after = symbols[i + 2]
          if (kept > 0) {
            const before = symbols[kept - 1]!
            change(before, left, -count)
            change(before, merged, count)
            note(before, merged, index, grown)
          }
          if (after !== undefined) {
            change(right, after, -count)
            change(merged, after, count)
            note(merged, after, index, grown)
          }
          symbols[kept++] = merged
          i++
        }
        symbols.length = kept
      }
      counts.delete(key)
      enqueue(grown)
    },
  }
}
