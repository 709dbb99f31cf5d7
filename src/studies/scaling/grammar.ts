/**
 * Text whose entropy is known: a probabilistic context-free grammar with lexicons, its entropy rate in closed form, and
 * a sampler that also knows the exact probability of every character it writes.
 *
 * A sentence is drawn by rewriting; the text is one sentence after the other. Every text has one derivation only, so the
 * entropy of a sentence is that of its derivation, which is linear in the entropies of what it is rewritten into
 * (Grenander, Syntax-controlled probabilities, 1967; Soule, Entropies of probabilistic grammars, 1974):
 *
 *   H(A) = sum over rules r of A: p_r (-ln p_r + sum of H(B) over the symbols B of r)
 *
 * and the expected length obeys the same equation with the number of characters in place of -ln p_r. By the renewal
 * theorem the entropy rate of the text is H(sentence) / E[length of a sentence].
 *
 * The subtle thing: the sampler decides rules from left to right, and each shows in the next character at the latest.
 * So a rule's -ln p is charged to the character that follows, and a character's sum is exactly its -ln probability given
 * all before it, also in a window that ends within a word.
 */
import { philoxBlock } from '../../compiler/index.ts'
import { failure } from '../../errors.ts'

export interface Rule {
  readonly head: string
  readonly p: number
  /** Heads, names of lexicons, or single characters. */
  readonly body: readonly string[]
}

/** Words by falling probability; none may begin another (a final space sees to that). */
export interface Lexicon {
  readonly words: readonly string[]
  readonly probabilities: Float64Array
}

export interface Grammar {
  readonly start: string
  readonly rules: readonly Rule[]
  readonly lexicons: Readonly<Record<string, Lexicon>>
}

export interface Expected {
  /** Nats of a sentence. */
  readonly entropy: number
  /** Characters of a sentence. */
  readonly length: number
  /** Nats a character. */
  readonly rate: number
}

/** Entropy and length of a sentence, and their quotient. */
export function expectationsOf({ start, rules, lexicons }: Grammar): Expected {
  const heads = [...new Set(rules.map(({ head }) => head))]
  const rows = heads.map(() => heads.map(() => 0))
  const own = heads.map(() => ({ entropy: 0, length: 0 }))
  const words = new Map(Object.entries(lexicons).map(([name, lexicon]) => [name, wordExpectations(lexicon)]))
  for (const { head, p, body } of rules) {
    const at = heads.indexOf(head)
    own[at]!.entropy -= p * Math.log(p)
    for (const symbol of body) {
      const into = heads.indexOf(symbol)
      if (into >= 0) rows[at]![into]! += p
      else {
        own[at]!.entropy += p * (words.get(symbol)?.entropy ?? 0)
        own[at]!.length += p * (words.get(symbol)?.length ?? 1)
      }
    }
  }
  const solve = (constants: readonly number[]): number => solveRenewal(rows, constants)[heads.indexOf(start)]!
  const entropy = solve(own.map((one) => one.entropy))
  const length = solve(own.map((one) => one.length))
  if (!(length > 0 && Number.isFinite(length))) {
    throw failure({
      where: 'grammar',
      got: `sentences of ${length} characters on average`,
      expected: 'sentences that end',
      fix: 'lower the probability of rules that nest',
    })
  }
  return { entropy, length, rate: entropy / length }
}

function wordExpectations({ words, probabilities }: Lexicon): { entropy: number; length: number } {
  let [entropy, length] = [0, 0]
  probabilities.forEach((p, i) => {
    entropy -= p * Math.log(p)
    length += p * words[i]!.length
  })
  return { entropy, length }
}

/** x = b + M x by elimination with pivots; negative or infinite where the expectation does not exist. */
function solveRenewal(matrix: readonly (readonly number[])[], b: readonly number[]): number[] {
  const n = b.length
  const rows = matrix.map((row, i) => [...row.map((m, j) => (i === j ? 1 : 0) - m), b[i]!])
  for (let k = 0; k < n; k++) {
    const best = rows
      .slice(k)
      .reduce((a, row, i) => (Math.abs(row[k]!) > Math.abs(rows[a]![k]!) ? k + i : a), k)
    ;[rows[k], rows[best]] = [rows[best]!, rows[k]!]
    for (let i = 0; i < n; i++) {
      if (i === k) continue
      const factor = rows[i]![k]! / rows[k]![k]!
      for (let j = k; j <= n; j++) rows[i]![j]! -= factor * rows[k]![j]!
    }
  }
  return rows.map((row, i) => row[n]! / row[i]!)
}

