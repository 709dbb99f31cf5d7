/** The entropy of a grammar against enumeration by hand and against what is sampled. */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { expectationsOf, GrammarSampler, type Grammar } from './grammar.ts'
import { alphabet, studyGrammar, studyText } from './text.ts'

/** A sentence is `x`, or two sentences in brackets; words of two lengths. Small enough to enumerate. */
const small: Grammar = {
  start: 'S',
  rules: [
    { head: 'S', p: 0.7, body: ['word'] },
    { head: 'S', p: 0.3, body: ['(', 'S', 'S', ')'] },
  ],
  lexicons: {
    word: { words: ['a ', 'ba ', 'bb '], probabilities: Float64Array.of(0.5, 0.3, 0.2) },
  },
}

/** All sentences with at most `depth` nestings, and their probabilities. */
function sentences(depth: number): Map<string, number> {
  const found = new Map<string, number>()
  small.lexicons['word']!.words.forEach((word, k) =>
    found.set(word, 0.7 * small.lexicons['word']!.probabilities[k]!),
  )
  if (depth === 0) return found
  const inner = [...sentences(depth - 1)]
  for (const [first, p] of inner)
    for (const [second, q] of inner) found.set(`(${first}${second})`, 0.3 * p * q)
  return found
}

test('entropy and length of a sentence are those of all sentences, enumerated', () => {
  // What nests deeper than `depth` is left out; depth by depth the sums approach the closed form from below.
  const { entropy, length } = expectationsOf(small)
  const sums = [1, 2, 3].map((depth) => {
    let [nats, characters, mass] = [0, 0, 0]
    for (const [text, p] of sentences(depth)) {
      nats -= p * Math.log(p)
      characters += p * text.length
      mass += p
    }
    return { nats, characters, mass }
  })
  // Closed forms of this grammar: H = (h + 0.7 Hw) / (1 - 0.6), length = (0.7 * 2.5 + 0.3 * 2) / (1 - 0.6).
  const rule = -0.7 * Math.log(0.7) - 0.3 * Math.log(0.3)
  const word = -0.5 * Math.log(0.5) - 0.3 * Math.log(0.3) - 0.2 * Math.log(0.2)
  assert.ok(Math.abs(entropy - (rule + 0.7 * word) / 0.4) < 1e-12)
  assert.ok(Math.abs(length - (0.7 * 2.5 + 0.6) / 0.4) < 1e-12)
  sums.forEach(({ nats, characters, mass }, i) => {
    assert.ok(nats < entropy && characters < length && mass < 1)
    if (i > 0) assert.ok(nats > sums[i - 1]!.nats && characters > sums[i - 1]!.characters)
  })
})

test('a grammar that does not nest: enumeration gives the entropy exactly, and each text comes from one derivation', () => {
  const flat: Grammar = {
    ...small,
    rules: [
      { head: 'S', p: 1, body: ['word', 'tail', '.'] },
      { head: 'tail', p: 0.4, body: [] },
      { head: 'tail', p: 0.6, body: ['(', 'word', ')'] },
    ],
  }
  const { words, probabilities } = flat.lexicons['word']!
  const all = new Map<string, number>()
  const add = (text: string, p: number): void => {
    assert.ok(!all.has(text), `two derivations of '${text}'`)
    all.set(text, p)
  }
  words.forEach((first, i) => {
    add(`${first}.`, probabilities[i]! * 0.4)
    words.forEach((second, j) => add(`${first}(${second}).`, probabilities[i]! * 0.6 * probabilities[j]!))
  })
  let [nats, characters] = [0, 0]
  for (const [text, p] of all) {
    nats -= p * Math.log(p)
    characters += p * text.length
  }
  const { entropy, length, rate } = expectationsOf(flat)
  assert.ok(Math.abs(entropy - nats) < 1e-12 && Math.abs(length - characters) < 1e-12)
  assert.ok(Math.abs(rate - nats / characters) < 1e-12)
})

test('the nats of a window are -ln of the probability of all texts that begin with it', () => {
  const sampler = new GrammarSampler(small)
  // The first six characters lie in at most two sentences; anything longer than the window may follow.
  const length = 6
  const probability = (prefix: string): number => {
    let sum = 0
    const queue: [string, number][] = [['', 1]]
    const parts = [...sentences(2)]
    while (queue.length > 0) {
      const [text, p] = queue.pop()!
      for (const [sentence, q] of parts) {
        const next = text + sentence
        if (next.length >= prefix.length ? next.startsWith(prefix) : prefix.startsWith(next)) {
          if (next.length >= prefix.length) sum += p * q
          else queue.push([next, p * q])
        }
      }
    }
    return sum
  }
  let compared = 0
  for (let index = 0; index < 60; index++) {
    const nats = new Float64Array(length)
    const text = sampler.window({ seed: 5, stream: 0, index }, length, nats)
    // Enumeration stops at two nestings; texts that may hold more are left out.
    if (text.includes('(')) continue
    compared++
    const total = nats.reduce((a, b) => a + b, 0)
    assert.ok(Math.abs(total + Math.log(probability(text))) < 0.02 * total, `${text}: ${total}`)
  }
  assert.ok(compared > 15)
})

test("the study's text: sampled nats per character agree with the entropy rate, and windows are reproducible", () => {
  const grammar = studyGrammar({ ...studyText, words: 2000 })
  const sampler = new GrammarSampler(grammar)
  const { rate } = expectationsOf(grammar)
  const [windows, length] = [40, 5000]
  let sum = 0
  for (let index = 0; index < windows; index++) {
    const nats = new Float64Array(length)
    const text = sampler.window({ seed: 1, stream: 3, index }, length, nats)
    assert.ok([...text].every((character) => alphabet.includes(character)))
    sum += nats.reduce((a, b) => a + b, 0)
  }
  // Standard error of the mean over 200,000 characters is 0.3 %.
  assert.ok(
    Math.abs(sum / (windows * length) / rate - 1) < 0.012,
    `${sum / (windows * length)} against ${rate}`,
  )
  const use = { seed: 1, stream: 0, index: 7 }
  assert.equal(sampler.window(use, 64), new GrammarSampler(grammar).window(use, 64))
  assert.notEqual(sampler.window(use, 64), sampler.window({ ...use, index: 8 }, 64))
})

test('a grammar whose sentences never end on average is refused', () => {
  const rules = small.rules.map((rule) => ({ ...rule, p: rule.body.length > 1 ? 0.6 : 0.4 }))
  assert.throws(
    () => expectationsOf({ ...small, rules }),
    /sentences of -\S+ characters on average; expected sentences that end/,
  )
})
