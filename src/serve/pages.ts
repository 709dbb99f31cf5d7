/**
 * Who holds which page of the key/value cache, and what pages hold that nobody needs any more but somebody may ask for
 * again. A full page is known by its tokens and the page before it, so a sequence that begins like an earlier one takes
 * over its pages instead of reading the same tokens again (PagedAttention: Kwon et al., Efficient Memory Management for
 * Large Language Model Serving with PagedAttention).
 *
 * Pages are handed out one by one as sequences grow, but a sequence is let in only when what all might still take is
 * there, so none ever has to be thrown out.
 */
import { InternalError } from '../errors.ts'

/** A full page that can be found by its content. */
interface Known {
  readonly page: number
  readonly key: string
  /** Unlike page numbers never used twice: names this content to the pages after it. */
  readonly id: number
}

/** The pages of one sequence. */
export interface Held {
  readonly pages: number[]
  /** Pages it may still take. */
  promised: number
  /** How many of its tokens lie in pages that can be found, and the content they end in. */
  known: number
  last: number
}

const root = 0

export class PagePool {
  readonly pageSize: number
  readonly total: number
  readonly #users: Int32Array
  readonly #free: number[]
  readonly #byKey = new Map<string, Known>()
  readonly #byPage = new Map<number, Known>()
  /** Known pages nobody uses, the one to go first in front. */
  readonly #idle = new Set<number>()
  #promised = 0
  #ids = root

  constructor(total: number, pageSize: number) {
    this.total = total
    this.pageSize = pageSize
    this.#users = new Int32Array(total)
    this.#free = Array.from({ length: total }, (_, i) => total - 1 - i)
  }

  /** Pages some sequence uses now. */
  get used(): number {
    return this.total - this.#free.length - this.#idle.size
  }

  /**
   * Lets a sequence in that will grow to `most` tokens, if there is room. What is known of its first tokens it takes
   * over: `held.pages.length` times the page size of them need not be read.
   */
  admit(tokens: ArrayLike<number>, most: number, share = true): Held | undefined {
    const held: Held = { pages: [], promised: 0, known: 0, last: root }
    // At least one token is left to read: its logits are wanted.
    const findable = share ? tokens.length - 1 : 0
    while (held.known + this.pageSize <= findable) {
      const known = this.#byKey.get(this.#keyAt(held.last, tokens, held.known))
      if (!known) break
      this.#use(known.page)
      held.pages.push(known.page)
      held.known += this.pageSize
      held.last = known.id
    }
    const need = Math.ceil(most / this.pageSize) - held.pages.length
    if (this.#free.length + this.#idle.size - this.#promised < need) {
      this.release(held)
      return undefined
    }
    held.promised = need
    this.#promised += need
    return held
  }

  /** Gives a sequence the pages for its first `tokens` tokens. */
  grow(held: Held, tokens: number): void {
    while (held.pages.length * this.pageSize < tokens) {
      if (held.promised === 0) throw new InternalError('a sequence grows beyond what it asked for')
      held.promised--
      this.#promised--
      held.pages.push(this.#take())
    }
  }

  /** Says that the first `computed` of these tokens are in the cache: full pages can be found from now on. */
  publish(held: Held, tokens: ArrayLike<number>, computed: number): void {
    for (; held.known + this.pageSize <= computed; held.known += this.pageSize) {
      const key = this.#keyAt(held.last, tokens, held.known)
      let known = this.#byKey.get(key)
      if (!known) {
        known = { page: held.pages[held.known / this.pageSize]!, key, id: ++this.#ids }
        this.#byKey.set(key, known)
        this.#byPage.set(known.page, known)
      }
      held.last = known.id
    }
  }

  /** Takes a sequence's pages back. What can be found stays until its memory is needed. */
  release(held: Held): void {
    this.#promised -= held.promised
    held.promised = 0
    // The end of a text goes before its beginning, without which it could not be found.
    for (const page of held.pages.splice(0).toReversed()) {
      if (--this.#users[page]! > 0) continue
      if (this.#byPage.has(page)) this.#idle.add(page)
      else this.#free.push(page)
    }
  }

  /** Forgets all contents: the weights have changed. */
  forget(): void {
    this.#free.push(...this.#idle)
    this.#idle.clear()
    this.#byKey.clear()
    this.#byPage.clear()
  }

  #keyAt(before: number, tokens: ArrayLike<number>, from: number): string {
    let key = `${before}`
    for (let i = from; i < from + this.pageSize; i++) key += `,${tokens[i]}`
    return key
  }

  #use(page: number): void {
    this.#users[page]!++
    this.#idle.delete(page)
  }

  #take(): number {
    let page = this.#free.pop()
    if (page === undefined) {
      ;[page] = this.#idle
      if (page === undefined) throw new InternalError('more pages promised than there are')
      this.#byKey.delete(this.#byPage.get(page)!.key)
      this.#byPage.delete(page)
    }
    this.#use(page)
    return page
  }
}