/** Draws text. Window `index` of a stream is a pure function of (seed, stream, index): no text need be stored. */
export class GrammarSampler {
  readonly #grammar: Grammar
  readonly #rules = new Map<string, readonly Rule[]>()
  readonly #sums = new Map<string, Float64Array>()
  readonly #prefixes = new Map<string, ReadonlyMap<string, number>>()

  constructor(grammar: Grammar) {
    this.#grammar = grammar
    for (const rule of grammar.rules)
      this.#rules.set(rule.head, [...(this.#rules.get(rule.head) ?? []), rule])
    for (const [name, { probabilities }] of Object.entries(grammar.lexicons)) {
      let sum = 0
      this.#sums.set(
        name,
        probabilities.map((p) => (sum += p)),
      )
    }
  }

  /** The first `length` characters of sentence after sentence; with `nats`, -ln of each character's probability. */
  window(use: WindowUse, length: number, nats?: Float64Array): string {
    const draw = drawer(use)
    const stack: string[] = []
    let [text, pending] = ['', 0]
    while (text.length < length) {
      const symbol = stack.pop() ?? this.#grammar.start
      const rules = this.#rules.get(symbol)
      const sums = this.#sums.get(symbol)
      if (rules) {
        const rule = rules.length === 1 ? rules[0]! : pickRule(rules, draw())
        pending -= Math.log(rule.p)
        for (let i = rule.body.length - 1; i >= 0; i--) stack.push(rule.body[i]!)
      } else {
        const word = sums ? this.#grammar.lexicons[symbol]!.words[pickWord(sums, draw())]! : symbol
        if (nats) this.#charge(nats, text.length, symbol, word, pending)
        pending = 0
        text += word
      }
    }
    return text.slice(0, length)
  }

  /** The -ln of each character of a word given those before it, from the mass of all words that begin alike. */
  #charge(nats: Float64Array, at: number, symbol: string, word: string, pending: number): void {
    const prefixes = this.#sums.has(symbol) ? this.#prefixesOf(symbol) : undefined
    let mass = 1
    for (let i = 0; i < word.length && at + i < nats.length; i++) {
      const next = prefixes?.get(word.slice(0, i + 1)) ?? 1
      nats[at + i] = (i === 0 ? pending : 0) - Math.log(next / mass)
      mass = next
    }
  }

  #prefixesOf(name: string): ReadonlyMap<string, number> {
    const known = this.#prefixes.get(name)
    if (known) return known
    const { words, probabilities } = this.#grammar.lexicons[name]!
    const made = new Map<string, number>()
    words.forEach((word, k) => {
      for (let i = 1; i <= word.length; i++) {
        const prefix = word.slice(0, i)
        made.set(prefix, (made.get(prefix) ?? 0) + probabilities[k]!)
      }
    })
    this.#prefixes.set(name, made)
    return made
  }
}

export interface WindowUse {
  readonly seed: number
  /** Training text and held-out text are different streams. */
  readonly stream: number
  readonly index: number
}

/** Uniform numbers of 53 bits, two from each block: words far down a lexicon are rarer than 24 bits can say. */
function drawer({ seed, stream, index }: WindowUse): () => number {
  const use = { seed, step: index, stream, salt: 0x5ca1 }
  let [drawn, spare] = [0, 0]
  return () => {
    if (drawn++ % 2 === 1) return spare
    const [a, b, c, d] = philoxBlock(use, (drawn - 1) / 2)
    spare = (c + (d >>> 11) / 2 ** 21) / 2 ** 32
    return (a + (b >>> 11) / 2 ** 21) / 2 ** 32
  }
}

function pickRule(rules: readonly Rule[], draw: number): Rule {
  let rest = draw
  return rules.find(({ p }) => (rest -= p) < 0) ?? rules.at(-1)!
}

/** The first word whose running sum is above the draw. */
function pickWord(sums: Float64Array, draw: number): number {
  const target = draw * sums.at(-1)!
  let [low, high] = [0, sums.length - 1]
  while (low < high) {
    const middle = (low + high) >> 1
    if (sums[middle]! > target) high = middle
    else low = middle + 1
  }
  return low
}
