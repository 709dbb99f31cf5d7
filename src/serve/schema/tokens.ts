/**
 * All tokens as a tree over their bytes, so that a grammar is asked about each beginning once rather than about each
 * token. Special tokens are in no text and so not in the tree.
 */
import type { Tokenizer } from '../../data/tokenizers/tokenizer.ts'
import type { Grammar, State } from './grammar.ts'

interface Branch {
  readonly byte: number
  /** Tokens that end here. */
  readonly ids: number[]
  readonly branches: Branch[]
}

/** Cost of a token that may not come. */
export const never = 0xffff

export class TokenTable {
  readonly vocab: number
  readonly tokenizer: Tokenizer
  /** Tokens that end a text. */
  readonly stopIds: ReadonlySet<number>
  /** 1 for each byte that has a token of its own. */
  readonly single: Uint8Array
  readonly #root: Branch = { byte: -1, ids: [], branches: [] }

  constructor(tokenizer: Tokenizer, vocab: number, stopIds: ReadonlySet<number>) {
    this.tokenizer = tokenizer
    this.vocab = vocab
    this.stopIds = stopIds
    this.single = new Uint8Array(256)
    for (let id = 0; id < vocab; id++) {
      const bytes = stopIds.has(id) ? [] : tokenizer.bytesOf(id)
      if (bytes.length === 0) continue
      if (bytes.length === 1) this.single[bytes[0]!] = 1
      let branch = this.#root
      for (const byte of bytes) {
        let next = branch.branches.find((candidate) => candidate.byte === byte)
        if (!next) branch.branches.push((next = { byte, ids: [], branches: [] }))
        branch = next
      }
      branch.ids.push(id)
    }
  }

  /** For each token the fewest bytes to the end once it was taken, or `never`. */
  costs(grammar: Grammar, state: State): Uint16Array {
    const costs = new Uint16Array(this.vocab).fill(never)
    const visit = (branch: Branch, at: State): void => {
      for (const next of branch.branches) {
        const reached = grammar.step(at, next.byte)
        if (!reached) continue
        if (reached.cost < never) for (const id of next.ids) costs[id] = reached.cost
        visit(next, reached)
      }
    }
    visit(this.#root, state)
    if (state.mayEnd) for (const id of this.stopIds) if (id < this.vocab) costs[id] = 0
    return costs
  }
}
