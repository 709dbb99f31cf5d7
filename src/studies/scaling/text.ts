/**
 * The grammar of the scaling study. A sentence is a clause: a noun, a verb, sometimes an object, and after any noun
 * sometimes another clause in brackets, in which there may be a third. Nouns and verbs come from two lexicons of random
 * spellings, whose frequencies follow Zipf's law with an exponent above one. So there is something to learn at every
 * scale (how letters follow one another, words of every rarity, which of the two lexicons is due after a bracket closes)
 * and no end to it within a study's compute.
 *
 * Nothing in it is learned all at once: an early version had verbs agree in a mark with their noun, and the step in the
 * loss where a model discovers that bent the law of the small runs.
 */
import { philoxBlock, wordToUniform } from '../../compiler/index.ts'
import type { Grammar, Lexicon, Rule } from './grammar.ts'

const letters = 'abcdefghijklmnopqrst'
const marks = [' ', '.', '(', ')']

/** The characters of the text; a token is a place here. */
export const alphabet: readonly string[] = [...letters, ...marks]

/** What separates sentences, which is also what a window is given to begin with. */
export const sentenceEnd = '.'

export interface TextSettings {
  readonly seed: number
  /** Words of each lexicon. */
  readonly words: number
  /** Of Zipf's law: the k-th word has probability proportional to k to the minus this. */
  readonly exponent: number
  /** Probability of a clause nested after a noun. */
  readonly nested: number
  /** Probability of an object after a verb. */
  readonly object: number
}

export const studyText: TextSettings = { seed: 20, words: 32_768, exponent: 1.5, nested: 0.2, object: 0.5 }

/**
 *   sentence -> clause .
 *   clause   -> noun nesting verb object
 *   nesting  -> nothing | ( clause )
 *   object   -> nothing | noun nesting
 *
 * What follows an optional part never begins as that part does (a word ends in a space, and the next character is a
 * letter or a mark), and after a verb comes an object, never a second verb: a text has one derivation only.
 */
export function studyGrammar({ seed, words, exponent, nested, object }: TextSettings): Grammar {
  const rules: Rule[] = [
    { head: 'sentence', p: 1, body: ['clause', sentenceEnd] },
    { head: 'clause', p: 1, body: ['noun', 'nesting', 'verb', 'object'] },
    { head: 'nesting', p: 1 - nested, body: [] },
    { head: 'nesting', p: nested, body: ['(', 'clause', ')'] },
    { head: 'object', p: 1 - object, body: [] },
    { head: 'object', p: object, body: ['noun', 'nesting'] },
  ]
  const lexicon = (stream: number): Lexicon => zipfLexicon({ seed, stream, count: words, exponent })
  return { start: 'sentence', rules, lexicons: { noun: lexicon(1), verb: lexicon(2) } }
}

/** Different random spellings and a space, the shorter ones first as in natural languages. */
function zipfLexicon(of: { seed: number; stream: number; count: number; exponent: number }): Lexicon {
  const { seed, stream, count, exponent } = of
  const seen = new Set<string>()
  for (let block = 0; seen.size < count; block += 2) {
    const use = { seed, step: 0, stream, salt: 0x1e_71c0 }
    const draws = [...philoxBlock(use, block), ...philoxBlock(use, block + 1)].map(wordToUniform)
    // Room for the words: at most a quarter of the spellings of a length are taken.
    const shortest = 1 + Math.ceil(Math.log(1 + seen.size / 4) / Math.log(letters.length))
    const length = shortest + Math.floor(2 * draws[0]!)
    const spelling = draws
      .slice(1, 1 + Math.min(length, 7))
      .map((u) => letters[Math.floor(u * letters.length)]!)
    seen.add(`${spelling.join('')} `)
  }
  const weights = Float64Array.from({ length: count }, (_, k) => (k + 1) ** -exponent)
  const total = weights.reduce((a, b) => a + b, 0)
  return { words: [...seen], probabilities: weights.map((w) => w / total) }
}
