/**
 * Grammars over bytes, run as sets of threads: each thread is what is still to come, a list of items, and taking a byte
 * gives the threads that remain (Brzozowski, Derivatives of Regular Expressions, with a stack). Threads and sets are
 * made once each, and a set remembers where each byte leads, so walking a grammar soon is a table lookup.
 *
 * Every item knows the fewest bytes it takes; so does every set, for all that is to come. That is what lets a text be
 * ended in time: as long as there are as many tokens left as bytes needed, and a token for every single byte.
 */

/** Something to be matched. Made by the functions of `Grammar`, equal ones once. */
export interface Item {
  readonly id: number
  readonly kind: 'byte' | 'sequence' | 'choice' | 'repeat' | 'rule'
  /** The fewest bytes; Infinity when there is no way to end it. */
  cost: number
  /** byte: 1 where a byte is in the set. */
  readonly bytes?: Uint8Array
  /** sequence and choice: the parts; repeat: the one that is repeated. */
  readonly parts: readonly Item[]
  readonly least: number
  readonly most: number
  /** rule: what it stands for, set once. */
  target?: Item
}

/** What is still to come: an item, then the rest; null: nothing. */
interface Thread {
  readonly id: number
  readonly item: Item
  readonly rest: Thread | null
  readonly cost: number
}

export class State {
  /** Each begins with an item of kind `byte`. */
  readonly threads: readonly Thread[]
  /** The text may end here. */
  readonly mayEnd: boolean
  /** The fewest bytes with which it can end. */
  readonly cost: number
  /** By byte; undefined: not known yet. */
  readonly next: (State | null | undefined)[] = []

  constructor(threads: readonly Thread[], mayEnd: boolean) {
    this.threads = threads
    this.mayEnd = mayEnd
    this.cost = mayEnd ? 0 : Math.min(Infinity, ...threads.map(({ cost }) => cost))
  }

  /** Nothing may follow. */
  get complete(): boolean {
    return this.mayEnd && this.threads.length === 0
  }
}

const mostStates = 20_000

export class Grammar {
  readonly #can: Uint8Array
  readonly #items = new Map<string, Item>()
  readonly #rules: Item[] = []
  readonly #threads = new Map<string, Thread>()
  readonly #states = new Map<string, State>()
  #ids = 0

  /** @param can 1 for each byte that there is a token of its own for. */
  constructor(can: Uint8Array) {
    this.#can = can
  }

  #item(key: string, make: (id: number) => Item): Item {
    const known = this.#items.get(key)
    if (known) return known
    const item = make(++this.#ids)
    this.#items.set(key, item)
    return item
  }

  /** One byte of a set, given as bytes and [from, to] ranges. */
  oneOf(...ranges: readonly (number | readonly [number, number])[]): Item {
    const bytes = new Uint8Array(256)
    for (const range of ranges) {
      const [from, to] = typeof range === 'number' ? [range, range] : range
      bytes.fill(1, from, to + 1)
    }
    const cost = bytes.some((inside, byte) => inside && this.#can[byte]) ? 1 : Infinity
    const shape = { kind: 'byte', bytes, cost, parts: [], least: 1, most: 1 } as const
    return this.#item(`b${bytes.join('')}`, (id) => ({ id, ...shape }))
  }

  /** A text as it is. */
  text(text: string): Item {
    return this.sequence(...Array.from(new TextEncoder().encode(text), (byte) => this.oneOf(byte)))
  }

  sequence(...parts: readonly Item[]): Item {
    if (parts.length === 1) return parts[0]!
    const cost = parts.reduce((sum, part) => sum + part.cost, 0)
    const shape = { kind: 'sequence', parts, cost, least: 1, most: 1 } as const
    return this.#item(`s${parts.map(({ id }) => id).join()}`, (id) => ({ id, ...shape }))
  }

  choice(...parts: readonly Item[]): Item {
    if (parts.length === 1) return parts[0]!
    const cost = Math.min(Infinity, ...parts.map((part) => part.cost))
    const shape = { kind: 'choice', parts, cost, least: 1, most: 1 } as const
    return this.#item(`c${parts.map(({ id }) => id).join()}`, (id) => ({ id, ...shape }))
  }

  /** `least` to `most` times, which may be Infinity. */
  repeat(part: Item, least: number, most: number): Item {
    const cost = least === 0 ? 0 : least * part.cost
    const shape = { kind: 'repeat', parts: [part], cost, least, most } as const
    return this.#item(`r${part.id},${least},${most}`, (id) => ({ id, ...shape }))
  }

  optional(part: Item): Item {
    return this.repeat(part, 0, 1)
  }

  /** Something that may contain itself: `define` is given the item to use inside. */
  rule(define: (self: Item) => Item): Item {
    const id = ++this.#ids
    const rule: Item = { id, kind: 'rule', cost: Infinity, parts: [], least: 1, most: 1 }
    this.#rules.push(rule)
    rule.target = define(rule)
    return rule
  }

  /** The state before the first byte. Call it when all rules are defined. */
  start(item: Item): State {
    this.#settleCosts()
    return this.#stateOf([[item, null]])
  }

  /** Costs of rules that contain themselves: the least that satisfy all sums, found from above. */
  #settleCosts(): void {
    const all = [...this.#items.values()]
    for (let changed = true; changed;) {
      changed = false
      for (const rule of this.#rules) {
        if (rule.target!.cost < rule.cost) {
          rule.cost = rule.target!.cost
          changed = true
        }
      }
      // Parts are older than what they are part of.
      for (const item of all) {
        const cost = costOf(item)
        if (cost < item.cost) {
          item.cost = cost
          changed = true
        }
      }
    }
  }

  /** Where a byte leads, or null. */
  step(state: State, byte: number): State | null {
    const known = state.next[byte]
    if (known !== undefined) return known
    const rests = state.threads.flatMap(({ item, rest }) => (item.bytes![byte] ? [rest] : []))
    const next = rests.length === 0 ? null : this.#stateOf(rests.map((rest) => [undefined, rest]))
    state.next[byte] = next
    return next
  }

  #stateOf(heads: readonly (readonly [Item | undefined, Thread | null])[]): State {
    const threads = new Map<number, Thread>()
    const seen = new Set<string>()
    let mayEnd = false
    const expand = (item: Item | undefined, rest: Thread | null): void => {
      if (item === undefined) {
        if (rest === null) mayEnd = true
        else expand(rest.item, rest.rest)
        return
      }
      const key = `${item.id},${rest?.id ?? 0}`
      if (seen.has(key)) return
      seen.add(key)
      switch (item.kind) {
        case 'byte': {
          const thread = this.#thread(item, rest)
          threads.set(thread.id, thread)
          return
        }
        case 'rule':
          expand(item.target!, rest)
          return
        case 'choice':
          for (const part of item.parts) expand(part, rest)
          return
        case 'sequence': {
          const [first, ...others] = item.parts
          const after = others.reduceRight<Thread | null>((tail, part) => this.#thread(part, tail), rest)
          expand(first, after)
          return
        }
        case 'repeat': {
          const [part] = item.parts
          if (item.least === 0) expand(undefined, rest)
          if (item.most === 0) return
          const again = this.repeat(part!, Math.max(0, item.least - 1), item.most - 1)
          expand(part, this.#thread(again, rest))
        }
      }
    }
    for (const [item, rest] of heads) expand(item, rest)
    const key = `${[...threads.keys()].toSorted((a, b) => a - b).join()}${mayEnd ? '.' : ''}`
    const known = this.#states.get(key)
    if (known) return known
    if (this.#states.size >= mostStates) {
      this.#states.clear()
      this.#threads.clear()
    }
    const state = new State([...threads.values()], mayEnd)
    this.#states.set(key, state)
    return state
  }

  #thread(item: Item, rest: Thread | null): Thread {
    const key = `${item.id},${rest?.id ?? 0}`
    let thread = this.#threads.get(key)
    if (!thread) {
      thread = { id: ++this.#ids, item, rest, cost: item.cost + (rest?.cost ?? 0) }
      this.#threads.set(key, thread)
    }
    return thread
  }
}

function costOf({ kind, parts, least, cost }: Item): number {
  switch (kind) {
    case 'sequence':
      return parts.reduce((sum, part) => sum + part.cost, 0)
    case 'choice':
      return Math.min(Infinity, ...parts.map((part) => part.cost))
    case 'repeat':
      return least === 0 ? 0 : least * parts[0]!.cost
    default:
      return cost
  }
}
